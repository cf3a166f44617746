"""A record of the scores that have been received, for a score matrix that is given in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from .score_columns import Array, as_tensor


class Coverage:
    """The (image, column) scores that have been received: one bit per image and set of columns.

    Columns that have always been given together form a *set*. At first, all columns are one set; a chunk with only some
    columns of a set splits it in two.

    Args:
        n_columns: number of columns.
    """

    def __init__(self, n_columns: int) -> None:
        self.n_images = 0  # one more than the highest image number
        self.numbered: bool | None = None  # whether the caller numbers the images; None before the first images
        self._set_of_column = torch.zeros(n_columns, dtype=torch.long)  # [K]
        self._set_sizes = torch.tensor([n_columns])  # [S], number of columns in each set
        self._received = torch.zeros(1, 1, dtype=torch.bool)  # [S, N] or larger in both axes, to grow into

    def image_numbers(self, images: Array | None, columns: Tensor, n: int) -> Tensor:
        """Return the numbers ``[n]`` of the images in a new chunk.

        Args:
            images: numbers given by the caller; if None, the numbers continue after the images that the columns have.
            columns: ``[k]``, columns of the chunk.
            n: number of images in the chunk.

        Raises:
            ValueError: the numbers are not ``n`` different whole numbers from 0, or only some images are numbered.
        """
        if n and self.numbered not in (None, images is not None):
            found, asked = ("numbered", "without numbers") if self.numbered else ("without numbers", "numbered")
            raise ValueError(f"these images are {asked}, earlier images {found}: give images= always or never")
        if images is None:
            starts = self._received[self._sets_of(columns)].sum(1).unique()
            if len(starts) > 1:
                raise ValueError(
                    f"some of these columns have scores of {int(starts[0])} images and some of {int(starts[-1])}: "
                    "give images= with the numbers of the images"
                )
            start = int(starts[0]) if len(starts) else 0
            return torch.arange(start, start + n)
        numbers = as_tensor("images", images, "integer").long()
        if numbers.shape != (n,):
            raise ValueError(f"images is {list(numbers.shape)}, expected [{n}], one number for each label")
        if n and numbers.min() < 0:
            raise ValueError(f"image numbers start at 0, got {int(numbers.min())}")
        if len(numbers.unique()) != n:
            raise ValueError(f"expected different images, only {len(numbers.unique())} of {n} differ")
        return numbers

    def add(self, images: Tensor, columns: Tensor, *, numbered: bool) -> None:
        """Record that the scores of ``images`` ``[n]`` for ``columns`` ``[k]`` have been received.

        Raises:
            ValueError: a score has been received before.
        """
        self._check_new(images, columns)
        self.numbered = numbered
        self.n_images = max(self.n_images, int(images.max()) + 1)
        sets = self._split_sets(columns)
        self._reserve()
        self._received[sets[:, None], images] = True

    def merge(self, other: Coverage, offset: int) -> None:
        """Record all scores that ``other`` has received.

        Args:
            other: the coverage of the same columns in another process.
            offset: a number that is added to every image number of ``other``.

        Raises:
            ValueError: a score has been received before; nothing is recorded then.
        """
        columns_of_sets = other._set_of_column.argsort(stable=True).split(other._set_sizes.tolist())
        chunks = [
            (received.nonzero()[:, 0] + offset, columns)
            for columns, received in zip(columns_of_sets, other._received, strict=False)
        ]
        chunks = [(images, columns) for images, columns in chunks if len(images)]
        for images, columns in chunks:
            self._check_new(images, columns)
        for images, columns in chunks:
            self.add(images, columns, numbered=bool(other.numbered))

    def check_complete(self, images: Tensor, needed: Tensor) -> None:
        """Check that every image has the scores of all columns that are needed.

        Args:
            images: ``[n]`` image numbers.
            needed: ``[K]`` bool, columns that every image needs.

        Raises:
            ValueError: the message says how many images lack scores, and which columns the first of them lacks.
        """
        needed_in_set = self._set_of_column[needed].bincount(minlength=len(self._set_sizes))  # [S]
        missing = torch.zeros(len(images), dtype=torch.long) + needed.sum()
        for column_set in needed_in_set.nonzero():
            missing -= self._has_received(column_set, images)[0] * needed_in_set[column_set]
        if not missing.any():
            return
        first = images[missing > 0][:1]
        received = self._has_received(torch.arange(len(self._set_sizes)), first)[:, 0]  # [S]
        columns = (needed & ~received[self._set_of_column]).nonzero()[:, 0].tolist()
        shown = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
        raise ValueError(
            f"{int((missing > 0).sum())} of {len(images)} images lack scores: "
            f"image {int(first)} lacks {len(columns)} of {int(needed.sum())} columns ({shown})"
        )

    @staticmethod
    def footprint(images: int, chunks: int) -> int:
        """Return the largest number of bytes for ``images`` images whose columns are given in ``chunks`` chunks."""
        return 4 * images * chunks  # a byte per image and chunk, with room for twice as many of both

    def _sets_of(self, columns: Tensor) -> Tensor:
        """Return the sets that hold any of ``columns`` ``[k]``, ascending."""
        sets = self._set_of_column[columns]
        return sets[:1] if len(sets) and (sets == sets[0]).all() else sets.unique()

    def _split_sets(self, columns: Tensor) -> Tensor:
        """Split sets so that every set holds only ``columns`` ``[k]`` or none of them; return those that hold them."""
        set_of_column, sets = self._set_of_column[columns], self._sets_of(columns)
        counts = set_of_column.bincount(minlength=len(self._set_sizes))[sets]
        partial = counts < self._set_sizes[sets]
        if not partial.any():
            return sets
        first_new, old = len(self._set_sizes), sets[partial]
        renamed = torch.arange(first_new).index_put((old,), torch.arange(first_new, first_new + len(old)))
        self._set_sizes[old] -= counts[partial]
        self._set_sizes = torch.cat([self._set_sizes, counts[partial]])
        self._reserve()
        self._received[first_new : first_new + len(old)] = self._received[old]
        self._set_of_column[columns] = renamed[set_of_column]
        return renamed[sets]

    def _check_new(self, images: Tensor, columns: Tensor) -> None:
        """Raise ValueError if a score of ``images`` ``[n]`` for ``columns`` ``[k]`` has been received before."""
        sets = self._sets_of(columns)
        again = self._has_received(sets, images)  # [S, n]
        if again.any():
            i = int(again.any(0).nonzero()[0])
            column = int(columns[torch.isin(self._set_of_column[columns], sets[again[:, i]])].min())
            raise ValueError(f"image {int(images[i])} has a score for column {column} already")

    def _has_received(self, sets: Tensor, images: Tensor) -> Tensor:
        """Return whether the scores of ``images`` ``[n]`` for ``sets`` ``[S]`` have been received, ``[S, n]`` bool."""
        width = self._received.shape[1]
        return self._received[sets[:, None], images.clamp(max=width - 1)] & (images < width)

    def _reserve(self) -> None:
        """Enlarge the table of received scores to all sets and images; a short axis gets twice the length needed."""
        needed = (len(self._set_sizes), self.n_images)
        grown = [have if have >= asked else 2 * asked for have, asked in zip(self._received.shape, needed, strict=True)]
        if grown == list(self._received.shape):
            return
        enlarged = self._received.new_zeros(grown)
        enlarged[: self._received.shape[0], : self._received.shape[1]] = self._received
        self._received = enlarged
