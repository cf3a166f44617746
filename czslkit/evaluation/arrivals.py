"""Which scores have come, of a matrix that comes in pieces."""

from __future__ import annotations

import torch
from torch import Tensor

from .candidates import Array, as_tensor


class Arrivals:
    """A record of the (images, columns) rectangles received, a bit per image for each set of columns.

    Args:
        columns: how many columns there are.
    """

    def __init__(self, columns: int) -> None:
        self.images = 0  # one more than the highest image number
        self.numbered: bool | None = None  # whether the caller numbers the images; None until the first ones
        self._chunks: list[tuple[Tensor, Tensor]] = []  # columns [K] bool and images [N] bool, of growing length
        self._next = torch.zeros(columns, dtype=torch.long)  # [K], images so far, where they are not numbered

    def number(self, images: Array | None, columns: Tensor, n: int) -> Tensor:
        """Numbers ``[n]`` of the next images of these ``columns`` ``[k]``.

        Raises:
            ValueError: numbers that are no numbers, or numbered images after others that were not.
        """
        if n and self.numbered not in (None, images is not None):
            found, asked = ("numbered", "without numbers") if self.numbered else ("without numbers", "numbered")
            raise ValueError(f"these images come {asked}, earlier ones {found}: give images= always or never")
        if images is None:
            starts = self._next[columns].unique()
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
        """Note that the scores of ``images`` ``[n]`` for ``columns`` ``[K]`` bool have come.

        Raises:
            ValueError: some have come before.
        """
        self._check_new(images, columns)
        self.numbered = numbered
        self.images = max(self.images, int(images.max()) + 1)
        self._next[columns] += len(images)
        for i, (have, which) in enumerate(self._chunks):
            if torch.equal(have, columns):
                if len(which) < self.images:
                    which = torch.cat([which, which.new_zeros(2 * self.images - len(which))])
                    self._chunks[i] = (have, which)
                which[images] = True
                return
        which = torch.zeros(self.images, dtype=torch.bool)
        which[images] = True
        self._chunks.append((columns, which))

    def _check_new(self, images: Tensor, columns: Tensor) -> None:
        for have, which in self._chunks:
            again = images[self._holds(which, images)]
            if len(again) and (have & columns).any():
                column = int((have & columns).nonzero()[0])
                raise ValueError(f"image {int(again[0])} has a score for column {column} already")

    def check_complete(self, images: Tensor, needed: Tensor) -> None:
        """Raise unless each of ``images`` ``[n]`` has all the ``needed`` ``[K]`` bool columns.

        Raises:
            ValueError: naming how many images lack which columns.
        """
        missing = torch.zeros(len(images), dtype=torch.long) + needed.sum()
        for have, which in self._chunks:
            missing -= self._holds(which, images) * (have & needed).sum()
        if not missing.any():
            return
        first = images[missing > 0][:1]
        lacks = needed.clone()
        for have, which in self._chunks:
            lacks &= ~(have & self._holds(which, first))
        columns = lacks.nonzero()[:, 0].tolist()
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
        chunks = [(which.nonzero()[:, 0] + offset, columns) for columns, which in other._chunks]
        for images, columns in chunks:
            self._check_new(images, columns)
        for images, columns in chunks:
            self.record(images, columns, bool(other.numbered))

    @staticmethod
    def _holds(which: Tensor, images: Tensor) -> Tensor:
        inside = images < len(which)
        return which[images.clamp(max=len(which) - 1)] & inside
