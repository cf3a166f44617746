from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from czslkit.data.fingerprint import fingerprint, fingerprint_parts, image_sizes
from czslkit.data.layout import images_folder, metadata_file, pairs_file
from czslkit.data.loading import load_dataset
from czslkit.errors import DataError


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_the_parts_are_the_lists_the_metadata_and_the_images(pets: Path) -> None:
    parts = fingerprint_parts(pets)
    metadata = "metadata_compositional-split-natural.t7"
    assert set(parts) == {"train_pairs.txt", "val_pairs.txt", "test_pairs.txt", metadata, "images"}
    assert parts["images"].startswith("14 files, ")


def test_a_changed_list_changes_its_part_alone(pets: Path) -> None:
    before, whole = fingerprint_parts(pets), fingerprint(pets)
    pairs_file(pets, "test").write_text("dry cat\nwet cat\n")
    assert changed(before, fingerprint_parts(pets)) == {"test_pairs.txt"}
    assert fingerprint(pets) != whole


def test_changed_metadata_changes_its_part_alone(pets: Path) -> None:
    before = fingerprint_parts(pets)
    metadata_file(pets).write_bytes(metadata_file(pets).read_bytes() + b"\0")
    assert changed(before, fingerprint_parts(pets)) == {metadata_file(pets).name}


@pytest.mark.parametrize("change", ["grown", "gone", "renamed", "added"])
def test_an_image_that_differs_changes_the_part_of_the_images_alone(pets: Path, change: str) -> None:
    before, whole = fingerprint_parts(pets), fingerprint(pets)
    image = images_folder(pets) / "wet_dog" / "train0.jpg"
    if change == "grown":
        image.write_bytes(image.read_bytes() + b"\0")
    elif change == "gone":
        image.unlink()
    elif change == "renamed":
        image.rename(image.with_name("other.jpg"))
    else:
        shutil.copy(image, image.with_name("other.jpg"))
    assert changed(before, fingerprint_parts(pets)) == {"images"}
    assert fingerprint(pets) != whole


def test_a_copy_elsewhere_has_the_same_fingerprint(pets: Path) -> None:
    copy = shutil.copytree(pets, pets.with_name("copy"))
    assert fingerprint(copy) == fingerprint(pets)


def test_hidden_files_and_links_to_nothing_do_not_count(pets: Path) -> None:
    before = fingerprint(pets)
    (images_folder(pets) / ".DS_Store").touch()
    (images_folder(pets) / ".thumbs").mkdir()
    (images_folder(pets) / ".thumbs" / "a.jpg").touch()
    (images_folder(pets) / "gone.jpg").symlink_to(pets / "nowhere.jpg")
    assert fingerprint(pets) == before


def test_images_behind_a_link_count(pets: Path) -> None:
    before = fingerprint(pets)
    images_folder(pets).rename(pets.with_name("elsewhere"))
    images_folder(pets).symlink_to(pets.with_name("elsewhere"))
    assert fingerprint(pets) == before


def test_absent_metadata_is_an_error(pets: Path) -> None:
    metadata_file(pets).unlink()
    with pytest.raises(DataError, match=r"no metadata_compositional-split-natural.t7"):
        fingerprint(pets)


def test_it_needs_no_torch_and_agrees_with_the_loaded_dataset(pets: Path) -> None:
    program = (
        "import sys, czslkit.data.make.mini\n"
        "from czslkit.data.dataset_folders import ensure_folder\n"
        "from czslkit.data.fingerprint import fingerprint\n"
        f"print(fingerprint(ensure_folder('pets', {str(pets.parent)!r})))\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    assert done.stdout.strip() == load_dataset("pets", pets.parent).fingerprint


def test_links_that_lead_back_are_followed_once(pets: Path) -> None:
    before = image_sizes(pets / "images")
    for name in ("a", "b"):
        (pets / "images" / name).symlink_to(pets / "images")
    assert image_sizes(pets / "images") == before
