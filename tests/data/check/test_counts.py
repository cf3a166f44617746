from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from czslkit.data.check.counts import count_listing, count_splits, named_counts, unexpected_counts
from czslkit.data.check.verification import verify
from czslkit.data.datasets import DATASETS, SplitCounts
from czslkit.data.listing import read_listing
from czslkit.data.loading import load_dataset
from czslkit.data.make.mini import write_mini
from czslkit.data.published import BENCHMARKS

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def test_the_published_counts_are_those_of_the_papers() -> None:
    published = {  # attrs, objs, attrs x objs, pairs, train pairs and images, seen + unseen pairs and images twice
        "mit-states": (115, 245, 28175, 1962, 1262, 30338, 300, 300, 10420, 400, 400, 12995),
        "ut-zappos": (16, 12, 192, 116, 83, 22998, 15, 15, 3214, 18, 18, 2914),
        "cgqa": (413, 674, 278362, 7555, 5592, 26920, 1252, 1040, 7280, 888, 923, 5098),
    }
    counts = {name: DATASETS[name].counts for name in BENCHMARKS}
    assert {name: tuple(named_counts(each).values()) for name, each in counts.items() if each} == published


def test_the_counts_of_clothing16k_are_those_of_its_table() -> None:
    counts = DATASETS["clothing16k"].counts
    assert counts is not None
    assert tuple(named_counts(counts).values()) == (9, 8, 72, 18, 7242, 10, 10, 5515, 9, 8, 3413)
    assert sum(split.images for split in counts.splits.values()) == 16170  # the images of the apparel dataset


def test_a_count_that_is_not_published_is_not_compared(pets: Path) -> None:
    counts = count_listing(read_listing(pets))
    assert unexpected_counts(counts, replace(counts, pairs=None)) == ()
    expected = replace(counts, pairs=None, objs=3)
    assert [line.split()[0] for line in unexpected_counts(counts, expected)] == ["objects", "attributes"]
    lines = verify("pets", pets.parent, expected=expected).to_text().splitlines()
    assert next(line for line in lines if line.startswith("pairs ")).split() == ["pairs", "4", "-"]


def test_counts_are_of_the_lists_and_of_the_images_that_count(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[0].update(attr="NA"))
    assert named_counts(count_listing(read_listing(pets))) == {
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


def test_counts_that_are_not_as_expected_are_an_error(pets: Path) -> None:
    counts = count_listing(read_listing(pets))
    expected = replace(counts, objs=3, splits={**counts.splits, "val": SplitCounts(1, 2, 4)})
    finding = verify("pets", pets.parent, expected=expected).findings[0]
    assert (finding.severity, finding.what) == ("error", "3 of 12 counts are not as expected")
    assert finding.where == (
        "objects 2 instead of 3",
        "attributes x objects 4 instead of 6",
        "val unseen pairs 1 instead of 2",
    )


def test_a_loaded_dataset_counts_as_its_lists(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries[0].update(attr="NA"))
    loaded = count_splits(load_dataset("pets", pets.parent))
    assert named_counts(loaded) == named_counts(count_listing(read_listing(pets)))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_replica_has_other_counts_than_the_published_dataset(name: str, tmp_path: Path) -> None:
    write_mini(name, tmp_path)
    published = DATASETS[name].counts
    assert published
    found = count_splits(load_dataset(name, tmp_path))
    assert f"train images 144 instead of {published.splits['train'].images:,}" in unexpected_counts(found, published)
    assert unexpected_counts(published, published) == ()
