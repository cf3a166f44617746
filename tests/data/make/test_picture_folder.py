from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.data.layout import metadata_file
from czslkit.data.make.dataset_import import import_dataset
from czslkit.data.metadata import read_metadata

Draw = Callable[[Path, int], None]
Refused = Callable[[Path, str], str]


@pytest.mark.parametrize("name", ["dry_teddy_bear", "dry  teddy bear", "dog", "_dog", "dog_"])
def test_a_folder_that_does_not_clearly_name_a_pair_is_named(
    photos: Path, name: str, draw: Draw, refused: Refused
) -> None:
    draw(photos / name / "0.png", 99)
    said = refused(
        photos,
        f"{photos} cannot be imported:\n  the folder {name!r} does not clearly name an attribute and an object",
    )
    assert "rename it to 'attr obj' with one space, or import a table" in said


@pytest.mark.parametrize(("name", "pair"), [("dry teddy_bear", ("dry", "teddy bear")), ("wet cat", ("wet", "cat"))])
def test_one_space_separates_attribute_and_object(
    photos: Path, tmp_path: Path, name: str, pair: tuple[str, str], draw: Draw
) -> None:
    draw(photos / name / "0.png", 99)
    shown = read_metadata(metadata_file(import_dataset(photos, "mine", tmp_path)))
    assert pair in {(i.attr, i.obj) for i in shown}
    assert len(shown) == 37


def test_files_that_are_not_images_are_skipped_and_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("README.txt", ".DS_Store", "wet_dog/Thumbs.db", "wet_dog/.hidden.png"):
        (photos / name).touch()
    import_dataset(photos, "mine", tmp_path)
    assert capsys.readouterr().err == "skipped files without an image suffix: README.txt, wet_dog/Thumbs.db\n"


def test_all_problems_of_a_folder_are_in_one_message(photos: Path, draw: Draw, refused: Refused) -> None:
    draw(photos / "stray.png", 1)
    draw(photos / "wet_dog" / "more" / "0.png", 2)
    (photos / "nan_dog").mkdir()
    said = refused(photos, "stray.png is not in a folder named after an attribute and an object")
    assert "wet_dog/more is a folder, expected images" in said
    assert "attr is 'nan', which means that the label is missing" in said


def test_a_source_without_images_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "photos").mkdir()
    refused(tmp_path / "photos", "photos has no folder of images; expected photos/ATTR_OBJ")
    refused(tmp_path / "nowhere", "nowhere is neither a folder of pictures nor a table")
