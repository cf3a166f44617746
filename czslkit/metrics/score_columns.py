"""The pairs of an evaluation, and which of them may be predicted.

This package uses three words throughout:

- *pairs*: the table ``[K, 2]`` of attribute and object indices, one row for each pair that has a score.
- *columns*: row numbers of that table, from 0 to ``K - 1``; a chunk of scores has one column for each.
- *candidates*: the pairs that may be predicted. With feasibility thresholds, each threshold has its own candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

Array = Any  # a tensor, an ndarray or nested lists of numbers
Kind = Literal["bool", "integer", "float"]
T = TypeVar("T")

UNUSED = -1  # group of columns that no number depends on
SEEN = 0  # group of seen candidates
SEEN_MASKED = 1  # group of seen pairs that are no candidates; the original evaluator uses them to place its biases
UNSEEN = 2  # first of the groups of unseen candidates, one group per level


def as_tensor(name: str, values: Array, kind: Kind) -> Tensor:
    """Return ``values`` as a tensor on the CPU; it is a copy unless ``values`` is a tensor.

    Args:
        name: name of the values in error messages.
        values: numbers of any shape.
        kind: the expected kind of dtype.

    Raises:
        ValueError: the dtype is of another kind.
    """
    # The copy makes read-only and memory-mapped arrays usable.
    tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, order="C"))
    found = "bool" if tensor.dtype == torch.bool else "float" if tensor.is_floating_point() else "integer"
    if found != kind and tensor.numel():
        raise ValueError(f"{name} must be of {kind} dtype, got {tensor.dtype}")
    return tensor


class ScoreColumns:
    """The pairs of an evaluation and the set of candidates at each feasibility threshold.

    Thresholds are numbered by *level*, from 0 for the lowest. The candidates of a level include those of every higher
    level, so each unseen pair needs only one number: its group, ``UNSEEN`` plus the highest level that it reaches.

    Args:
        pairs: ``[K, 2]`` integer, attribute and object of each column; all different.
        seen: ``[K]`` bool, whether the pair was trained on.
        mask: ``[K]`` bool, which pairs may be predicted; all of them if None.
        feasibility: ``[K]`` float; only the values of unseen pairs are used.
        thresholds: feasibility thresholds, with a set of candidates for each; if None, the pairs of ``mask`` are the
            only set.

    Raises:
        ValueError: the arguments do not describe one set of pairs.
    """

    pairs: Tensor  # [K, 2] long
    seen: Tensor  # [K] bool
    mask: Tensor  # [K] bool
    group: Tensor  # [K] long, UNUSED, SEEN, SEEN_MASKED, or UNSEEN plus a level
    thresholds: Tensor | None  # [T] float32, in the order given
    n_levels: int  # T, or 1 without thresholds

    def __init__(
        self,
        pairs: Array,
        seen: Array,
        mask: Array | None = None,
        feasibility: Array | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.pairs = _pair_table(pairs)
        self._n_objs = int(self.pairs[:, 1].max()) + 1
        self._sorted_keys, self._sorted_columns = self._keys(*self.pairs.unbind(1)).sort()
        if (different := len(self._sorted_keys.unique())) != len(self):
            raise ValueError(f"expected different pairs, only {different} of {len(self)} differ")
        self.seen = self._per_pair("seen", seen, "bool")
        self.mask = torch.ones_like(self.seen) if mask is None else self._per_pair("candidates", mask, "bool")
        if (feasibility is None) != (thresholds is None):
            given, missing = ("feasibility", "thresholds") if thresholds is None else ("thresholds", "feasibility")
            raise ValueError(f"{given} without {missing}: give both or neither")
        self.thresholds = None if thresholds is None else _checked_thresholds(thresholds)
        self.n_levels = 1 if self.thresholds is None else len(self.thresholds)
        reached = self._levels_reached(feasibility)
        unseen_group = (UNSEEN + reached - 1).where(self.mask & (reached > 0), UNUSED)
        self.group = torch.where(self.seen, torch.where(self.mask, SEEN, SEEN_MASKED), unseen_group)
        if not self.at_level(0).any():
            raise ValueError(f"none of the {len(self)} pairs is a candidate")

    def __len__(self) -> int:
        return len(self.pairs)

    def _keys(self, attr: Tensor, obj: Tensor) -> Tensor:
        """Return one number per pair, ``[n]``; different pairs of this table have different numbers."""
        return attr * self._n_objs + obj

    def _per_pair(self, name: str, values: Array, kind: Kind) -> Tensor:
        """Return ``values`` as a tensor ``[K]``, or raise ValueError."""
        tensor = as_tensor(name, values, kind)
        if tensor.shape != (len(self),):
            raise ValueError(f"{name} is {list(tensor.shape)}, expected [{len(self)}], one value for each pair")
        return tensor

    def _levels_reached(self, feasibility: Array | None) -> Tensor:
        """Return how many thresholds each pair reaches, ``[K]``; 1 without thresholds."""
        if self.thresholds is None:
            return torch.ones(len(self), dtype=torch.long)
        values = self._per_pair("feasibility", feasibility, "float").float()
        if (unknown := values.isnan() & ~self.seen).any():
            raise ValueError(f"feasibility of column {int(unknown.nonzero()[0])} is nan")
        return torch.searchsorted(self.thresholds.sort().values, values, right=True)

    def find(self, attr: Tensor, obj: Tensor) -> Tensor:
        """Return the column of each image's true pair, ``[N]``.

        Args:
            attr: ``[N]`` long, true attribute of each image.
            obj: ``[N]`` long, true object.

        Raises:
            ValueError: the pair of an image has no column.
        """
        key = self._keys(attr, obj)
        position = torch.searchsorted(self._sorted_keys, key).clamp(max=len(self) - 1)
        unknown = (self._sorted_keys[position] != key) | (obj < 0) | (obj >= self._n_objs)
        if unknown.any():
            i = int(unknown.nonzero()[0])
            raise ValueError(
                f"image {i} of this chunk shows pair ({int(attr[i])}, {int(obj[i])}), "
                f"which is not among the {len(self)} pairs"
            )
        return self._sorted_columns[position]

    def column_numbers(self, columns: Array | slice | None) -> Tensor:
        """Return the selected columns as numbers, ``[k]`` long; all of them if None.

        Raises:
            ValueError: a number is not a column, or appears twice.
        """
        if columns is None or isinstance(columns, slice):
            return torch.arange(*(columns or slice(None)).indices(len(self)))
        numbers = as_tensor("columns", columns, "integer").long()
        if numbers.ndim != 1:
            raise ValueError(f"columns are {list(numbers.shape)}, expected [k]")
        outside = (numbers < 0) | (numbers >= len(self))
        if outside.any():
            raise ValueError(f"there is no column {int(numbers[outside][0])}, only 0 to {len(self) - 1}")
        ascending = (numbers[1:] > numbers[:-1]).all()
        if not ascending and len(numbers.unique()) != len(numbers):
            raise ValueError(f"expected different columns, only {len(numbers.unique())} of {len(numbers)} differ")
        return numbers

    def at_level(self, level: int) -> Tensor:
        """Return which pairs are candidates at a level, ``[K]`` bool."""
        return (self.group == SEEN) | (self.group >= UNSEEN + level)

    def infeasible_at_level(self, level: int) -> Tensor:
        """Return which unseen pairs of the mask do not reach a level, ``[K]`` bool."""
        return self.mask & ~self.seen & (self.group < UNSEEN + level)

    def seen_factor(self, level: int) -> float:
        """Return the factor, 1 or 2, by which the original evaluator multiplies the scores of seen pairs at a level."""
        return 1.0 if self.thresholds is None or self.thresholds.sort().values[level] > 0 else 2.0

    def in_threshold_order(self, by_level: Sequence[T]) -> tuple[T, ...]:
        """Return one value per threshold, in the order in which the thresholds were given.

        Args:
            by_level: one value per level, from the lowest.
        """
        if self.thresholds is None:
            return tuple(by_level)
        return tuple(by_level[level] for level in self.thresholds.argsort(stable=True).argsort().tolist())

    def counts(self) -> tuple[int, ...]:
        """Return the number of candidates at each threshold, in the order in which the thresholds were given."""
        return self.in_threshold_order([int(self.at_level(level).sum()) for level in range(self.n_levels)])

    def same_as(self, other: ScoreColumns) -> bool:
        """Return whether both have the same pairs, candidates and thresholds."""
        none = torch.empty(0)
        mine, theirs = (
            (c.pairs, c.group, c.mask, none if c.thresholds is None else c.thresholds) for c in (self, other)
        )
        return all(map(torch.equal, mine, theirs))


def _pair_table(pairs: Array) -> Tensor:
    """Return ``pairs`` as a tensor ``[K, 2]`` long, or raise ValueError."""
    table = as_tensor("pairs", pairs, "integer").long()
    if table.ndim != 2 or table.shape[1] != 2 or not len(table):
        raise ValueError(f"pairs are {list(table.shape)}, expected [K, 2]")
    if table.min() < 0:
        raise ValueError(f"pair {table[(table < 0).any(1)][0].tolist()} is negative")
    return table


def _checked_thresholds(thresholds: Sequence[float]) -> Tensor:
    """Return ``thresholds`` as a tensor ``[T]`` float32, or raise ValueError."""
    values = as_tensor("thresholds", thresholds, "float").float()
    if values.ndim != 1 or not len(values) or values.isnan().any():
        raise ValueError(f"thresholds must be one or more numbers, got {thresholds}")
    return values
