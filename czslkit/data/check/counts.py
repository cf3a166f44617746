"""Count the labels, pairs and images of a dataset as the published numbers do, and compare two counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..datasets import Counts, SplitCounts
from ..integrity import Finding
from ..layout import SPLITS, Listing

if TYPE_CHECKING:  # counting lists needs no torch
    from ..splits import Splits


def count_listing(listing: Listing) -> Counts:
    """Count the attributes, objects and pairs of the pair lists, and the images of each split."""
    pairs = {pair for split in SPLITS for pair in listing.pairs[split]}
    trained = set(listing.pairs["train"])
    splits = {}
    for split in SPLITS:
        seen = sum(pair in trained for pair in listing.pairs[split])
        splits[split] = SplitCounts(seen, len(listing.pairs[split]) - seen, len(listing.instances[split]))
    attrs, objs = ({pair[column] for pair in pairs} for column in (0, 1))
    return Counts(attrs=len(attrs), objs=len(objs), pairs=len(pairs), splits=splits)


def named_counts(counts: Counts) -> dict[str, int]:
    """Return every known count by its name in reports, such as ``test unseen pairs``."""
    whole = {"attributes": counts.attrs, "objects": counts.objs, "attributes x objects": counts.attrs * counts.objs}
    named = {**whole, **({} if counts.pairs is None else {"pairs": counts.pairs})}
    for split, split_counts in counts.splits.items():
        pairs = {f"{split} pairs": split_counts.seen}
        if split != "train":
            pairs = {f"{split} seen pairs": split_counts.seen, f"{split} unseen pairs": split_counts.unseen}
        named |= {**pairs, f"{split} images": split_counts.images}
    return named


def count_differences(found: Counts, expected: Counts) -> Iterator[Finding]:
    """Yield one error that lists all unexpected counts, or nothing if there are none."""
    if different := unexpected_counts(found, expected):
        what = f"{len(different)} of {len(named_counts(expected))} counts are not as expected"
        remedy = "published numbers were measured on other splits: take the lists and the metadata from their source"
        yield Finding("error", "counts", what, different, remedy)


def unexpected_counts(found: Counts, expected: Counts) -> tuple[str, ...]:
    """Return each count that is not as expected, such as ``test images 48 instead of 12,995``."""
    found_by_name = named_counts(found)
    return tuple(
        f"{name} {found_by_name[name]:,} instead of {count:,}"
        for name, count in named_counts(expected).items()
        if found_by_name[name] != count
    )


def count_splits(data: Splits) -> Counts:
    """Count what :func:`count_listing` counts, from a dataset that is loaded."""
    trained = set(map(tuple, data.train.pairs.tolist()))
    splits = {}
    for split in (data.train, data.val, data.test):
        pairs = set(map(tuple, split.pairs.tolist()))
        splits[split.name] = SplitCounts(len(pairs & trained), len(pairs - trained), len(split))
    return Counts(attrs=len(data.space.attrs), objs=len(data.space.objs), pairs=len(data.space.pairs), splits=splits)
