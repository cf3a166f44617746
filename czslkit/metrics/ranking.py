"""The best few columns of each image, the only part of a row of scores that a sweep keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

NO_COLUMN = torch.iinfo(torch.int64).max  # fills a ranking that has fewer than k columns; loses every tie


@dataclass(frozen=True)
class Ranked:
    """The best ``k`` columns of each image, best first. Of two columns with equal scores, the lower one is better."""

    score: Tensor  # [..., k] float64, or of the dtype of scores on another device; -inf after the last column
    column: Tensor  # [..., k] long; NO_COLUMN after the last column

    @staticmethod
    def empty(*shape: int, like: Tensor | None = None) -> Ranked:
        """Return rankings without any column; the last number of ``shape`` is ``k``.

        Args:
            like: a tensor with the device and the dtype of the scores; None for float64 on the CPU.
        """
        device = None if like is None else like.device
        score = torch.full(shape, -torch.inf, dtype=torch.float64 if like is None else like.dtype, device=device)
        return Ranked(score, torch.full(shape, NO_COLUMN, device=device))

    def __getitem__(self, index: Any) -> Ranked:
        return Ranked(self.score[index], self.column[index])

    def __setitem__(self, index: Any, value: Ranked) -> None:
        self.score[index], self.column[index] = value.score, value.column

    def expand(self, n: int) -> Ranked:
        """Return the ranking of one image, ``[1, k]``, repeated for ``n`` images."""
        return Ranked(self.score.expand(n, -1), self.column.expand(n, -1))

    def first(self, k: int) -> Ranked:
        """Return the best ``k`` columns only."""
        return Ranked(self.score[..., :k], self.column[..., :k])

    def append(self, other: Ranked) -> Ranked:
        """Return the rankings of these images followed by the images of ``other``."""
        return Ranked(torch.cat([self.score, other.score]), torch.cat([self.column, other.column]))

    def received(self) -> Ranked:
        """Return the same rankings on the CPU, with scores as float64."""
        return Ranked(self.score.cpu().double(), self.column.cpu())

    def merge(self, other: Ranked) -> Ranked:
        """Return the best ``k`` columns of two rankings that have no column in common.

        >>> a = Ranked(torch.tensor([[2.0]]), torch.tensor([[7]]))
        >>> b = Ranked(torch.tensor([[2.0]]), torch.tensor([[4]]))
        >>> a.merge(b).column.tolist()
        [[4]]
        """
        k = self.score.shape[-1]
        if k == 1:  # gives the same as the two sorts below, many times faster
            ahead = (self.score > other.score) | ((self.score == other.score) & (self.column < other.column))
            score = torch.where(ahead, self.score, other.score)
            return Ranked(score, torch.where(ahead, self.column, other.column))
        column, order = torch.cat([self.column, other.column], -1).sort(dim=-1, stable=True)
        score = torch.cat([self.score, other.score], -1).gather(-1, order)
        score, order = score.sort(dim=-1, descending=True, stable=True)
        return Ranked(score[..., :k], column.gather(-1, order)[..., :k])

    def where(self, mask: Tensor, other: Ranked) -> Ranked:
        """Return these rankings where ``mask`` ``[...]`` is true, and the rankings of ``other`` elsewhere."""
        mask = mask[..., None]
        return Ranked(self.score.where(mask, other.score), self.column.where(mask, other.column))


def best_columns(scores: Tensor, columns: Tensor, k: int) -> Ranked:
    """Return the best ``k`` columns of each image.

    Args:
        scores: ``[N, W]``, finite, of any float dtype.
        columns: ``[W]`` long, ascending; the column number of each score.
        k: number of columns to keep.

    Returns:
        ``[N, k]``, on the CPU.

    >>> best_columns(torch.tensor([[0.5, 2.0, 2.0]]), torch.tensor([3, 4, 9]), k=2).column.tolist()
    [[4, 9]]
    """
    return best_in_groups(scores, columns, [len(columns)], k)[:, 0].received()


def best_in_groups(scores: Tensor, columns: Tensor, group_ends: Sequence[int], k: int) -> Ranked:
    """Return the best ``k`` columns of each image within each group of columns.

    Args:
        scores: ``[N, W]``, finite, of any float dtype; the columns of a group are neighbours.
        columns: ``[W]`` long on the same device, ascending in each group; the column number of each score.
        group_ends: ``[G]``, position in ``W`` at which each group ends; a group may be empty.
        k: number of columns to keep in each group.

    Returns:
        ``[N, G, k]``, on the device of the scores and of their dtype.

    >>> ranked = best_in_groups(torch.tensor([[0.5, 2.0, 2.0, 1.0]]), torch.tensor([3, 4, 9, 5]), [3, 3, 4], k=1)
    >>> ranked.column[..., 0].tolist() == [[4, NO_COLUMN, 5]]
    True
    """
    remaining = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
    remaining = remaining.clone() if k > 1 else remaining
    positions: dict[int, Tensor] = {}  # slot in [G * k] -> [N] position in W
    for group, (begin, end) in enumerate(pairwise([0, *group_ends])):
        in_group = remaining[:, begin:end]
        for rank in range(min(k, end - begin)):
            best = _first_highest(in_group)
            positions[group * k + rank] = best + begin if begin else best
            if k > 1:
                in_group.scatter_(1, best[:, None], -torch.inf)
    ranked = Ranked.empty(len(scores), len(group_ends) * k, like=remaining)
    if positions:
        found = torch.stack(list(positions.values()), 1)
        kept = Ranked(scores.gather(1, found).to(remaining.dtype), columns[found])
        start = 0
        for slots in _runs(list(positions)):  # slices, since a device would have to be waited for an index
            ranked[:, slots] = kept[:, start : start + slots.stop - slots.start]
            start += slots.stop - slots.start
    return Ranked(*(values.view(len(scores), len(group_ends), k) for values in (ranked.score, ranked.column)))


def _runs(numbers: Sequence[int]) -> list[slice]:
    """Return ascending numbers as slices of consecutive numbers.

    >>> _runs([0, 1, 4])
    [slice(0, 2, None), slice(4, 5, None)]
    """
    starts = [i for i, n in enumerate(numbers) if not i or n != numbers[i - 1] + 1]
    return [slice(numbers[i], numbers[j - 1] + 1) for i, j in pairwise([*starts, len(numbers)])]


def _first_highest(scores: Tensor) -> Tensor:
    """Return the first position of the highest score in each row ``[N, W]``; torch.topk may return another position."""
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.numpy().argmax(1))  # many times faster than torch's
    return scores.max(1).indices
