from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.data.layout import Instance, Listing, images_folder, metadata_file, pairs_file
from czslkit.data.listing import read_listing
from czslkit.errors import DataError

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def images_of(listing: Listing, split: str) -> list[str]:
    return [instance.image for instance in listing.instances[split]]


def test_what_was_written_is_read(pets: Path) -> None:
    listing = read_listing(pets)
    assert listing.pairs["train"] == (("wet", "dog"), ("dry", "cat"))
    assert listing.instances["val"][0] == Instance("wet_dog/val0.jpg", "wet", "dog", "val")
    assert {split: len(found) for split, found in listing.instances.items()} == {"train": 6, "val": 4, "test": 4}
    assert listing.skipped == ()
    assert all((images_folder(pets) / image).is_file() for image in images_of(listing, "test"))


def test_the_set_decides_the_split_even_where_the_pair_is_in_all_lists(pets: Path, edit: Edit) -> None:
    for split in ("val", "test"):
        pairs_file(pets, split).write_text("wet dog\ndry cat\n")
    edit(lambda entries: [entry.update(attr="wet", obj="dog") for entry in entries] and None)
    listing = read_listing(pets)
    for split, count in (("train", 6), ("val", 4), ("test", 4)):
        images = images_of(listing, split)
        assert len(images) == count
        assert all(f"/{split}" in image for image in images)


@pytest.mark.parametrize("change", [{"attr": "NA"}, {"set": "NA"}, {"attr": "old"}, {"obj": "NA"}])
def test_an_instance_without_attribute_or_set_or_of_an_unlisted_pair_is_skipped(
    pets: Path, edit: Edit, change: dict[str, str]
) -> None:
    edit(lambda entries: entries[0].update(change))
    listing = read_listing(pets)
    assert images_of(listing, "train")[0] == "wet_dog/train1.jpg"
    assert [each.image for each in listing.skipped] == ["wet_dog/train0.jpg"]


def test_absent_files_are_all_named(pets: Path) -> None:
    pairs_file(pets, "val").unlink()
    metadata_file(pets).unlink()
    with pytest.raises(DataError, match=r"no .*/val_pairs.txt, metadata_compositional-split-natural.t7"):
        read_listing(pets)


def test_problems_of_several_files_are_reported_together(pets: Path) -> None:
    pairs_file(pets, "val").write_text("wet\n")
    metadata_file(pets).write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"val_pairs.txt:1: 'wet'") as info:
        read_listing(pets)
    assert "metadata_compositional-split-natural.t7 is refused" in str(info.value)


def test_nan_as_a_word_is_a_pair_that_no_list_holds(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[0].update(attr="nan"))
    assert [each.attr for each in read_listing(pets).skipped] == ["nan"]
