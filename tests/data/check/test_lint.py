from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.data.check.lint import lint
from czslkit.data.integrity import Finding
from czslkit.data.layout import pairs_file
from czslkit.data.listing import read_listing

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def found(folder: Path) -> dict[str, Finding]:
    return {finding.kind: finding for finding in lint(read_listing(folder))}


def test_a_correct_dataset_has_no_findings(pets: Path) -> None:
    assert found(pets) == {}


def test_an_image_listed_twice_for_a_split_is_named(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries.append(dict(entries[0])))
    assert str(found(pets)["repeated"]).splitlines() == [
        "1 image is listed more than once for train: wet_dog/train0.jpg (2 times)",
        "    an image counts as often as it is listed",
    ]


def test_listed_pairs_without_image_are_named(pets: Path, edit: Edit) -> None:
    edit(lambda entries: [e.update(set="NA") for e in entries if e["image"].startswith("wet_dog/val")] and None)
    finding = found(pets)["pair-without-image"]
    assert finding.what == "1 of 2 pairs of val_pairs.txt have no image"
    assert finding.where == ("wet dog",)


@pytest.mark.parametrize(("pairs", "kind"), [("wet dog\n", "unseen"), ("dry dog\n", "seen")])
def test_a_split_without_seen_or_unseen_pairs_is_named(pets: Path, pairs: str, kind: str) -> None:
    pairs_file(pets, "val").write_text(pairs)
    assert found(pets)["one-sided"].what == f"val_pairs.txt lists no {kind} pair"


@pytest.mark.parametrize(
    ("word", "kind", "said"),
    [
        ("hot  dog", "space-in-name", "1 object names are empty or have stray spaces: 'hot  dog'"),
        (" dog", "space-in-name", "1 object names are empty or have stray spaces: ' dog'"),
        ("", "space-in-name", "1 object names are empty or have stray spaces: ''"),
        ("NaN", "missing-label", "1 object names look like missing labels: 'NaN'"),
        ("hot/dog", "odd-name", "1 object names have unusual characters: hot/dog"),
        ("hot,dog", "odd-name", "1 object names have unusual characters: hot,dog"),
        ("_dog", "odd-name", "1 object names have unusual characters: _dog"),
        ("e\u0301clair", "odd-name", "1 object names have unusual characters: e\u0301clair"),
        ("dog\x1b", "odd-name", r"1 object names have unusual characters: 'dog\x1b'"),
        ("Dog", "look-alike", "1 object names have several spellings: 'Dog' = 'dog'"),
        ("d_o-g", "look-alike", "1 object names have several spellings: 'd_o-g' = 'dog'"),
    ],
)
def test_labels_that_may_be_mistakes_are_named(pets: Path, edit: Edit, word: str, kind: str, said: str) -> None:
    edit(lambda entries: entries.append(entries[0] | {"obj": word}))
    assert str(found(pets)[kind]).startswith(said)


@pytest.mark.parametrize("word", ["Shoes.Clogs.and.Mules", "dry-erase_board", "éclair", "狗", "3d", "dog's", "कुत्ता"])
def test_labels_of_the_published_datasets_are_plain(pets: Path, edit: Edit, word: str) -> None:
    edit(lambda entries: entries.append(entries[0] | {"obj": word}))
    assert found(pets).keys() == {"skipped"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attr": "NA"}, "1 instances have no attribute and do not count: wet_dog/train0.jpg"),
        ({"set": "NA"}, "1 instances have no set and do not count: wet_dog/train0.jpg"),
        ({"attr": "old"}, "1 instances show a pair that is in no list and do not count: wet_dog/train0.jpg (old dog)"),
    ],
)
def test_instances_that_do_not_count_are_noted_with_the_reason(
    pets: Path, edit: Edit, change: dict[str, str], said: str
) -> None:
    edit(lambda entries: entries[0].update(change))
    finding = found(pets)["skipped"]
    assert str(finding) == said
    assert finding.severity == "note"
