"""Figures of results: curves, trainings and bars, with the numbers of the table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..metrics.names import METRICS
from .figure_cells import (
    Curve,
    Row,
    Source,
    chosen_dataset,
    chosen_world,
    first_notes,
    read_curve,
    read_history,
    read_seeds,
    rows,
)
from .figure_style import INK, SMALL_FONT, Look, finish, new_axes, shown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes

    Floats = npt.NDArray[np.floating]

#: How figures name a number of the history; underscores become spaces in other names.
_METRIC_NAMES = {"val_auc": "validation AUC", "val_acc": "validation accuracy", "val_loss": "validation loss"}


def curve(
    source: Source,
    *,
    dataset: str | None = None,
    world: str | None = None,
    methods: Sequence[str] | str | None = None,
    ax: Axes | None = None,
    wide: bool = False,
) -> Axes:
    """Draw the accuracy on seen pairs over the accuracy on unseen pairs, as the bias of unseen pairs grows.

    A marker is the point of the best harmonic mean of one seed. The area below a line is the AUC of the table. Several
    seeds have one line, their mean at each unseen accuracy, in a band of one standard deviation.

    Args:
        source: folder of results, benchmark or table.
        dataset: name of a dataset; needed if the results are of several.
        world: ``closed`` or ``open``; the closed world if None and there are results in it.
        methods: names of methods or labels of rows, as a sequence or separated by commas; None draws all.
        ax: axes to draw on, whose style is kept and which get no legend; None makes a figure with a legend.
        wide: make a figure of 6.9 inches, the width of the text of a two-column paper, instead of 3.3, a column.

    Returns:
        The axes; both accuracies are in percent.

    Raises:
        ConfigError: there are no results of a dataset, world or method, or a dataset must be chosen.
    """
    dataset, world = chosen_dataset(source, dataset), chosen_world(source, world)
    chosen = rows(source, dataset, world, methods)
    axes, notes = new_axes(ax, wide), first_notes(chosen)
    for row in chosen:
        look = Look(row.place)
        curves, problems = read_seeds(row, lambda result: read_curve(result, source.attached))
        notes += problems
        if not curves:
            continue
        unseen, seen, spread = _mean_curve(curves)
        _draw_mean(axes, row, 100 * unseen, 100 * seen, 100 * spread)
        for found in curves:
            point = 100 * found.unseen[found.best], 100 * found.seen[found.best]
            axes.plot(*point, **_point(look))
    axes.set(xlabel="accuracy on unseen pairs, %", ylabel="accuracy on seen pairs, %", xlim=(0, None), ylim=(0, None))
    return finish(axes, own=ax is None, title=f"{dataset}, {world} world", notes=notes)


def training(
    source: Source,
    *,
    dataset: str | None = None,
    world: str | None = None,
    methods: Sequence[str] | str | None = None,
    metric: str | None = None,
    ax: Axes | None = None,
    wide: bool = False,
) -> Axes:
    """Draw a number of each epoch of the trainings, and mark the epoch that each training kept.

    Several seeds have one line, their mean, in a band of one standard deviation.

    Args:
        source: as in :func:`curve`, and so are ``dataset``, ``world``, ``methods``, ``ax`` and ``wide``.
        metric: a number of the history, such as ``loss`` or ``val_auc``; validation metrics are in percent. If None,
            ``val_auc``, or the loss if there are no validation metrics.

    Returns:
        The axes.

    Raises:
        ConfigError: there are no results of a dataset, world or method, or a dataset must be chosen.
    """
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    dataset, world = chosen_dataset(source, dataset), chosen_world(source, world)
    chosen = rows(source, dataset, world, methods)
    metric = metric or _first_metric(chosen)
    scale = 100 if metric.startswith("val_") and metric not in ("val_loss", "val_bias") else 1
    axes, notes = new_axes(ax, wide), first_notes(chosen)
    for row in chosen:
        look = Look(row.place)
        histories, problems = read_seeds(row, lambda result: read_history(result, metric))
        notes += problems
        if not histories:
            continue
        mean, spread = _mean_history([[scale * value for value in history] for history in histories])
        _draw_mean(axes, row, np.arange(1.0, len(mean) + 1), mean, spread)
        for result in row.results:
            epoch = (result.get("training") or {}).get("best_epoch")
            if epoch and epoch <= len(mean):
                axes.plot(epoch, mean[epoch - 1], **_point(look))
    axes.set(xlabel="epoch", ylabel=_METRIC_NAMES.get(metric, metric.replace("_", " ")) + ", %" * (scale == 100))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return finish(axes, own=ax is None, title=dataset, notes=notes)


def bars(
    source: Source,
    *,
    dataset: str | None = None,
    world: str | None = None,
    methods: Sequence[str] | str | None = None,
    metric: str = "AUC",
    ax: Axes | None = None,
    wide: bool = False,
) -> Axes:
    """Draw a metric as a bar for each row of the table in each dataset, with its 95 % bootstrap interval.

    Args:
        source: as in :func:`curve`, and so are ``world``, ``methods``, ``ax`` and ``wide``.
        dataset: name of a dataset; None draws all.
        metric: a column of the table: ``S``, ``U``, ``H`` or ``AUC``.

    Returns:
        The axes; the metric is in percent, the mean over the seeds.

    Raises:
        ConfigError: there are no results of a dataset, world or method, or the metric is unknown.
    """
    if metric not in METRICS:
        raise ConfigError([f"the metric is {metric!r}, expected one of {', '.join(METRICS)}"])
    world, name = chosen_world(source, world), METRICS[metric]
    known = [d for d, w in source.arrangement.columns if w == world]
    datasets = known if dataset is None else [chosen_dataset(source, dataset)]
    groups = {found: {row.label: row for row in rows(source, found, world, methods)} for found in datasets}
    places = {label: row.place for group in groups.values() for label, row in group.items()}
    notes = first_notes(row for group in groups.values() for row in group.values())
    axes, width = new_axes(ax, wide), 0.8 / max(len(places), 1)
    for i, (label, place) in enumerate(places.items()):
        look, heights = Look(place), {}
        for at, (found, group) in enumerate(groups.items()):
            x, key = at + (i - (len(places) - 1) / 2) * width, (label, found, world)
            mean, interval = source.arrangement.mean(key, name), source.significance.interval(key, name)
            if mean is None:
                problem = (group[label].problem if label in group else "not run") or "undefined"
                _draw_gap(axes, x, f" {shown(label)}: {problem}")
                continue
            heights[x] = 100 * mean
            notes += [f"{label} on {found}: {group[label].problem}"] if group[label].problem else []
            if interval is None:
                notes.append(f"{label} on {found}: no interval, since there are no numbers per image")
            else:
                _draw_interval(axes, x, *(100 * end for end in interval))
        if heights:
            filling: dict[str, Any] = {"color": look.colour, "hatch": look.hatch, "edgecolor": "white", "linewidth": 0}
            axes.bar(list(heights), list(heights.values()), 0.95 * width, label=shown(label), **filling)
    axes.set_xticks(range(len(groups)), list(map(shown, groups)))
    axes.set(ylabel=f"{metric}, %", ylim=(0, None), xlim=(-0.5, len(groups) - 0.5))
    axes.grid(False, axis="x")
    return finish(axes, own=ax is None, title=f"{world} world", notes=notes)


def _draw_gap(axes: Axes, x: float, text: str) -> None:
    """Draw upright text in the place of a bar."""
    axes.text(x, 0, text, rotation=90, ha="center", va="bottom", fontsize=SMALL_FONT, color=INK)


def _draw_interval(axes: Axes, x: float, low: float, high: float) -> None:
    """Draw an interval, which need not have the mean in its middle."""
    style: dict[str, Any] = {"ecolor": INK, "elinewidth": 0.6, "capsize": 1.5, "capthick": 0.6}
    axes.errorbar(x, (low + high) / 2, (high - low) / 2, fmt="none", **style)


def _draw_mean(axes: Axes, row: Row, x: Floats, mean: Floats, spread: Floats) -> None:
    """Draw the mean of a row as a line, whose marker is only in the legend, in a band of one standard deviation."""
    look = Look(row.place)
    line = {**_point(look), "linestyle": look.dashes, "linewidth": 1, "markevery": []}
    axes.plot(x, mean, label=shown(row.label), **line)
    if spread.any():
        axes.fill_between(x, mean - spread, mean + spread, color=look.colour, alpha=0.2, linewidth=0)


def _point(look: Look) -> dict[str, Any]:
    """Return the style of a marked point."""
    return {"color": look.colour, "marker": look.marker, "markersize": 3.5, "linestyle": "none"}


def _mean_curve(curves: Sequence[Curve]) -> tuple[Floats, Floats, Floats]:
    """Return unseen accuracies, and the mean and the standard deviation of the seen accuracies over the seeds.

    Curves are linear between their points, and 0 after the last. Numbers just before and after a point keep its steps,
    so that the area below the mean is the mean of the areas.
    """
    import numpy as np

    if len(curves) == 1:
        unseen, seen = np.array(curves[0].unseen), np.array(curves[0].seen)
        return unseen, seen, np.zeros_like(seen)
    points = np.unique(np.concatenate([found.unseen for found in curves]))
    grid = np.unique(np.concatenate([points, np.nextafter(points, 0), np.nextafter(points, 2)]))
    growing = [np.maximum.accumulate(found.unseen) for found in curves]  # ties can make the last point fall back
    seen = np.array([np.interp(grid, x, found.seen, right=0) for x, found in zip(growing, curves, strict=True)])
    return grid, seen.mean(0), seen.std(0, ddof=1)


def _mean_history(histories: Sequence[Sequence[float]]) -> tuple[Floats, Floats]:
    """Return the mean and the standard deviation of each epoch over the seeds that have a number there."""
    import numpy as np

    means, spreads = [], []
    for epoch in range(max(map(len, histories))):
        known = [found[epoch] for found in histories if epoch < len(found) and not math.isnan(found[epoch])]
        means.append(statistics.fmean(known) if known else math.nan)
        spreads.append(statistics.stdev(known) if len(known) > 1 else 0.0)
    return np.array(means), np.array(spreads)


def _first_metric(chosen: Sequence[Row]) -> str:
    """Return the first validation metric that a training has, preferring its AUC; ``loss`` if none has one."""
    names: dict[str, None] = {}
    for row in chosen:
        for result in row.results:
            for epoch in (result.get("training") or {}).get("history") or ():
                values = epoch if isinstance(epoch, dict) else {}
                names |= dict.fromkeys(name for name, value in values.items() if value is not None)
    found = sorted((name for name in names if name.startswith("val_")), key=lambda name: name != "val_auc")
    return found[0] if found else "loss"
