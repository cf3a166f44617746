"""Figures of results: curves, trainings and bars, with the numbers of the table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..metrics.names import METRICS
from .figure_cells import Curve, Row, Source, chosen_dataset, chosen_world, read_curve, read_history, read_seeds, rows
from .figure_style import FONT, INK, SMALL_FONT, Look, finish, new_axes, shown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes

    Floats = npt.NDArray[np.floating]


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
    axes, notes = new_axes(ax, wide), []
    for row in rows(source, dataset, world, methods):
        look = Look(row.place)
        curves, problems = read_seeds(row, lambda result: read_curve(result, source.attached))
        notes += problems
        if not curves:
            continue
        unseen, seen, spread = _mean_curve(curves)
        axes.plot(
            100 * unseen, 100 * seen, color=look.colour, linestyle=look.dashes, linewidth=1, label=shown(row.label)
        )
        if len(curves) > 1:
            low, high = 100 * (seen - spread), 100 * (seen + spread)
            axes.fill_between(100 * unseen, low, high, color=look.colour, alpha=0.2, linewidth=0)
        for found in curves:
            point = 100 * found.unseen[found.best], 100 * found.seen[found.best]
            axes.plot(*point, color=look.colour, marker=look.marker, markersize=3.5, linestyle="none")
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
    dataset, world = chosen_dataset(source, dataset), chosen_world(source, world)
    chosen = rows(source, dataset, world, methods)
    metric = metric or _first_metric(chosen)
    scale = 100 if metric.startswith("val_") and metric != "val_loss" else 1
    axes, notes = new_axes(ax, wide), []
    for row in chosen:
        look = Look(row.place)
        histories, problems = read_seeds(row, lambda result: read_history(result, metric))
        notes += problems
        if not histories:
            continue
        mean, spread = _mean_history([[scale * value for value in history] for history in histories])
        epochs = range(1, len(mean) + 1)
        axes.plot(epochs, mean, color=look.colour, linestyle=look.dashes, linewidth=1, label=shown(row.label))
        if len(histories) > 1:
            low, high = (
                [m - s for m, s in zip(mean, spread, strict=True)],
                [m + s for m, s in zip(mean, spread, strict=True)],
            )
            axes.fill_between(epochs, low, high, color=look.colour, alpha=0.2, linewidth=0)
        for result in row.results:
            epoch = (result.get("training") or {}).get("best_epoch")
            if epoch and epoch <= len(mean):
                axes.plot(
                    epoch, mean[epoch - 1], color=look.colour, marker=look.marker, markersize=3.5, linestyle="none"
                )
    axes.set(xlabel="epoch", ylabel=f"{metric.replace('_', ' ')}{', %' if scale == 100 else ''}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return finish(axes, own=ax is None, title=f"{dataset}, {world} world", notes=notes)


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
    datasets = [chosen_dataset(source, dataset)] if dataset is not None else known
    groups = {found: {row.label: row for row in rows(source, found, world, methods)} for found in datasets}
    labels = {label: row.place for group in groups.values() for label, row in group.items()}
    axes, notes, width = new_axes(ax, wide), [], 0.8 / max(len(labels), 1)
    for i, (label, place) in enumerate(labels.items()):
        look, drawn = Look(place), []
        for at, found in enumerate(datasets):
            x, key = at + (i - (len(labels) - 1) / 2) * width, (label, found, world)
            mean, interval = source.arrangement.mean(key, name), source.significance.interval(key, name)
            row = groups[found].get(label)
            if mean is None:
                problem = (row.problem if row else "") or "undefined"
                axes.text(x, 0, f" {problem}", rotation=90, ha="center", va="bottom", fontsize=SMALL_FONT, color=INK)
                continue
            drawn.append((x, 100 * mean))
            notes += [f"{label} on {found}: {row.problem}"] if row and row.problem else []
            if interval is None:
                notes.append(f"{label} on {found}: no interval, since there are no numbers per image")
            else:
                low, high = (100 * end for end in interval)
                axes.errorbar(
                    x, (low + high) / 2, (high - low) / 2, fmt="none", ecolor=INK, elinewidth=0.6, capsize=1.5
                )
        xs, heights = [x for x, _ in drawn], [height for _, height in drawn]
        axes.bar(
            xs,
            heights,
            width,
            color=look.colour,
            hatch=look.hatch,
            edgecolor="white",
            linewidth=0.3,
            label=shown(label),
        )
    axes.set_xticks(range(len(datasets)), [shown(found) for found in datasets], fontsize=FONT)
    axes.set(ylabel=f"{metric}, %", ylim=(0, None), xlim=(-0.5, len(datasets) - 0.5))
    axes.grid(False, axis="x")
    return finish(axes, own=ax is None, title=f"{world} world", notes=notes)


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


def _mean_history(histories: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation of each epoch over the seeds that have a number there."""
    means, spreads = [], []
    for epoch in range(max(map(len, histories))):
        known = [found[epoch] for found in histories if epoch < len(found) and not math.isnan(found[epoch])]
        means.append(statistics.fmean(known) if known else math.nan)
        spreads.append(statistics.stdev(known) if len(known) > 1 else 0.0)
    return means, spreads


def _first_metric(chosen: Sequence[Row]) -> str:
    """Return the first validation metric that a training has, preferring its AUC; ``loss`` if none has one."""
    names: dict[str, None] = {}
    for row in chosen:
        for result in row.results:
            history = (result.get("training") or {}).get("history") or [{}]
            names |= dict.fromkeys(history[0] if isinstance(history[0], dict) else ())
    found = sorted((name for name in names if name.startswith("val_")), key=lambda name: name != "val_auc")
    return found[0] if found else "loss"
