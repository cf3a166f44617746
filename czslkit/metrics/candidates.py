"""Which pairs the columns of a score matrix stand for, and which of them may be predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Array = Any  # a tensor, an ndarray or nested lists of numbers
Kind = Literal["bool", "integer", "float"]

UNUSED = -1  # group of columns that nothing depends on
SEEN = 0  # group of seen candidates
SEEN_MASKED = 1  # group of seen pairs that are no candidates: they only set where the original puts its biases
UNSEEN = 2  # first of the groups of unseen candidates, one for each threshold


def as_tensor(name: str, values: Array, kind: Kind) -> Tensor:
    """``values`` on the processor, if they are of that kind; a copy unless they are a tensor.

    Raises:
        ValueError: they are of another kind.
    """
    # The copy lets read-only and memory-mapped arrays in.
    tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, order="C"))
    found = "bool" if tensor.dtype == torch.bool else "float" if tensor.is_floating_point() else "integer"
    if found != kind and tensor.numel():
        raise ValueError(f"{name} must be of {kind} dtype, got {tensor.dtype}")
    return tensor


class Candidates:
    """The columns, each in the group of columns that are candidates at the same thresholds.

    Args:
        pairs: ``[K, 2]`` integer, attribute and object of each column; all different.
        seen: ``[K]`` bool, whether the pair was trained on.
        mask: ``[K]`` bool, what may be predicted; everything if None.
        feasibility: ``[K]`` float, of the unseen pairs.
        thresholds: the sets of candidates asked for; one, of everything in ``mask``, if None.

    Raises:
        ValueError: the arguments do not describe one set of pairs.
    """

    def __init__(
        self,
        pairs: Array,
        seen: Array,
        mask: Array | None = None,
        feasibility: Array | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.pairs = as_tensor("pairs", pairs, "integer").long()  # [K, 2]
        if self.pairs.ndim != 2 or self.pairs.shape[1] != 2 or not len(self.pairs):
            raise ValueError(f"pairs are {list(self.pairs.shape)}, expected [K, 2]")
        if self.pairs.min() < 0:
            raise ValueError(f"pair {self.pairs[(self.pairs < 0).any(1)][0].tolist()} is negative")
        self._width = int(self.pairs[:, 1].max()) + 1
        self._keys, self._order = (self.pairs[:, 0] * self._width + self.pairs[:, 1]).sort()
        if len(self._keys.unique()) != len(self._keys):
            raise ValueError(f"{len(self.pairs)} pairs, of which only {len(self._keys.unique())} differ")
        self.seen = self._per_pair("seen", seen, "bool")  # [K]
        candidate = torch.ones_like(self.seen) if mask is None else self._per_pair("candidates", mask, "bool")
        if (feasibility is None) != (thresholds is None):
            given, missing = ("feasibility", "thresholds") if thresholds is None else ("thresholds", "feasibility")
            raise ValueError(f"{given} without {missing}: give both or neither")

        self.thresholds: Tensor | None = None  # [T] float32, in the order given
        level = torch.ones_like(self.seen, dtype=torch.long)  # [K], how many thresholds a pair reaches
        if thresholds is not None:
            self.thresholds = as_tensor("thresholds", thresholds, "float").float()
            if self.thresholds.ndim != 1 or not len(self.thresholds) or self.thresholds.isnan().any():
                raise ValueError(f"thresholds must be at least one number each, got {thresholds}")
            feasible = self._per_pair("feasibility", feasibility, "float").float()
            if (unknown := feasible.isnan() & ~self.seen).any():
                raise ValueError(f"feasibility of column {int(unknown.nonzero()[0])} is nan")
            level = torch.searchsorted(self.thresholds.sort().values, feasible, right=True)
        self.levels = 1 if self.thresholds is None else len(self.thresholds)
        self._level = level.masked_fill(self.seen | ~candidate, UNUSED)
        unseen_group = torch.where(self._level > 0, UNSEEN + self._level - 1, UNUSED)
        self.group = torch.where(self.seen, torch.where(candidate, SEEN, SEEN_MASKED), unseen_group)  # [K]
        if not ((self.group == SEEN) | (self.group >= UNSEEN)).any():
            raise ValueError(f"none of the {len(self.pairs)} pairs is a candidate")

    def __len__(self) -> int:
        return len(self.pairs)

    def _per_pair(self, name: str, values: Array, kind: Kind) -> Tensor:
        tensor = as_tensor(name, values, kind)
        if tensor.shape != (len(self.pairs),):
            raise ValueError(f"{name} is {list(tensor.shape)}, expected [{len(self.pairs)}] as there are pairs")
        return tensor

    def find(self, attr: Tensor, obj: Tensor) -> Tensor:
        """Column of each image's true pair, ``[N]``.

        Raises:
            ValueError: an image shows a pair that is not among the columns.
        """
        key = attr * self._width + obj
        at = torch.searchsorted(self._keys, key).clamp(max=len(self) - 1)
        unknown = (self._keys[at] != key) | (obj < 0) | (obj >= self._width)
        if unknown.any():
            i = int(unknown.nonzero()[0])
            raise ValueError(
                f"image {i} of these shows pair ({int(attr[i])}, {int(obj[i])}), "
                f"which is not among the {len(self)} pairs"
            )
        return self._order[at]

    def select(self, columns: Array | slice | None) -> Tensor:
        """The columns meant, ``[k]`` long.

        Raises:
            ValueError: there is no such column, or one is named twice.
        """
        if columns is None or isinstance(columns, slice):
            return torch.arange(*(columns or slice(None)).indices(len(self)))
        chosen = as_tensor("columns", columns, "integer").long()
        if chosen.ndim != 1:
            raise ValueError(f"columns are {list(chosen.shape)}, expected [k]")
        outside = (chosen < 0) | (chosen >= len(self))
        if outside.any():
            raise ValueError(f"there is no column {int(chosen[outside][0])}, only 0 to {len(self) - 1}")
        ascending = (chosen[1:] > chosen[:-1]).all()
        if not ascending and len(chosen.unique()) != len(chosen):
            raise ValueError(f"{len(chosen)} columns, of which only {len(chosen.unique())} differ")
        return chosen

    def order(self) -> list[int]:
        """Level of each threshold in the order given: how many others are below it."""
        return [0] if self.thresholds is None else self.thresholds.argsort(stable=True).argsort().tolist()

    def factor(self, level: int) -> float:
        """What the original multiplies the scores of seen pairs by at the threshold of that level: 1 or 2."""
        return 1.0 if self.thresholds is None or self.thresholds.sort().values[level] > 0 else 2.0

    def infeasible(self, level: int) -> Tensor:
        """Unseen columns in the mask that fall short of the threshold of that level, ``[K]`` bool."""
        return (self._level >= 0) & (self._level <= level)

    def same_as(self, other: Candidates) -> bool:
        """Whether both stand for the same columns, candidates and thresholds."""
        none = torch.empty(0)
        mine, theirs = (
            (c.pairs, c.group, c._level, none if c.thresholds is None else c.thresholds) for c in (self, other)
        )
        return all(map(torch.equal, mine, theirs))
