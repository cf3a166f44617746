"""Small replicas of the published datasets: their files, names and splits in miniature, with rendered pictures.

Each has 8 attributes and 6 objects; 24 training pairs of 6 images, and for validation and test each 6 seen and 6
unseen pairs of 4 images. As in the real ones, the lists are in no order, and some instances do not count: without an
attribute, of no set, or of a pair that no list holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from ...errors import DataError, UnknownNameError, did_you_mean
from .. import demo_world
from ..datasets import Counts, SplitCounts
from ..folders import canonical
from ..layout import ABSENT, Pair
from ..writing import write_dataset

_TRAIN_PAIRS, _SEEN, _UNSEEN = 24, 6, 6
_PER_PAIR = {"train": 6, "val": 4, "test": 4}
_MIN_PARTNERS = 3
COUNTS = Counts(
    attrs=8,
    objs=6,
    pairs=_TRAIN_PAIRS + 2 * _UNSEEN,
    splits={
        "train": SplitCounts(_TRAIN_PAIRS, 0, _TRAIN_PAIRS * _PER_PAIR["train"]),
        "val": SplitCounts(_SEEN, _UNSEEN, (_SEEN + _UNSEEN) * _PER_PAIR["val"]),
        "test": SplitCounts(_SEEN, _UNSEEN, (_SEEN + _UNSEEN) * _PER_PAIR["test"]),
    },
)
"""Of every replica."""
_IGNORED = 3  # instances of each kind that does not count
_SIDES = (64, 96)

T = TypeVar("T")
Names = Callable[[str, str, np.random.Generator], dict[str, str]]


@dataclass(frozen=True)
class Words:
    """What a replica is made of; the n-th word looks like the n-th of the demo world."""

    attrs: tuple[str, ...]
    objs: tuple[str, ...]
    files: Names
    """How the metadata names the file of a picture of a pair."""


def write_mini(name: str, root: str | Path, seed: int = 0) -> Path:
    """Write the replica of a dataset to ``<root>/<name>``.

    Returns:
        The folder.

    Raises:
        UnknownNameError: no replica of that name.
        DataError: the folder is there already; nothing is overwritten.
    """
    if canonical(name) not in REPLICAS:
        known = ", ".join(REPLICAS)
        raise UnknownNameError(f"no small replica of {name!r}.{did_you_mean(name, REPLICAS)} Known: {known}.")
    folder = Path(root).expanduser() / name
    words = REPLICAS[canonical(name)]
    rng = np.random.default_rng([seed, list(REPLICAS).index(canonical(name))])
    pairs, unlisted = _drawn_pairs(words, rng)
    if not write_dataset(folder, pairs, _pictures(words, _instances(pairs, unlisted, rng), rng)):
        raise DataError(f"{folder} is there already, and is left as it is")
    return folder


def _drawn_pairs(words: Words, rng: np.random.Generator) -> tuple[dict[str, list[Pair]], list[Pair]]:
    """The lists of the three phases, and the pairs that are in none."""
    order = _shuffled(list(product(words.attrs, words.objs)), rng)
    while _fewest_partners(words, order[:_TRAIN_PAIRS]) < _MIN_PARTNERS:
        order = _shuffled(order, rng)
    train, rest = order[:_TRAIN_PAIRS], order[_TRAIN_PAIRS:]
    val = train[:_SEEN] + rest[:_UNSEEN]
    test = train[_SEEN : 2 * _SEEN] + rest[_UNSEEN : 2 * _UNSEEN]
    return {"train": train, "val": val, "test": test}, rest[2 * _UNSEEN :]


def _fewest_partners(words: Words, pairs: list[Pair]) -> int:
    used = [word for pair in pairs for word in pair]
    return min(used.count(word) for word in words.attrs + words.objs)


def _instances(
    pairs: dict[str, list[Pair]], unlisted: list[Pair], rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """Set, attribute and object of every picture, shuffled as in the real metadata."""
    found = [(phase, *pair) for phase in pairs for pair in pairs[phase] for _ in range(_PER_PAIR[phase])]
    found += [("train", *pair) for pair in unlisted[:_IGNORED]]
    found += [("test", ABSENT, obj) for _, obj in pairs["test"][:_IGNORED]]
    found += [(ABSENT, *pair) for pair in pairs["train"][:_IGNORED]]
    return _shuffled(found, rng)


def _shuffled(items: list[T], rng: np.random.Generator) -> list[T]:
    return [items[i] for i in rng.permutation(len(items))]


def _pictures(
    words: Words, instances: list[tuple[str, str, str]], rng: np.random.Generator
) -> Iterator[tuple[dict[str, str], Image.Image]]:
    looks = dict(zip(words.attrs + words.objs, demo_world.ATTRS[: len(words.attrs)] + demo_world.OBJS, strict=False))
    for phase, attr, obj in instances:
        state = looks.get(attr, demo_world.ATTRS[0])  # one without an attribute looks like anything
        picture = _framed(demo_world.render(state, looks[obj], rng), rng)
        yield {**words.files(attr, obj, rng), "attr": attr, "obj": obj, "set": phase}, picture


def _framed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A picture in another size, every other one in a frame that makes it wide or tall; a centre crop takes it off."""
    side, margin = (int(n) for n in rng.integers((_SIDES[0], 4), (_SIDES[1] + 1, 13)))
    right, down = ((2 * margin, 0), (0, 2 * margin), (0, 0), (0, 0))[rng.integers(4)]
    canvas = Image.new("RGB", (side + right, side + down), picture.getpixel((0, 0)))
    canvas.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (right // 2, down // 2))
    return canvas


def _mit_states_file(attr: str, obj: str, rng: np.random.Generator) -> dict[str, str]:
    folder = f"{'adj' if attr == ABSENT else attr}_{obj}"  # the real ones without an attribute lie under "adj"
    return {"image": f"{folder}/{rng.bytes(16).hex()}.jpg"}


def _ut_zappos_file(attr: str, obj: str, rng: np.random.Generator) -> dict[str, str]:
    file = f"{rng.integers(7_000_000, 8_200_000)}.{rng.integers(10, 100_000)}.jpg"
    kind, _, subkind = obj.partition(".")
    return {"image": f"{attr}_{obj}/{file}", "_image": f"{kind}/{subkind.replace('.', ' ') or kind}/Maker/{file}"}


def _cgqa_file(attr: str, obj: str, rng: np.random.Generator) -> dict[str, str]:
    return {"image": f"{rng.integers(1, 2_420_000)}-{rng.integers(0, 40)}-{attr}-{obj}.jpg"}


REPLICAS = {
    "mit-states": Words(
        attrs=("ancient", "broken", "mossy", "old", "painted", "rusty", "wet", "wrinkled"),
        objs=("bag", "bike", "bottle", "car", "clock", "door"),
        files=_mit_states_file,
    ),
    "ut-zappos": Words(
        attrs=("Canvas", "Cotton", "Faux.Fur", "Faux.Leather", "Full.grain.leather", "Hair.Calf", "Nubuck", "Suede"),
        objs=(
            "Boots.Mid-Calf",
            "Sandals",
            "Shoes.Clogs.and.Mules",
            "Shoes.Flats",
            "Shoes.Sneakers.and.Athletic.Shoes",
            "Slippers",
        ),
        files=_ut_zappos_file,
    ),
    "cgqa": Words(
        attrs=("black_and_white", "brown", "leafy", "metal", "striped", "wet", "wooden", "woven"),
        objs=("bench", "dry-erase_board", "eiffel_tower", "fence", "teddy_bear", "trash_can"),
        files=_cgqa_file,
    ),
}

NAMES = tuple(REPLICAS)
