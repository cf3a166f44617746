"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..types import PairSpace
from .fingerprint import files_digest


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in the order of the metadata."""

    name: str  # train, val or test
    paths: tuple[Path, ...] = field(repr=False)
    attr: Tensor  # [N] long, index into the attributes of the space
    obj: Tensor  # [N] long
    pairs: Tensor  # [p, 2] long, the pairs listed for this split, in file order

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digest(self) -> str:
        """Changes with the paths, sizes, times and order of the files; 16 hex digits."""
        return files_digest(self.paths)[:16]


@dataclass(frozen=True, eq=False)
class Splits:
    """A dataset."""

    name: str
    root: Path
    """The dataset's own folder."""
    space: PairSpace
    """Pairs are the sorted union of the three lists; seen are those listed for training."""
    train: Split
    val: Split
    test: Split
    fingerprint: str
    """Changes when the files change; as ``fingerprint.fingerprint`` of the folder."""
    skipped: int
    """Instances of the metadata without attribute or set, or of a pair that no list holds."""

    def candidates(self, phase: str) -> Tensor:
        """Which pairs can be an answer in the closed world: those of training and of ``phase``, ``[P]`` bool.

        Raises:
            ValueError: ``phase`` is neither ``"val"`` nor ``"test"``.
        """
        if phase not in ("val", "test"):
            raise ValueError(f"candidates are those of 'val' or 'test', not of {phase!r}")
        asked = self.val.pairs if phase == "val" else self.test.pairs
        return self.space.seen | torch.isin(self.space.flat(), asked[:, 0] * len(self.space.objs) + asked[:, 1])
