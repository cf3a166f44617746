"""The figures of the page: bars of all datasets, and of each dataset curves, trainings, accuracies and confusions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import CzslkitError
from .escaping import printable
from .page import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .table import Table

MOST_ROWS = 7  # rows of a figure, which have different colours


def page_figures(table: Table) -> dict[str, list[Figure]]:
    """Return the figures of a table by dataset; those of all datasets have the key ``""``.

    A figure of many rows has those with the highest AUC. What cannot be drawn has a reason in place of its SVG.
    """
    from . import figure_words, figures

    worlds: dict[str, list[str]] = {}
    for dataset, world in table.arrangement.columns:
        worlds.setdefault(dataset, []).append(world)
    every = dict.fromkeys(world for _, world in table.arrangement.columns)
    drawn = {"": [_figure("AUC", figures.bars, table, None, world) for world in every]}
    for dataset, found in worlds.items():
        world = "closed" if "closed" in found else found[0]
        drawn[dataset] = [
            *(_figure("Seen and unseen accuracy", figures.curve, table, dataset, one) for one in found),
            _figure("Training", figures.training, table, dataset, world),
            _figure("Accuracy by attribute", figure_words.attributes, table, dataset, world),
            _figure("Accuracy by object", figure_words.objects, table, dataset, world),
            _figure("Confused attributes", figure_words.confusion, table, dataset, world, of_rows=False),
        ]
    return drawn


def _figure(
    title: str, draw: Callable[..., Axes], table: Table, dataset: str | None, world: str, *, of_rows: bool = True
) -> Figure:
    """Draw a figure, whose own title becomes a part of the caption; an error becomes its gap.

    Args:
        title: start of the caption.
        draw: a function of the figures.
        table: what is drawn.
        dataset: name of the dataset, None if the figure is of all datasets.
        world: name of the world.
        of_rows: the figure compares rows, and the caption says if it has only some of them.
    """
    from .figure_style import figure_svg, own_settings

    try:
        best = _best_rows(table, dataset, world)
        with own_settings():
            axes = draw(table, dataset=dataset, world=world, methods=best)
        caption = f"{title}: {_plain(axes.get_title())}"
        if best and of_rows:
            caption += f", the {len(best)} of {len(table.arrangement.rows)} rows with the highest AUC"
        if not axes.has_data():
            return Figure(
                caption, "", f"There is nothing to draw: {_plain(axes.get_xlabel()) or 'no result has a number'}."
            )
        axes.set_title("")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "constrained_layout not applied", UserWarning)
            return Figure(caption, figure_svg(axes))
    except UserWarning:
        return Figure(f"{title}, {world} world", "", "Its names and notes are too long to leave room for it.")
    except (CzslkitError, ValueError) as error:
        return Figure(f"{title}, {world} world", "", printable(str(error))[:300])


def _plain(text: str) -> str:
    """Return a text of a figure on one line, without the escapes of matplotlib."""
    return " ".join(text.split()).replace("\\$", "$")


def _best_rows(table: Table, dataset: str | None, world: str) -> Sequence[str] | None:
    """Return the labels of the rows with the highest AUC in the order of the table; None if there are few rows."""
    arrangement = table.arrangement
    if len(arrangement.rows) <= MOST_ROWS:
        return None
    aucs = {
        label: max(
            (arrangement.mean((label, *column), "auc") or 0)
            for column in arrangement.columns
            if column[1] == world and dataset in (None, column[0])
        )
        for label in arrangement.rows
    }
    best = sorted(aucs, key=lambda label: -aucs[label])[:MOST_ROWS]
    return [label for label in arrangement.rows if label in best]
