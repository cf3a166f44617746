from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from czslkit.cli import main
from czslkit.data.check.verification import Verification, count, quantities, verify
from czslkit.data.datasets import DATASETS, SplitCounts
from czslkit.data.layout import images_folder, metadata_file, pairs_file
from czslkit.data.listing import read_listing
from czslkit.data.make.mini import COUNTS, NAMES, write_mini
from czslkit.data.published import BENCHMARKS
from czslkit.errors import UnknownNameError

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def verified(folder: Path) -> Verification:
    return verify(folder.name, folder.parent, workers=2)


def kinds(folder: Path) -> dict[str, str]:
    """Severity of each kind of finding."""
    return {finding.kind: finding.severity for finding in verified(folder).findings}


@pytest.fixture(scope="module")
def minis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("minis")
    for name in NAMES:
        write_mini(name, root)
    return root


def test_replicas_of_all_datasets_pass(minis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "all", "--mini", "--data", str(minis)]) == 0
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if line.endswith(": sound")] == [f"{name}: sound" for name in NAMES]
    assert said.err == "", "a bar is for terminals"


def test_without_its_lists_a_replica_is_seen_to_hold_more(minis: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cgqa"
    shutil.copytree(minis / "cgqa", folder)
    shutil.rmtree(pairs_file(folder, "train").parent)
    finding = verify("cgqa", tmp_path, expected=COUNTS).findings[0]
    assert finding.where == (
        "pairs 39 instead of 36",
        "train pairs 27 instead of 24",
        "train images 147 instead of 144",
    )


def test_a_replica_does_not_have_the_published_counts(minis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "all", "--data", str(minis), "--format", "json"]) == 1
    reports = json.loads(capsys.readouterr().out)
    assert [report["dataset"] for report in reports] == list(BENCHMARKS)
    zappos = reports[1]
    assert (zappos["sound"], zappos["expected"]["attributes x objects"]) == (False, 192)
    assert "test images 48 instead of 2,914" in zappos["findings"][0]["where"]


def test_the_published_counts_are_those_of_the_papers() -> None:
    published = {  # attrs, objs, attrs x objs, pairs, train pairs and images, seen + unseen pairs and images twice
        "mit-states": (115, 245, 28175, 1962, 1262, 30338, 300, 300, 10420, 400, 400, 12995),
        "ut-zappos": (16, 12, 192, 116, 83, 22998, 15, 15, 3214, 18, 18, 2914),
        "cgqa": (413, 674, 278362, 7555, 5592, 26920, 1252, 1040, 7280, 888, 923, 5098),
    }
    counts = {name: DATASETS[name].counts for name in BENCHMARKS}
    assert {name: tuple(quantities(each).values()) for name, each in counts.items() if each} == published


def test_counts_are_of_the_lists_and_of_the_images_that_count(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[0].update(attr="NA"))
    assert quantities(count(read_listing(pets))) == {
        "attributes": 2,
        "objects": 2,
        "attributes x objects": 4,
        "pairs": 4,
        "train pairs": 2,
        "train images": 5,
        "val seen pairs": 1,
        "val unseen pairs": 1,
        "val images": 4,
        "test seen pairs": 1,
        "test unseen pairs": 1,
        "test images": 4,
    }


def test_what_differs_from_the_expected_counts_is_an_error(pets: Path) -> None:
    counts = count(read_listing(pets))
    expected = replace(counts, objs=3, splits={**counts.splits, "val": SplitCounts(1, 2, 4)})
    finding = verify("pets", pets.parent, expected=expected).findings[0]
    assert (finding.severity, finding.what) == ("error", "3 of 12 counts are not as expected")
    assert finding.where == (
        "objects 2 instead of 3",
        "attributes x objects 4 instead of 6",
        "val unseen pairs 1 instead of 2",
    )


def test_a_sound_dataset_has_no_findings(pets: Path) -> None:
    result = verified(pets)
    assert result.findings == ()
    assert result.to_text().splitlines()[0] == f"pets in {pets}"
    assert result.to_text().splitlines()[-1] == "pets: sound"


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
    assert lines[start + 1].startswith("    wet_dog/train0.jpg: cannot identify image file")
    assert "image file is truncated" in lines[start + 2]
    assert lines[start + 3].startswith("    wet_dog/train2.jpg: cannot identify image file")
    assert lines[start + 4] == "    -> replace them, or take them out of the metadata"
    assert lines[-1] == "pets: 1 error"


def test_of_many_places_five_are_shown_and_all_are_in_the_json(pets: Path) -> None:
    shutil.rmtree(images_folder(pets))
    result = verified(pets)
    text = result.to_text()
    assert text.count(".jpg") == 5
    assert "    and 9 more\n" in text
    assert len(result.to_json()["findings"][0]["where"]) == 14


def test_copies_in_another_split_are_a_warning(pets: Path) -> None:
    images = images_folder(pets)
    for copy in ("wet_dog/val0.jpg", "dry_cat/test1.jpg"):
        shutil.copyfile(images / "wet_dog" / "train0.jpg", images / copy)
    shutil.copyfile(images / "wet_dog" / "train1.jpg", images / "wet_dog" / "train2.jpg")
    (finding,) = verified(pets).findings
    assert finding.severity == "warning"
    assert finding.what == "1 images have a copy in another split"
    assert finding.where == ("dry_cat/test1.jpg (test) = wet_dog/train0.jpg (train) = wet_dog/val0.jpg (val)",)
    assert verified(pets).sound


def test_files_of_one_size_with_other_content_are_no_copies(pets: Path) -> None:
    for image in images_folder(pets).rglob("*.jpg"):
        Image.fromarray(np.full((8, 8, 3), sum(image.name.encode()) % 256, np.uint8)).save(image, "BMP")
    assert "copies" not in kinds(pets)


def test_files_that_the_metadata_does_not_name_are_noted(pets: Path) -> None:
    (images_folder(pets) / "wet_dog" / "Thumbs.db").touch()
    (images_folder(pets) / ".DS_Store").touch()
    (finding,) = verified(pets).findings
    assert (finding.severity, finding.where) == ("note", ("wet_dog/Thumbs.db",))


def test_images_that_viewers_show_otherwise_are_pointed_out(pets: Path) -> None:
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


def test_errors_come_first_and_warnings_before_notes(pets: Path, edit: Edit) -> None:
    (images_folder(pets) / "more.jpg").touch()
    edit(lambda entries: entries.append(dict(entries[0])))
    edit(lambda entries: entries.append({**entries[0], "image": "gone.jpg"}))
    assert kinds(pets) == {"missing": "error", "repeated": "warning", "unreferenced": "note"}
    assert verified(pets).to_text().endswith("pets: 1 error and 1 warning")


def test_an_image_outside_the_folder_is_not_opened(pets: Path, edit: Edit) -> None:
    (pets / "secret.jpg").write_text("no image")
    edit(lambda entries: entries[0].update(image="../secret.jpg"))
    assert kinds(pets) == {"outside": "error", "unreferenced": "note"}


def test_lists_that_cannot_be_read_are_an_error(pets: Path) -> None:
    metadata_file(pets).write_bytes(b"nonsense")
    result = verified(pets)
    assert [finding.kind for finding in result.findings] == ["malformed"]
    assert "is refused, and nothing in it was run" in result.to_text()
    assert result.to_json()["found"] is None


def test_an_absent_dataset_is_an_error_with_where_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "cgqa", "--data", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "error: cgqa is not there: looked for" in out
    assert out.endswith("cgqa: 1 error\n")


def test_an_unknown_name_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match="no dataset named 'cgq'"):
        verify("cgq", tmp_path)
    assert main(["data", "verify", "cgq", "--data", str(tmp_path)]) == 2
    assert "Did you mean 'cgqa'?" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_workers_are_a_number_above_zero(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["data", "verify", "demo", "--workers", workers])
    assert f"{workers!r} is not a whole number above 0" in capsys.readouterr().err


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


def test_what_is_missing_comes_with_what_to_do(pets: Path) -> None:
    next((pets / "images").rglob("*.jpg")).unlink()
    assert "-> unpack the images again, or take those that nobody has out" in verified(pets).to_text()
