"""Which images of a dataset that has no splits are trained on: a rule that gives the same answer everywhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ...errors import DataError
from ..layout import Pair

#: Images that a seen pair needs to be in all three splits.
FEWEST = 3
_HELD = 10  # one image in so many of a seen pair goes to val, and as many to test


def assign_splits(images: Mapping[Pair, Sequence[str]], *, seed: int = 0, unseen: float = 0.2) -> dict[str, str]:
    """The split of each image.

    Chance is the order of SHA-256 digests of the seed and a name, which depends on no library and on no other name.

    1. Pairs are gone through in that order. One becomes unseen if its attribute and its object each remain in a pair
       that is not, until ``unseen`` of all pairs are, rounded, at least two. They go to test and to val in turn, with
       all their images.
    2. All other pairs are seen. Of one with ``n >= 3`` images, taken in that order, ``max(1, n // 10)`` go to test, as
       many to val and the rest to train; with fewer, all go to train.

    Args:
        images: names of the images of each pair, every name once.
        seed: another one divides otherwise.
        unseen: share of the pairs, between 0 and 1.

    Raises:
        DataError: too few pairs or images; says what is needed.

    >>> names = {(a, o): [f"{a}_{o}/{n}" for n in range(4)] for a in ("wet", "dry", "old") for o in ("dog", "cat")}
    >>> phases = assign_splits(names)
    >>> [phases[f"old_cat/{n}"] for n in range(4)], [phases[f"old_dog/{n}"] for n in range(4)]
    (['test', 'test', 'test', 'test'], ['train', 'val', 'test', 'train'])
    """
    held_out = _unseen_pairs(images, seed, unseen)
    seen = [pair for pair in images if pair not in held_out]
    if all(len(images[pair]) < FEWEST for pair in seen):
        raise DataError(
            f"none of the {len(seen)} pairs to be seen in training has {FEWEST} images, one for each split: "
            "add images, or try another seed"
        )
    phases = {image: phase for pair, phase in held_out.items() for image in images[pair]}
    for pair in seen:
        phases |= zip(_shuffled(images[pair], seed), _phases(len(images[pair])), strict=True)
    return phases


def _unseen_pairs(images: Mapping[Pair, Sequence[str]], seed: int, share: float) -> dict[Pair, str]:
    """The pairs that are not trained on, with the split of each."""
    attrs, objs = Counter(attr for attr, _ in images), Counter(obj for _, obj in images)
    asked = max(2, round(share * len(images)))
    found: list[Pair] = []
    for attr, obj in sorted(images, key=lambda pair: _draw(seed, *pair)):
        if len(found) < asked and attrs[attr] > 1 and objs[obj] > 1:
            found.append((attr, obj))
            attrs[attr] -= 1
            objs[obj] -= 1
    if len(found) < asked:
        raise DataError(
            f"{len(found)} of {len(images)} pairs ({len(attrs)} attributes, {len(objs)} objects) can be unseen, "
            f"{asked} are needed: of an unseen pair, the attribute and the object must each be in a pair that is seen. "
            + ("Ask for a smaller share" if len(found) > 1 else "Show more attributes with more objects")
        )
    return {pair: ("test", "val")[n % 2] for n, pair in enumerate(found)}


def _phases(images: int) -> Iterator[str]:
    held = max(1, images // _HELD) if images >= FEWEST else 0
    yield from ["test"] * held + ["val"] * held + ["train"] * (images - 2 * held)


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: _draw(seed, name))


def _draw(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
