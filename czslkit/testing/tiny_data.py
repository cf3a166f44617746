"""A label space and a tiny dataset with unseen pairs and pairs that no list names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..data.layout import SPLITS, Pair
from ..data.writing import LabelledImage, write_dataset
from ..types import PairSpace

NAME = "tiny"  # name of the dataset and of its folder
ATTRS, OBJS = ("dotted", "Faux.Fur", "wet"), ("heart", "ring", "star", "dry-erase_board")
#: Attribute and object index of the pairs of each split. Pairs (2, 1) and (2, 2) are in no list.
PAIRS = {
    "train": ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 3), (2, 3)),
    "val": ((0, 0), (1, 1), (1, 2)),
    "test": ((0, 1), (2, 3), (2, 0), (0, 3)),
}
IMAGES = {"train": 3, "val": 2, "test": 2}  # images of each pair of a split


def demo_space() -> PairSpace:
    """Return a label space of three attributes, four objects and all twelve pairs, of which nine are seen."""
    pairs = torch.cartesian_prod(torch.arange(len(ATTRS)), torch.arange(len(OBJS)))
    return PairSpace(ATTRS, OBJS, pairs, pairs.sum(1) < 4)


def write_tiny(root: str | Path) -> Path:
    """Write the dataset ``tiny`` into the folder ``root`` and return its folder: 21 + 6 + 8 images of 40 x 36 pixels.

    The colour of an image depends on its attribute, and the place of a square in it on its object.

    >>> import tempfile, czslkit
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folder = write_tiny(root)
    ...     data = czslkit.load_dataset("tiny", root)
    >>> len(data.train), len(data.space.pairs), len(data.space.open().pairs)
    (21, 10, 12)
    """
    folder = Path(root) / NAME
    names: dict[str, list[Pair]] = {split: [(ATTRS[a], OBJS[o]) for a, o in PAIRS[split]] for split in SPLITS}
    write_dataset(folder, names, _images())
    return folder


def _images() -> Iterator[LabelledImage]:
    """Yield every image with its metadata entry."""
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for attr, obj in PAIRS[split]:
            for number in range(IMAGES[split]):
                pixels = rng.integers(0, 120, (36, 40, 3), dtype=np.uint8)
                pixels[..., attr] += 60
                pixels[9 * obj : 9 * obj + 9, 10 * obj : 10 * obj + 10] += 70
                file = f"{ATTRS[attr]}_{OBJS[obj]}/{split}{number}.png"
                entry = {"image": file, "attr": ATTRS[attr], "obj": OBJS[obj], "set": split}
                yield entry, Image.fromarray(pixels)
