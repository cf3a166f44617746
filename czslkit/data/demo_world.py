"""The demo world: small rendered images of shapes (objects) with surface finishes (states), and their splits.

Every image has a random generator that depends only on the split, the pair and the number of the image. So the demo
world needs no files, and an image does not depend on the images that were rendered before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from .demo_drawing import check_name, draw_scene, paint
from .layout import SPLITS, Pair

ATTRS: tuple[str, ...] = (
    "bubbly",
    "cracked",
    "dotted",
    "furry",
    "plaid",
    "rusty",
    "sandy",
    "scratched",
    "striped",
    "wavy",
    "wet",
    "woven",
)
OBJS: tuple[str, ...] = ("arrow", "bottle", "cross", "crown", "fish", "heart", "house", "moon", "ring", "star")
PER_PAIR: dict[str, int] = {"train": 40, "val": 15, "test": 20}
"""Number of images of each pair, by split."""

_TRAIN_PAIRS = 66
_SEEN = {"val": 18, "test": 20}
_UNSEEN = {"val": 18, "test": 20}
_MIN_PARTNERS = 4


def split_pairs(seed: int = 0) -> dict[str, tuple[Pair, ...]]:
    """Return the pairs of each split, sorted. 16 of the 120 combinations are in no split.

    The combinations are shuffled until every state and every object is in at least four of the first 66, which are the
    training pairs. The next 18 are the unseen pairs of validation, the following 20 the unseen pairs of test. The seen
    pairs of validation and test are the first 18 and the next 20 of the shuffled training pairs.

    >>> {split: len(pairs) for split, pairs in split_pairs().items()}
    {'train': 66, 'val': 36, 'test': 40}
    """
    products = list(itertools.product(ATTRS, OBJS))
    rng = np.random.default_rng([seed, len(products)])
    order = [products[i] for i in rng.permutation(len(products))]
    while _fewest_partners(order[:_TRAIN_PAIRS]) < _MIN_PARTNERS:
        order = [products[i] for i in rng.permutation(len(products))]
    train, unseen = order[:_TRAIN_PAIRS], order[_TRAIN_PAIRS:]
    val = train[: _SEEN["val"]] + unseen[: _UNSEEN["val"]]
    test = train[_SEEN["val"] :][: _SEEN["test"]] + unseen[_UNSEEN["val"] :][: _UNSEEN["test"]]
    return {"train": tuple(sorted(train)), "val": tuple(sorted(val)), "test": tuple(sorted(test))}


def instances(seed: int = 0) -> Iterator[tuple[str, str, str, int]]:
    """Yield every image of the dataset as ``(split, attr, obj, index)``, the arguments of ``render_instance``."""
    for split, pairs in split_pairs(seed).items():
        for attr, obj in pairs:
            for index in range(PER_PAIR[split]):
                yield split, attr, obj, index


def render_instance(split: str, attr: str, obj: str, index: int, seed: int = 0) -> Image.Image:
    """Return the image of one entry of ``instances(seed)``. The same arguments give the same image.

    Raises:
        ValueError: the split, the state or the object is unknown.
    """
    check_name("split", split, SPLITS)
    check_name("state", attr, ATTRS)
    check_name("object", obj, OBJS)
    rng = np.random.default_rng([seed, SPLITS.index(split), ATTRS.index(attr), OBJS.index(obj), index])
    return render(attr, obj, rng)


def render(state: str, obj: str, rng: np.random.Generator) -> Image.Image:
    """Return a new random image of a pair, 64 x 64 RGB.

    Raises:
        ValueError: the state or the object is unknown.
    """
    return paint(state, obj, draw_scene(rng), rng)


def _fewest_partners(pairs: list[Pair]) -> int:
    """Return the number of ``pairs`` that contain the rarest state or object."""
    words = [word for pair in pairs for word in pair]
    return min(words.count(word) for word in ATTRS + OBJS)
