"""Tables ready to be written in any format: numbers with their marks, and the sentences below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..metrics.names import METRICS
from .arrangement import Column

TIED_MARK = "~"  # printed after numbers that are not significantly below the best


@dataclass(frozen=True)
class Number:
    """A printed number with its rank and its tie mark in its column."""

    text: str
    rank: int = 0  # 1 for the best, 2 for the second best, 0 for all others
    tied: bool = False  # whether it is not significantly below the best
    span: int = 1  # number of cells that the text stands for: it is in the first, and the others have span 0


@dataclass(frozen=True)
class Grid:
    """A table whose rows have a label and the numbers of every column; a column has a number for each metric."""

    corner: str  # the dataset or the world that all columns share
    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[Number]]]
    more: int = 0  # how many of the last rows a part leaves out if they have no number in it

    def split(self, columns: int = 1) -> list[Grid]:
        """Return grids of at most ``columns`` columns each."""
        n, own = len(METRICS), len(self.rows) - self.more
        parts = []
        for i in range(0, len(self.columns), columns):
            rows = [(label, numbers[n * i : n * (i + columns)]) for label, numbers in self.rows]
            more = [row for row in rows[own:] if any(number.text != "-" for number in row[1])]
            parts.append(Grid(self.corner, self.columns[i : i + columns], rows[:own] + more))
        return parts

    def numbers(self) -> list[Number]:
        """Return the numbers of all rows."""
        return [number for _, row in self.rows for number in row]


@dataclass(frozen=True)
class Block:
    """Grids with the caption and the notes below them."""

    grids: Sequence[Grid]
    caption: Sequence[str]  # sentences
    notes: Sequence[str]
    title: str = "Results"  # start of the caption in LaTeX
    name: str = "results"  # start of the labels in LaTeX
    errors: Sequence[str] = ()  # notes on failed cells, which LaTeX has only as comments

    @property
    def all_notes(self) -> list[str]:
        """The notes, and then those on failed cells."""
        return [*self.notes, *self.errors]

    @property
    def has_ranks(self) -> bool:
        """True if some numbers are marked as best or second best."""
        return any(number.rank for grid in self.grids for number in grid.numbers())

    @property
    def has_ties(self) -> bool:
        """True if some numbers are marked as not significantly below the best."""
        return any(number.tied for grid in self.grids for number in grid.numbers())
