"""Write small replicas of the published datasets, with the same kinds of file names and splits and rendered pictures.

Each replica has 8 attributes and 6 objects. The training split has 24 pairs with 6 images each; validation and test
each have 6 seen and 6 unseen pairs with 4 images each. As in the published datasets, the lists are not sorted, and some
instances do not count: they have no attribute, no set, or a pair that is in no list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from ...errors import ConfigError, DataError, UnknownNameError, did_you_mean
from ...options import user_path
from ...seeds import seed_problems
from .. import demo_world
from ..dataset_folders import canonical
from ..datasets import Counts, SplitCounts
from ..layout import ABSENT, Pair
from ..writing import write_dataset

_TRAIN_PAIRS, _SEEN, _UNSEEN = 24, 6, 6
_IMAGES_PER_PAIR = {"train": 6, "val": 4, "test": 4}
_MIN_PAIRS_PER_LABEL = 3  # training pairs in which each label occurs
MINI_COUNTS = Counts(
    attrs=8,
    objs=6,
    pairs=_TRAIN_PAIRS + 2 * _UNSEEN,
    splits={
        "train": SplitCounts(_TRAIN_PAIRS, 0, _TRAIN_PAIRS * _IMAGES_PER_PAIR["train"]),
        "val": SplitCounts(_SEEN, _UNSEEN, (_SEEN + _UNSEEN) * _IMAGES_PER_PAIR["val"]),
        "test": SplitCounts(_SEEN, _UNSEEN, (_SEEN + _UNSEEN) * _IMAGES_PER_PAIR["test"]),
    },
)
"""Counts of every replica."""
_SKIPPED = 3  # number of skipped instances of each kind
_SIDES = (64, 96)  # smallest and largest side of a picture without its frame, in pixels

T = TypeVar("T")


@dataclass(frozen=True)
class Replica:
    """The labels and file names of a replica. Label n of a replica is drawn like label n of the demo world."""

    attrs: tuple[str, ...]
    objs: tuple[str, ...]
    file_fields: Callable[[str, str, np.random.Generator], dict[str, str]]
    """Returns the metadata fields that name the file of a picture, given its attribute and object."""


def write_mini(name: str, root: str | Path, seed: int = 0) -> Path:
    """Write the replica of a dataset to ``<root>/<name>`` and return this folder.

    Args:
        name: name or alias of a published dataset.
        root: the folder of all datasets.
        seed: random seed of pairs, file names and pictures.

    Raises:
        UnknownNameError: there is no replica of this name.
        ConfigError: ``seed`` is no seed.
        DataError: the folder exists already; nothing is overwritten.
    """
    if canonical(name) not in REPLICAS:
        known = ", ".join(REPLICAS)
        raise UnknownNameError(f"no small replica of {name!r}.{did_you_mean(name, REPLICAS)} Known: {known}.")
    if problems := seed_problems(seed):
        raise ConfigError(problems)
    folder = user_path(root) / name
    replica = REPLICAS[canonical(name)]
    rng = np.random.default_rng([seed, list(REPLICAS).index(canonical(name))])
    pairs, unlisted = _draw_pairs(replica, rng)
    if not write_dataset(folder, pairs, _pictures(replica, _draw_instances(pairs, unlisted, rng), rng)):
        raise DataError(f"{folder} exists already and is not changed")
    return folder


def _draw_pairs(replica: Replica, rng: np.random.Generator) -> tuple[dict[str, list[Pair]], list[Pair]]:
    """Return the pairs of each split, and the pairs that are in no split."""
    order = _permuted(list(product(replica.attrs, replica.objs)), rng)
    while _fewest_pairs_per_label(replica, order[:_TRAIN_PAIRS]) < _MIN_PAIRS_PER_LABEL:
        order = _permuted(order, rng)
    train, rest = order[:_TRAIN_PAIRS], order[_TRAIN_PAIRS:]
    val = train[:_SEEN] + rest[:_UNSEEN]
    test = train[_SEEN : 2 * _SEEN] + rest[_UNSEEN : 2 * _UNSEEN]
    return {"train": train, "val": val, "test": test}, rest[2 * _UNSEEN :]


def _fewest_pairs_per_label(replica: Replica, pairs: list[Pair]) -> int:
    labels = [label for pair in pairs for label in pair]
    return min(labels.count(label) for label in replica.attrs + replica.objs)


def _draw_instances(
    pairs: dict[str, list[Pair]], unlisted: list[Pair], rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """Return the set, attribute and object of every picture, in random order as in the published metadata."""
    found = [(split, *pair) for split in pairs for pair in pairs[split] for _ in range(_IMAGES_PER_PAIR[split])]
    found += [("train", *pair) for pair in unlisted[:_SKIPPED]]
    found += [("test", ABSENT, obj) for _, obj in pairs["test"][:_SKIPPED]]
    found += [(ABSENT, *pair) for pair in pairs["train"][:_SKIPPED]]
    return _permuted(found, rng)


def _permuted(items: list[T], rng: np.random.Generator) -> list[T]:
    return [items[i] for i in rng.permutation(len(items))]


def _pictures(
    replica: Replica, instances: list[tuple[str, str, str]], rng: np.random.Generator
) -> Iterator[tuple[dict[str, str], Image.Image]]:
    """Yield the metadata entry and the picture of every instance."""
    demo_attrs = dict(zip(replica.attrs, demo_world.ATTRS, strict=False))
    demo_objs = dict(zip(replica.objs, demo_world.OBJS, strict=False))
    for split, attr, obj in instances:
        demo_attr = demo_attrs.get(attr, demo_world.ATTRS[0])  # any look is right for an absent attribute
        picture = _resized_with_frame(demo_world.render(demo_attr, demo_objs[obj], rng), rng)
        yield {**replica.file_fields(attr, obj, rng), "attr": attr, "obj": obj, "set": split}, picture


def _resized_with_frame(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a picture in a random size; with probability 1/2, a frame makes it wide or tall.

    A centre crop removes the frame.
    """
    side, margin = (int(n) for n in rng.integers((_SIDES[0], 4), (_SIDES[1] + 1, 13)))
    right, down = ((2 * margin, 0), (0, 2 * margin), (0, 0), (0, 0))[rng.integers(4)]
    canvas = Image.new("RGB", (side + right, side + down), picture.getpixel((0, 0)))
    canvas.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (right // 2, down // 2))
    return canvas


def _mit_states_fields(attr: str, obj: str, rng: np.random.Generator) -> dict[str, str]:
    folder = (
        f"{'adj' if attr == ABSENT else attr}_{obj}"  # published images without an attribute are in folders "adj_..."
    )
    return {"image": f"{folder}/{rng.bytes(16).hex()}.jpg"}


def _ut_zappos_fields(attr: str, obj: str, rng: np.random.Generator) -> dict[str, str]:
    file = f"{rng.integers(7_000_000, 8_200_000)}.{rng.integers(10, 100_000)}.jpg"
    kind, _, subkind = obj.partition(".")
    return {"image": f"{attr}_{obj}/{file}", "_image": f"{kind}/{subkind.replace('.', ' ') or kind}/Maker/{file}"}


def _cgqa_fields(attr: str, obj: str, rng: np.random.Generator) -> dict[str, str]:
    return {"image": f"{rng.integers(1, 2_420_000)}-{rng.integers(0, 40)}-{attr}-{obj}.jpg"}


def _vaw_czsl_fields(attr: str, obj: str, rng: np.random.Generator) -> dict[str, str]:
    return {
        "image": f"{attr}+{obj}/{rng.integers(1, 2_420_000)}.jpg"
    }  # the folders are known, the names of files are not


def _clothing16k_fields(attr: str, obj: str, rng: np.random.Generator) -> dict[str, str]:
    return {"image": f"{attr}_{obj}/{rng.integers(1, 1_000_000):06d}.jpg"}


REPLICAS = {
    "mit-states": Replica(
        attrs=("ancient", "broken", "mossy", "old", "painted", "rusty", "wet", "wrinkled"),
        objs=("bag", "bike", "bottle", "car", "clock", "door"),
        file_fields=_mit_states_fields,
    ),
    "ut-zappos": Replica(
        attrs=("Canvas", "Cotton", "Faux.Fur", "Faux.Leather", "Full.grain.leather", "Hair.Calf", "Nubuck", "Suede"),
        objs=(
            "Boots.Mid-Calf",
            "Sandals",
            "Shoes.Clogs.and.Mules",
            "Shoes.Flats",
            "Shoes.Sneakers.and.Athletic.Shoes",
            "Slippers",
        ),
        file_fields=_ut_zappos_fields,
    ),
    "cgqa": Replica(
        attrs=("black_and_white", "brown", "leafy", "metal", "striped", "wet", "wooden", "woven"),
        objs=("bench", "dry-erase_board", "eiffel_tower", "fence", "teddy_bear", "trash_can"),
        file_fields=_cgqa_fields,
    ),
    "vaw-czsl": Replica(
        attrs=("light blue", "old", "partially cloudy", "shiny", "tall", "wet", "wooden", "worn out"),
        objs=("baseball cap", "bench", "dog", "fire hydrant", "teddy bear", "traffic light"),
        file_fields=_vaw_czsl_fields,
    ),
    "clothing16k": Replica(
        attrs=("black", "blue", "brown", "green", "pink", "red", "silver", "white"),
        objs=("dress", "hoodie", "pants", "shirt", "shoes", "suit"),
        file_fields=_clothing16k_fields,
    ),
}
