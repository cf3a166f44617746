"""Assign images to splits by a rule that gives the same splits on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from ...errors import DataError
from ..layout import Pair

MIN_IMAGES = 3
"""Smallest number of images with which a seen pair is in all three splits."""
_HELD_OUT = 10  # one in ten images of a seen pair goes to val, and one in ten to test


def assign_splits(images: Mapping[Pair, Sequence[str]], *, seed: int = 0, unseen: float = 0.2) -> dict[str, str]:
    """Return the split of each image: ``train``, ``val`` or ``test``.

    Pairs and images are ordered by the SHA-256 digests of the seed and the name. This random order does not depend on
    any library or on other names.

    1. If ``unseen`` is 0, all pairs are seen. Otherwise, take the pairs in this order. A pair becomes unseen if its
       attribute and its object are each in another pair that is still seen. Stop when the share ``unseen`` of all
       pairs is unseen, rounded, and at least two pairs. The unseen pairs go to test and val in turn, with all their
       images.
    2. All other pairs are seen. If a seen pair has ``n >= 3`` images, the first ``max(1, n // 10)`` of them go to test,
       equally many of the next to val, and the rest to train. If it has fewer images, all go to train.

    Args:
        images: names of the images of each pair; each name occurs once.
        seed: random seed of the order, and therefore of the splits.
        unseen: share of the pairs that become unseen, 0 or more and below 1.

    Raises:
        DataError: there are too few pairs or images; the message says what is needed.

    >>> names = {(a, o): [f"{a}_{o}/{n}" for n in range(4)] for a in ("wet", "dry", "old") for o in ("dog", "cat")}
    >>> splits = assign_splits(names)
    >>> [splits[f"old_cat/{n}"] for n in range(4)], [splits[f"old_dog/{n}"] for n in range(4)]
    (['test', 'test', 'test', 'test'], ['train', 'val', 'test', 'train'])
    """
    unseen_pairs = _unseen_pairs(images, seed, unseen)
    seen_pairs = [pair for pair in images if pair not in unseen_pairs]
    if all(len(images[pair]) < MIN_IMAGES for pair in seen_pairs):
        raise DataError(
            f"none of the {len(seen_pairs)} seen pairs has {MIN_IMAGES} images, one for each split: "
            "add images, or try another seed"
        )
    splits = {image: split for pair, split in unseen_pairs.items() for image in images[pair]}
    for pair in seen_pairs:
        ordered = sorted(images[pair], key=lambda name: _digest_of_names(seed, name))
        splits |= zip(ordered, _splits_of_seen_pair(len(ordered)), strict=True)
    return splits


def _unseen_pairs(images: Mapping[Pair, Sequence[str]], seed: int, share: float) -> dict[Pair, str]:
    """Return the pairs that are not in the training split, with the split of each."""
    attrs, objs = Counter(attr for attr, _ in images), Counter(obj for _, obj in images)
    needed = max(2, round(share * len(images))) if share else 0
    found: list[Pair] = []
    for attr, obj in sorted(images, key=lambda pair: _digest_of_names(seed, *pair)):
        if len(found) < needed and attrs[attr] > 1 and objs[obj] > 1:
            found.append((attr, obj))
            attrs[attr] -= 1
            objs[obj] -= 1
    if len(found) < needed:
        advice = "Ask for a smaller share" if len(found) > 1 else "Add pictures of more attributes with more objects"
        raise DataError(
            f"{len(found)} of {len(images)} pairs ({len(attrs)} attributes, {len(objs)} objects) can be unseen, but "
            f"{needed} are needed: the attribute and the object of an unseen pair must each be in a seen pair. {advice}"
        )
    return {pair: ("test", "val")[n % 2] for n, pair in enumerate(found)}


def _splits_of_seen_pair(images: int) -> list[str]:
    """Return the split of each image of a seen pair, in the order of the digests."""
    held_out = max(1, images // _HELD_OUT) if images >= MIN_IMAGES else 0
    return ["test"] * held_out + ["val"] * held_out + ["train"] * (images - 2 * held_out)


def _digest_of_names(seed: int, *names: str) -> bytes:
    """Return the SHA-256 digest by which pairs and images are ordered."""
    return hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
