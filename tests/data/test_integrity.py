from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.data.integrity import check_listing
from czslkit.data.layout import images_folder, pairs_file
from czslkit.data.listing import read_listing
from czslkit.errors import DataError

REMEDY = (
    "    remove those pairs from the list, or add a training pair with the word; a dataset whose class has "
    "open_vocabulary = True may have such words"
)
Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def complaint(folder: Path) -> str:
    with pytest.raises(
        DataError, match=f"^{re.escape(str(folder))} has errors in its lists, metadata or images:\n"
    ) as info:
        check_listing(folder, read_listing(folder))
    return str(info.value).partition("\n  ")[2]


def test_a_sound_dataset_passes(pets: Path) -> None:
    check_listing(pets, read_listing(pets))


def test_missing_images_are_named_and_counted(pets: Path) -> None:
    for split in ("train", "val"):
        (images_folder(pets) / "wet_dog" / f"{split}0.jpg").unlink()
    said = complaint(pets)
    assert said == f"2 of 14 images are missing from {pets}/images: wet_dog/train0.jpg, wet_dog/val0.jpg"


def test_of_many_missing_images_ten_are_named(pets: Path) -> None:
    images_folder(pets).rename(pets / "pictures")
    said = complaint(pets)
    assert "14 of 14 images are missing" in said
    assert said.count(".jpg") == 10
    assert said.endswith("and 4 more")


def test_folders_with_spaces_for_underscores_are_pointed_out(pets: Path) -> None:
    for folder in images_folder(pets).iterdir():
        folder.rename(folder.with_name(folder.name.replace("_", " ")))
    assert "There is 'wet dog/train0.jpg': in the folder names, write '_' for ' '" in complaint(pets)


def test_separators_of_windows_are_pointed_out(pets: Path, edit: Edit) -> None:
    edit(lambda entries: [e.update(image=e["image"].replace("/", "\\")) for e in entries] and None)
    said = complaint(pets)
    assert said.startswith(f"14 of 14 images are missing from {pets}/images: wet_dog\\train0.jpg, ")
    assert said.endswith("\n    There is 'wet_dog/train0.jpg': in the metadata, write '/' for '\\'")


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_names_that_cannot_be_printed_are_escaped(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[0].update(image="wet_dog/\udcff\x1b[2J.jpg"))
    assert complaint(pets).endswith(r": 'wet_dog/\udcff\x1b[2J.jpg'")


@pytest.mark.parametrize("name", ["wet dog.jpg", "mokrý pes.jpg", "狗.jpg", "..a..b.jpg"])
def test_names_with_spaces_letters_of_any_script_and_dots_are_names(pets: Path, edit: Edit, name: str) -> None:
    file = images_folder(pets) / "wet_dog" / "train0.jpg"
    file.rename(file.with_name(name))
    edit(lambda entries: entries[0].update(image=f"wet_dog/{name}"))
    check_listing(pets, read_listing(pets))


def test_an_image_whose_pair_is_listed_for_another_split_only_is_named(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[-1].update(attr="dry", obj="dog"))
    said = complaint(pets).splitlines()
    assert said[0] == "1 image of set 'test' with a pair not in test_pairs.txt: dry_cat/test1.jpg (dry dog)"
    assert said[1] == "    the metadata and the lists have different versions: take both from the same download"


def test_an_empty_list_is_named(pets: Path) -> None:
    pairs_file(pets, "val").write_text("\n")
    assert "val_pairs.txt lists no pair" in complaint(pets)


def test_a_split_without_images_is_named(pets: Path, edit: Edit) -> None:
    edit(lambda entries: [e.update(set="NA") for e in entries if e["set"] == "test"] and None)
    assert complaint(pets) == "no image of set 'test' shows a listed pair"


def test_an_image_in_two_splits_is_named(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries.append({**entries[0], "image": "wet_dog/./train0.jpg", "set": "val"}))
    assert complaint(pets) == "1 image is in both set 'train' and set 'val': wet_dog/train0.jpg"


def test_words_that_training_never_shows_are_named(pets: Path) -> None:
    with pairs_file(pets, "test").open("a") as file:
        file.write("old dog\nwet cow\n")
    assert complaint(pets).splitlines() == [
        "1 attributes of test_pairs.txt are in no training pair: old",
        REMEDY,
        "  1 objects of test_pairs.txt are in no training pair: cow",
        REMEDY,
    ]


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "wet_dog/../../secret.jpg", "/etc/secret.jpg", "..\\secret.jpg", "C:\\secret.jpg"]
)
def test_a_path_out_of_the_images_folder_is_named(pets: Path, edit: Edit, path: str) -> None:
    (pets / "secret.jpg").touch()
    edit(lambda entries: entries[0].update(image=path))
    assert complaint(pets) == f"1 image is outside {pets}/images: {path!r}"


def test_all_problems_are_reported_together(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[-1].update(attr="dry", obj="dog"))
    edit(lambda entries: entries[0].update(image="gone.jpg"))
    pairs_file(pets, "val").write_text("wet dog\n")
    said = complaint(pets)
    assert "missing" in said
    assert "of set 'test' with a pair not in test_pairs.txt" not in said, "that pair is now in no list"
    pairs_file(pets, "val").write_text("wet dog\ndry dog\n")
    said = complaint(pets)
    assert "gone.jpg" in said
    assert "of set 'test' with a pair not in test_pairs.txt" in said
