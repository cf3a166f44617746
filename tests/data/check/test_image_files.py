from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from czslkit.cli import main
from czslkit.data.check.verification import Verification, verify
from czslkit.data.images import open_rgb
from czslkit.data.layout import images_folder

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def verified(folder: Path) -> Verification:
    return verify(folder.name, folder.parent, workers=2)


def kinds(folder: Path) -> dict[str, str]:
    """Severity of each kind of finding."""
    return {finding.kind: finding.severity for finding in verified(folder).findings}


def test_images_that_cannot_be_read_are_an_error_with_the_reason(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = images_folder(pets)
    (images / "wet_dog" / "train0.jpg").write_bytes(b"")
    (images / "wet_dog" / "train1.jpg").write_bytes((images / "wet_dog" / "train1.jpg").read_bytes()[:-600])
    (images / "wet_dog" / "train2.jpg").write_text("no image")
    assert main(["data", "verify", "pets", "--data", str(pets.parent)]) == 1
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("error: 3 of 14 images cannot be read")
    assert lines[start + 1].startswith("    wet_dog/train0.jpg: it is empty")
    assert "image file is truncated" in lines[start + 2]
    assert lines[start + 3].startswith("    wet_dog/train2.jpg: it is in none of the formats JPEG, PNG")
    assert lines[start + 4] == "    -> replace them or remove them from the metadata"
    assert lines[-1] == "pets: 1 error"


def test_copies_in_another_split_are_a_warning(pets: Path) -> None:
    images = images_folder(pets)
    for copy in ("wet_dog/val0.jpg", "dry_cat/test1.jpg"):
        shutil.copyfile(images / "wet_dog" / "train0.jpg", images / copy)
    shutil.copyfile(images / "wet_dog" / "train1.jpg", images / "wet_dog" / "train2.jpg")
    (finding,) = verified(pets).findings
    assert finding.severity == "warning"
    assert finding.what == "1 image has a copy in another split"
    assert finding.where == ("dry_cat/test1.jpg (test) = wet_dog/train0.jpg (train) = wet_dog/val0.jpg (val)",)
    assert verified(pets).passed


def test_files_of_one_size_with_other_content_are_no_copies(pets: Path) -> None:
    for image in images_folder(pets).rglob("*.jpg"):
        Image.fromarray(np.full((8, 8, 3), sum(image.name.encode()) % 256, np.uint8)).save(image, "BMP")
    assert "copies" not in kinds(pets)


def test_files_without_metadata_are_noted(pets: Path) -> None:
    (images_folder(pets) / "wet_dog" / "Thumbs.db").touch()
    (images_folder(pets) / ".DS_Store").touch()
    (finding,) = verified(pets).findings
    assert (finding.severity, finding.where) == ("note", ("wet_dog/Thumbs.db",))


def test_unusual_images_are_reported(pets: Path) -> None:
    grey = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    folder = images_folder(pets) / "wet_dog"
    grey.save(folder / "train0.jpg", "PNG")
    frames[0].save(folder / "train1.jpg", "GIF", save_all=True, append_images=frames[1:])
    frames[1].save(folder / "train2.jpg", exif=exif)
    found = {finding.kind: finding.where for finding in verified(pets).findings}
    assert found == {
        "16-bit": ("wet_dog/train0.jpg",),
        "animated": ("wet_dog/train1.jpg",),
        "turned": ("wet_dog/train2.jpg",),
    }
    assert kinds(pets) == {"16-bit": "warning", "animated": "note", "turned": "note"}


def test_a_tiff_is_not_reported_as_turned_since_pillow_turns_it(pets: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file = images_folder(pets) / "wet_dog" / "train0.jpg"
    Image.effect_noise((20, 10), 50).convert("RGB").save(file, "TIFF", exif=exif)
    assert kinds(pets) == {}
    assert open_rgb(file).size == (10, 20)


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_grey_images_of_32_bits_are_a_warning(pets: Path, kind: str) -> None:
    Image.fromarray(np.arange(64).reshape(8, 8).astype(kind)).save(
        images_folder(pets) / "wet_dog" / "train0.jpg", "TIFF"
    )
    [finding] = verified(pets).findings
    assert (finding.kind, finding.severity) == ({"int32": "32-bit", "float32": "float"}[kind], "warning")
    assert finding.remedy.startswith("values above 255 are read as white and fractions as black")


def test_an_animation_damaged_after_its_first_frame_is_a_warning(
    pets: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(self: Image.Image) -> bool:
        raise IndexError("index out of range")

    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.is_animated", property(damaged))
    Image.effect_noise((64, 64), 50).save(pets / "images" / "cut.gif")
    edit(lambda entries: entries[0].update(image="cut.gif"))
    [found] = [finding for finding in verified(pets).findings if "cut.gif" in finding.where]
    assert (found.kind, found.severity) == ("damaged", "warning")


def test_an_image_outside_the_folder_is_not_opened(pets: Path, edit: Edit) -> None:
    (pets / "secret.jpg").write_text("no image")
    edit(lambda entries: entries[0].update(image="../secret.jpg"))
    assert kinds(pets) == {"outside": "error", "unreferenced": "note"}
