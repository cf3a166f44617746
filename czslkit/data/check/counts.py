"""Count what a dataset holds, in the way that the published numbers are counted, and compare two counts."""

from __future__ import annotations

from collections.abc import Iterator

from ..datasets import Counts, SplitCounts
from ..integrity import Finding
from ..layout import SPLITS, Listing


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
    """Return every count by the name under which it is reported, such as ``test unseen pairs``."""
    whole = {"attributes": counts.attrs, "objects": counts.objs, "attributes x objects": counts.attrs * counts.objs}
    named = {**whole, "pairs": counts.pairs}
    for split, each in counts.splits.items():
        pairs = {f"{split} pairs": each.seen}
        if split != "train":
            pairs = {f"{split} seen pairs": each.seen, f"{split} unseen pairs": each.unseen}
        named |= {**pairs, f"{split} images": each.images}
    return named


def count_differences(found: Counts, expected: Counts) -> Iterator[Finding]:
    """Yield an error that names every count that is not as expected, if there is one."""
    found_by_name, expected_by_name = named_counts(found), named_counts(expected)
    different = tuple(
        f"{name} {found_by_name[name]:,} instead of {count:,}"
        for name, count in expected_by_name.items()
        if found_by_name[name] != count
    )
    if different:
        what = f"{len(different)} of {len(expected_by_name)} counts are not as expected"
        remedy = (
            "published numbers belong to other splits than these: take the lists and the metadata from their source"
        )
        yield Finding("error", "counts", what, different, remedy)
