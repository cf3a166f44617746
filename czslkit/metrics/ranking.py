"""The best few columns of each image, all that a sweep has to remember of a row of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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

    def cut(self, k: int) -> Ranked:
        """The best ``k`` alone."""
        return Ranked(self.score[..., :k], self.column[..., :k])

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
    return best_in_groups(scores, columns, [len(columns)], k)[:, 0]


def best_in_groups(scores: Tensor, columns: Tensor, ends: Sequence[int], k: int) -> Ranked:
    """Rank the columns of a block of scores, those of each group of neighbours by themselves.

    Args:
        scores: ``[N, W]``, finite, of any float dtype.
        columns: ``[W]`` long on the processor, ascending in each group; the number each column goes by.
        ends: where in ``W`` each of ``G`` groups ends; a group may be empty.
        k: how many to keep of each.

    Returns:
        ``[N, G, k]``, on the processor.

    >>> ranked = best_in_groups(torch.tensor([[0.5, 2.0, 2.0, 1.0]]), torch.tensor([3, 4, 9, 5]), [3, 3, 4], k=1)
    >>> ranked.column[..., 0].tolist() == [[4, NO_COLUMN, 5]]
    True
    """
    rest = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
    rest = rest.clone() if k > 1 else rest
    found: dict[int, Tensor] = {}  # [N] places in W, by where in [G * k] they belong
    for group, (begin, end) in enumerate(pairwise([0, *ends])):
        part = rest[:, begin:end]
        for rank in range(min(k, end - begin)):
            at = _first_of_best(part)
            found[group * k + rank] = at + begin if begin else at
            if k > 1:
                part.scatter_(1, at[:, None], -torch.inf)
    ranked = Ranked.empty(len(scores), len(ends) * k)
    if found:
        places = torch.stack(list(found.values()), 1)
        score = scores.gather(1, places).cpu().double()
        ranked[:, list(found)] = Ranked(score, columns[places.cpu()])
    return Ranked(*(part.view(len(scores), len(ends), k) for part in (ranked.score, ranked.column)))


def _first_of_best(scores: Tensor) -> Tensor:
    """Where each row ``[W]`` of finite scores has its highest; the first such place, unlike torch.topk."""
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.numpy().argmax(1))  # many times faster than torch's
    return scores.max(1).indices
