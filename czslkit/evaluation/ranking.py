"""The best few columns of each image, all that a sweep has to remember of a row of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NO_COLUMN = torch.iinfo(torch.int64).max  # fills a ranking of fewer than k columns; loses every tie


@dataclass(frozen=True)
class Ranked:
    """The best ``k`` columns, best first. Between equal scores the lower column is the better, always."""

    score: Tensor  # [..., k] float64; -inf where there are fewer than k columns
    column: Tensor  # [..., k] long; NO_COLUMN where there are fewer than k columns

    @staticmethod
    def empty(*shape: int) -> Ranked:
        """Rankings of no column at all, ``shape`` ending in ``k``."""
        return Ranked(torch.full(shape, -torch.inf, dtype=torch.float64), torch.full(shape, NO_COLUMN))

    def __getitem__(self, index: Any) -> Ranked:
        return Ranked(self.score[index], self.column[index])

    def __setitem__(self, index: Any, value: Ranked) -> None:
        self.score[index], self.column[index] = value.score, value.column

    def expand(self, n: int) -> Ranked:
        """The ranking of one image, ``[1, k]``, for ``n`` images."""
        return Ranked(self.score.expand(n, -1), self.column.expand(n, -1))

    def append(self, other: Ranked) -> Ranked:
        """The rankings of these images and then of the others."""
        return Ranked(torch.cat([self.score, other.score]), torch.cat([self.column, other.column]))

    def merge(self, other: Ranked) -> Ranked:
        """The best ``k`` of two rankings of different columns.

        >>> a = Ranked(torch.tensor([[2.0]]), torch.tensor([[7]]))
        >>> b = Ranked(torch.tensor([[2.0]]), torch.tensor([[4]]))
        >>> a.merge(b).column.tolist()
        [[4]]
        """
        k = self.score.shape[-1]
        if k == 1:  # what two sorts would give, many times faster
            ahead = (self.score > other.score) | ((self.score == other.score) & (self.column < other.column))
            score = torch.where(ahead, self.score, other.score)
            return Ranked(score, torch.where(ahead, self.column, other.column))
        column, order = torch.cat([self.column, other.column], -1).sort(dim=-1, stable=True)
        score = torch.cat([self.score, other.score], -1).gather(-1, order)
        score, order = score.sort(dim=-1, descending=True, stable=True)
        return Ranked(score[..., :k], column.gather(-1, order)[..., :k])

    def where(self, mask: Tensor, other: Ranked) -> Ranked:
        """These rankings where ``mask`` ``[...]`` holds, the ``other`` ones elsewhere."""
        mask = mask[..., None]
        return Ranked(self.score.where(mask, other.score), self.column.where(mask, other.column))


def best_columns(scores: Tensor, columns: Tensor, k: int) -> Ranked:
    """Rank the columns of a block of scores.

    Args:
        scores: ``[N, W]``, finite, of any float dtype.
        columns: ``[W]`` long on the processor, ascending; the number each column goes by.
        k: how many to keep.

    Returns:
        ``[N, k]``, on the processor.

    >>> best_columns(torch.tensor([[0.5, 2.0, 2.0]]), torch.tensor([3, 4, 9]), k=2).column.tolist()
    [[4, 9]]
    """
    found = Ranked.empty(len(scores), k)
    rest = scores.clone() if k > 1 else scores
    for rank in range(min(k, len(columns))):
        score, at = rest.max(dim=1)  # the first of equal ones, which torch.topk does not promise
        found[:, rank] = Ranked(score.cpu().double(), columns.index_select(0, at.cpu()))
        if k > 1:
            rest.scatter_(1, at[:, None], -torch.inf)
    return found
