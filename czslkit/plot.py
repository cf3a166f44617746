"""Figures of results, drawn with matplotlib: each function returns the axes, whose figure a paper or a notebook shows.

The results are a folder that ``czslkit bench`` wrote, what :func:`czslkit.bench` returned, or a table of them. A
figure of results that were not measured alike says so below its axis.

>>> axes = czslkit.plot.curve("runs", dataset="mit-states")  # doctest: +SKIP
>>> czslkit.plot.save(axes, "curve.pdf")  # doctest: +SKIP
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol

from .report import figure_words, figures
from .report.asked import read_asked
from .report.figure_cells import Source
from .report.figure_style import COLUMN, PAGE, add_legend, checked_file_type, figure_svg, own_settings, panels, save
from .report.frame import stored_results
from .report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "COLUMN", "PAGE", "add_legend", "attributes", "bars", "checked_file_type", "confusion", "curve", "figure_svg",
    "objects", "panels", "save", "training",
]  # fmt: skip

P = ParamSpec("P")


class HasTable(Protocol):
    """Results with a table, such as :class:`czslkit.runner.bench.Benchmark`."""

    def table(self) -> Source:
        """Return the table."""


def _of_results(draw: Callable[Concatenate[Source, P], Axes]) -> Callable[Concatenate[Results, P], Axes]:
    """Return a function that draws a folder of results or a benchmark, too."""

    @functools.wraps(draw)
    def drawn(source: Results, *args: P.args, **options: P.kwargs) -> Axes:
        with own_settings():
            return draw(table_of(source), *args, **options)

    return drawn


def table_of(results: Results) -> Source:
    """Return the table of some results.

    Args:
        results: folder of results, benchmark or table.

    Raises:
        CzslkitError: there is no such folder, or it holds no results.
    """
    if not isinstance(results, (str, Path)):
        return results.table() if hasattr(results, "table") else results

    def warn(line: str) -> None:
        warnings.warn(line, stacklevel=2)

    store, found = stored_results(results, warn)
    asked = read_asked(store.root, warn)
    shown = [result for result in found if not asked.is_left_out(result)]
    return Table(shown or found, mixed=True, attached=store.attached, folder=store.folder, asked=asked)


Results = str | Path | HasTable | Source
curve = _of_results(figures.curve)
training = _of_results(figures.training)
attributes = _of_results(figure_words.attributes)
objects = _of_results(figure_words.objects)
confusion = _of_results(figure_words.confusion)
bars = _of_results(figures.bars)
