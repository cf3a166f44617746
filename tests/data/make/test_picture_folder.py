from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.data.layout import metadata_file
from czslkit.data.make.dataset_import import import_dataset
from czslkit.data.make.picture_folder import read_folder
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


def nested(photos: Path) -> Path:
    """Move the images of photos/ATTR_OBJ to nested/ATTR/OBJ."""
    for folder in sorted(photos.iterdir()):
        attr, obj = folder.name.split("_")
        target = photos.with_name("nested") / attr / obj
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    return photos.with_name("nested")


def test_folders_of_attributes_with_folders_of_objects_give_the_same_dataset(photos: Path, tmp_path: Path) -> None:
    flat = read_metadata(metadata_file(import_dataset(photos, "flat", tmp_path)))
    folder = nested(photos)
    (folder / "wet" / "Thumbs.db").touch()
    assert read_folder(folder)[0] == "ATTR/OBJ"
    assert read_metadata(metadata_file(import_dataset(folder, "mine", tmp_path))) == flat


def test_nested_folders_name_words(photos: Path, draw: Draw) -> None:
    folder = nested(photos)
    draw(folder / "light_blue" / "teddy bear" / "0.png", 1)
    assert ("light blue", "teddy bear") in {(picture.attr, picture.obj) for picture in read_folder(folder)[1]}


def test_problems_of_nested_folders_are_in_one_message(photos: Path, draw: Draw, refused: Refused) -> None:
    folder = nested(photos)
    draw(folder / "stray.png", 1)
    draw(folder / "wet" / "stray.png", 1)
    draw(folder / "wet" / "dog" / "deep" / "0.png", 1)
    draw(folder / "wet" / "nan" / "0.png", 1)
    said = refused(folder, "nested cannot be imported:")
    for problem in ("stray.png is not in a folder named", "wet/stray.png is not in a folder named",
                    "wet/dog/deep is a folder, expected images", "obj is 'nan', which means"):  # fmt: skip
        assert problem in said


def test_folders_of_splits_are_not_attributes(tmp_path: Path, draw: Draw, refused: Refused) -> None:
    for split in ("train", "val"):
        draw(tmp_path / "photos" / split / "wet_dog" / "0.png", 1)
    refused(tmp_path / "photos", "the folders train, val are named after splits: import a table with a column 'split'")


def pairs_of(photos: Path) -> set[tuple[str, str]]:
    return {(picture.attr, picture.obj) for picture in read_folder(photos)[1]}


def test_a_name_with_both_separators_is_parted_where_its_labels_are_known(photos: Path, draw: Draw) -> None:
    names = ("light blue_dog", "light blue_bird", "very light blue_dog", "dark_blue cat", "wet _mouse")
    for n, name in enumerate(names):
        draw(photos / name / "0.png", 100 + n)
    expected = {("light blue", "dog"), ("light blue", "bird"), ("very light blue", "dog"), ("dark blue", "cat")}
    assert expected | {("wet", "mouse")} < pairs_of(photos)


def test_a_name_whose_parts_are_all_unknown_is_refused_with_both_meanings(
    photos: Path, draw: Draw, refused: Refused
) -> None:
    draw(photos / "light blue_bird" / "0.png", 99)
    said = refused(photos, "the folder 'light blue_bird' does not clearly name an attribute and an object: ")
    assert "'light' and 'blue bird' or 'light blue' and 'bird'? Move it to a folder for each attribute, or" in said


def test_where_spaces_part_the_other_names_they_part_every_name(
    tmp_path: Path, draw: Draw, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, name in enumerate(("wet dog", "green hot_dog", "light_blue dog")):
        draw(tmp_path / "photos" / name / "0.png", n)
    assert pairs_of(tmp_path / "photos") == {("wet", "dog"), ("green", "hot dog"), ("light blue", "dog")}
    assert capsys.readouterr().err == ""
    draw(tmp_path / "photos" / "very light blue_dog" / "0.png", 9)
    refused(tmp_path / "photos", "the folder 'very light blue_dog' does not clearly name an attribute and an object")


def test_names_that_all_have_both_separators_are_parted_at_the_space_with_a_warning(
    tmp_path: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, name in enumerate(("light_blue dog", "dark_blue dog")):
        draw(tmp_path / "photos" / name / "0.png", n)
    assert pairs_of(tmp_path / "photos") == {("light blue", "dog"), ("dark blue", "dog")}
    said = "read thus: 'dark_blue dog' as 'dark blue' and 'dog', 'light_blue dog' as 'light blue' and 'dog'\n"
    assert capsys.readouterr().err.endswith(said)


def test_hidden_folders_with_images_are_skipped_and_named(
    photos: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(photos / ".old_dogs" / "0.png", 1)
    draw(photos / "wet_dog" / ".more" / "deep" / "0.png", 2)
    (photos / ".git").mkdir()
    (photos / ".git" / "config").touch()
    assert len(read_folder(photos)[1]) == 36
    assert capsys.readouterr().err == "skipped hidden folders with images: .old_dogs, wet_dog/.more\n"
