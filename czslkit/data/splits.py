"""A loaded dataset: its label space and its three splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..training_hooks import TrainingData
from ..types import PairSpace
from .closed_world import closed_world_candidates
from .fingerprint import files_digest
from .images import is_imported
from .layout import IMPORTED_READING
from .left_out import LeftOut, SetAside


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split with their labels, in the order of the metadata."""

    name: str  # train, val or test
    paths: tuple[Path, ...] = field(repr=False)  # N image files
    attr: Tensor  # [N] long, index of each image's attribute in the label space
    obj: Tensor  # [N] long, index of each image's object in the label space
    pairs: Tensor  # [p, 2] long, the pairs listed for this split, in file order
    extra: Mapping[str, Tensor] = field(default_factory=dict, repr=False)  # other tensors by name, [N, ...] each

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    @cached_property
    def digest(self) -> str:
        """A digest of the paths, sizes, times and order of the image files, and of their reading; 16 hex digits."""
        reading = IMPORTED_READING if self.paths and is_imported(self.paths[0]) else ""
        return files_digest(self.paths, reading)[:16]


@dataclass(frozen=True, eq=False)
class Splits:
    """A dataset as ``load_dataset`` returns it."""

    name: str
    root: Path
    """The dataset's folder."""
    space: PairSpace
    """Label space. Its pairs are the sorted union of the three lists; the pairs of the training list are seen."""
    train: Split
    val: Split
    test: Split
    fingerprint: str
    """Digest of the dataset's files; see ``fingerprint.fingerprint``."""
    skipped: int
    """Number of images without attribute or set, or with a pair that is in no list."""
    left_out: tuple[LeftOut, ...] = ()
    """The images among ``skipped`` that have attribute and set, for each split that has such images."""
    set_aside: SetAside | None = None
    """The pictures that could not be read when the dataset was imported, None if all could."""

    def training_data(self) -> TrainingData:
        """Return the training split as the hooks of a method receive it."""
        return TrainingData(self.name, self.root, self.space, self.train.paths, self.train.attr, self.train.obj)

    def undefined_auc(self, split: Literal["val", "test"]) -> str:
        """Return why the AUC of a split is undefined, such as ``"no val image shows an unseen pair"``.

        The text is empty if the split has images of seen and of unseen pairs.
        """
        images: Split = getattr(self, split)
        shown = images.attr * len(self.space.objs) + images.obj
        seen = torch.isin(shown, self.space.flat()[self.space.seen])
        kinds = {"a seen": seen, "an unseen": ~seen}
        missing = [kind for kind, found in kinds.items() if not found.any()]
        return f"no {split} image shows {' or '.join(missing)} pair" if missing else ""

    def candidates(self, split: str) -> Tensor:
        """Return the mask of the closed-world candidates of a split, ``[P]`` bool; see ``closed_world_candidates``.

        Args:
            split: ``"val"`` or ``"test"``.

        Raises:
            ValueError: ``split`` is neither ``"val"`` nor ``"test"``.
        """
        if split not in ("val", "test"):
            raise ValueError(f"candidates of split {split!r} were requested, expected 'val' or 'test'")
        return closed_world_candidates(self.space, self.val.pairs if split == "val" else self.test.pairs)
