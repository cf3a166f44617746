"""The figures of the page: bars of all datasets, and of each dataset curves, trainings, accuracies and confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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
    drawn = {"": [_figure(f"AUC, {world} world", figures.bars, table, None, world) for world in _all_worlds(worlds)]}
    for dataset, found in worlds.items():
        world = "closed" if "closed" in found else found[0]
        drawn[dataset] = [
            *(_figure(f"Seen and unseen accuracy, {one} world", figures.curve, table, dataset, one) for one in found),
            _figure("Training", figures.training, table, dataset, world),
            _figure(f"Accuracy by attribute, {world} world", figure_words.attributes, table, dataset, world),
            _figure(f"Accuracy by object, {world} world", figure_words.objects, table, dataset, world),
            _figure(f"Confused attributes, {world} world", figure_words.confusion, table, dataset, world),
        ]
    return drawn


def _all_worlds(worlds: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys(world for found in worlds.values() for world in found))


def _figure(title: str, draw: Callable[..., Axes], table: Table, dataset: str | None, world: str) -> Figure:
    """Draw a figure; an error becomes its gap."""
    from .figure_style import figure_svg

    options: dict[str, Any] = {"world": world, "methods": _best_rows(table, dataset, world)}
    try:
        return Figure(title, figure_svg(draw(table, dataset=dataset, **options)))
    except (CzslkitError, ValueError) as error:
        return Figure(title, "", printable(str(error))[:300])


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
