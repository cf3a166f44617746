"""Which scores have come, of a matrix that comes in pieces."""

from __future__ import annotations

import torch
from torch import Tensor

from .candidates import Array, as_tensor


class Arrivals:
    """A record of the (images, columns) rectangles received: a bit per image for each set of columns come together.

    Args:
        columns: how many columns there are.
    """

    def __init__(self, columns: int) -> None:
        self.images = 0  # one more than the highest image number
        self.numbered: bool | None = None  # whether the caller numbers the images; None until the first ones
        self._set = torch.zeros(columns, dtype=torch.long)  # [K], which set each column is in: at first the same
        self._sizes = torch.tensor([columns])  # [S], columns of each set
        self._come = torch.zeros(1, 1, dtype=torch.bool)  # [S, N], each with room to grow: images of each set

    def number(self, images: Array | None, columns: Tensor, n: int) -> Tensor:
        """Numbers ``[n]`` of the next images of these ``columns`` ``[k]``.

        Raises:
            ValueError: numbers that are no numbers, or numbered images after others that were not.
        """
        if n and self.numbered not in (None, images is not None):
            found, asked = ("numbered", "without numbers") if self.numbered else ("without numbers", "numbered")
            raise ValueError(f"these images come {asked}, earlier ones {found}: give images= always or never")
        if images is None:
            starts = self._come[self._sets(columns)].sum(1).unique()
            if len(starts) > 1:
                raise ValueError(
                    f"some of these columns have had {int(starts[0])} images and some {int(starts[-1])}: "
                    "give images= to say which ones these are"
                )
            start = int(starts[0]) if len(starts) else 0
            return torch.arange(start, start + n)
        numbers = as_tensor("images", images, "integer").long()
        if numbers.shape != (n,):
            raise ValueError(f"images is {list(numbers.shape)}, expected [{n}] as there are labels")
        if n and numbers.min() < 0:
            raise ValueError(f"image numbers start at 0, got {int(numbers.min())}")
        if len(numbers.unique()) != n:
            raise ValueError(f"{n} images, of which only {len(numbers.unique())} differ")
        return numbers

    def record(self, images: Tensor, columns: Tensor, numbered: bool) -> None:
        """Note that the scores of ``images`` ``[n]`` for ``columns`` ``[k]`` have come.

        Raises:
            ValueError: some have come before.
        """
        self._check_new(images, columns)
        self.numbered = numbered
        self.images = max(self.images, int(images.max()) + 1)
        sets = self._split(columns)
        self._come = _roomy(self._come, len(self._sizes), self.images)
        self._come[sets[:, None], images] = True

    def _sets(self, columns: Tensor) -> Tensor:
        """The sets that hold any of ``columns`` ``[k]``, ascending."""
        sets = self._set[columns]
        return sets[:1] if len(sets) and (sets == sets[0]).all() else sets.unique()

    def _split(self, columns: Tensor) -> Tensor:
        """The sets that hold ``columns`` ``[k]`` and no others; one that holds more loses these to a new one."""
        of, sets = self._set[columns], self._sets(columns)
        counts = of.bincount(minlength=len(self._sizes))[sets]
        apart = counts < self._sizes[sets]
        if not apart.any():
            return sets
        first, old = len(self._sizes), sets[apart]
        renamed = torch.arange(first).index_put((old,), torch.arange(first, first + len(old)))
        self._sizes[old] -= counts[apart]
        self._sizes = torch.cat([self._sizes, counts[apart]])
        self._come = _roomy(self._come, len(self._sizes), self.images)
        self._come[first : first + len(old)] = self._come[old]
        self._set[columns] = renamed[of]
        return renamed[sets]

    def _check_new(self, images: Tensor, columns: Tensor) -> None:
        sets = self._sets(columns)
        again = self._holds(sets, images)  # [S, n]
        if again.any():
            i = int(again.any(0).nonzero()[0])
            column = int(columns[torch.isin(self._set[columns], sets[again[:, i]])].min())
            raise ValueError(f"image {int(images[i])} has a score for column {column} already")

    def check_complete(self, images: Tensor, needed: Tensor) -> None:
        """Raise unless each of ``images`` ``[n]`` has all the ``needed`` ``[K]`` bool columns.

        Raises:
            ValueError: naming how many images lack which columns.
        """
        counts = self._set[needed].bincount(minlength=len(self._sizes))  # [S]
        missing = torch.zeros(len(images), dtype=torch.long) + needed.sum()
        for part in counts.nonzero():
            missing -= self._holds(part, images)[0] * counts[part]
        if not missing.any():
            return
        first = images[missing > 0][:1]
        has = self._holds(torch.arange(len(self._sizes)), first)[:, 0]  # [S]
        columns = (needed & ~has[self._set]).nonzero()[:, 0].tolist()
        shown = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
        raise ValueError(
            f"{int((missing > 0).sum())} of {len(images)} images lack scores: "
            f"image {int(first)} lacks {len(columns)} of {int(needed.sum())} columns ({shown})"
        )

    def absorb(self, other: Arrivals, offset: int) -> None:
        """Note all that ``other`` has noted, its images numbered from ``offset`` on.

        Raises:
            ValueError: some of it has come here before.
        """
        sets = other._set.argsort(stable=True).split(other._sizes.tolist())
        chunks = [(come.nonzero()[:, 0] + offset, columns) for columns, come in zip(sets, other._come, strict=False)]
        chunks = [(images, columns) for images, columns in chunks if len(images)]
        for images, columns in chunks:
            self._check_new(images, columns)
        for images, columns in chunks:
            self.record(images, columns, bool(other.numbered))

    def _holds(self, sets: Tensor, images: Tensor) -> Tensor:
        """Whether each of ``images`` ``[n]`` has come for each of ``sets`` ``[S]``, ``[S, n]`` bool."""
        width = self._come.shape[1]
        return self._come[sets[:, None], images.clamp(max=width - 1)] & (images < width)


def _roomy(bits: Tensor, rows: int, width: int) -> Tensor:
    """``bits`` ``[S, N]`` in at least so many rows and columns; twice as many where it has too few."""
    grown = [have if have >= asked else 2 * asked for have, asked in zip(bits.shape, (rows, width), strict=True)]
    if grown == list(bits.shape):
        return bits
    room = bits.new_zeros(grown)
    room[: bits.shape[0], : bits.shape[1]] = bits
    return room
