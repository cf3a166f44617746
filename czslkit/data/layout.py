"""The folder layout that the field's datasets share: its paths and records. It does not import torch.

::

    <folder>/images/...
    <folder>/compositional-split-natural/{train,val,test}_pairs.txt      "attr obj" on each line, or "attr+obj"
    <folder>/metadata_compositional-split-natural.t7                     torch.save of [{image, attr, obj, set}, ...]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Pair = tuple[str, str]
"""Names of an attribute and an object."""
SPLITS = ("train", "val", "test")
ABSENT = "NA"
"""Value of a missing attribute or set in the metadata."""

IMPORTED_READING = "upright, in 8 bits"
"""How images of an imported dataset are read, in fingerprints and digests; change it if they are read otherwise."""

_SPLIT_FOLDER = "compositional-split-natural"


@dataclass(frozen=True)
class Instance:
    """An image and its labels: one entry of the metadata."""

    image: str  # path below images/, with forward slashes
    attr: str
    obj: str
    set: str  # one of SPLITS, or ABSENT
    original: str = ""  # path in the archive if it differs from image; key _image in the UT-Zappos metadata


@dataclass(frozen=True)
class Listing:
    """The pairs and the images of every split, as a dataset's own files list them."""

    pairs: dict[str, tuple[Pair, ...]]
    """Pairs of each split, in file order."""
    instances: dict[str, tuple[Instance, ...]]
    """Images of each split, in file order. ``Instance.set`` determines the split of an image."""
    skipped: tuple[Instance, ...] = ()
    """Images without attribute or set, and images of a pair that is in no list."""


def images_folder(folder: Path) -> Path:
    return folder / "images"


def pairs_file(folder: Path, split: str) -> Path:
    return folder / _SPLIT_FOLDER / f"{split}_pairs.txt"


def metadata_file(folder: Path) -> Path:
    return folder / f"metadata_{_SPLIT_FOLDER}.t7"


def import_record(folder: Path) -> Path:
    """Return the file that only imported datasets have; its presence decides how their images are read."""
    return folder / "imported.json"
