"""Figures of attributes and objects: their accuracies, and which attributes are taken for which."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .figure_cells import (
    Row,
    Source,
    chosen_dataset,
    chosen_world,
    first_notes,
    read_confusions,
    read_seeds,
    read_words,
    rows,
)
from .figure_style import COLOURS, COLUMN, INK, SMALL_FONT, Look, finish, new_axes, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_WORDS, _MOST_CONFUSED = 30, 12  # words in a figure of accuracies and in a matrix, unless asked for otherwise
_ROUNDING = 0.001  # of the sum of shares, which have four decimals
_LINE_HEIGHT, _HEAD = 0.13, 0.55  # inches of a word, and of the rest of a figure


def attributes(
    source: Source,
    *,
    dataset: str | None = None,
    world: str | None = None,
    methods: Sequence[str] | str | None = None,
    most: int = _MOST_WORDS,
    ax: Axes | None = None,
    wide: bool = False,
) -> Axes:
    """Draw the accuracy of each attribute at bias 0, with the number of its test images, the highest first.

    The order is that of the mean over the rows. With several seeds, a marker is their mean and a line is one standard
    deviation to each side.

    Args:
        source: folder of results, benchmark or table.
        dataset: name of a dataset; needed if the results are of several.
        world: ``closed`` or ``open``; the closed world if None and there are results in it.
        methods: names of methods or labels of rows, as a sequence or separated by commas; None draws all.
        most: largest number of attributes; of more, those with the most images are drawn.
        ax: axes to draw on, whose style is kept and which get no legend; None makes a figure with a legend.
        wide: make a figure of 6.9 inches, the width of the text of a two-column paper, instead of 3.3, a column.

    Returns:
        The axes; accuracies are in percent. Their mean, weighted by the images, is the metric ``attr_acc``.

    Raises:
        ConfigError: there are no results of a dataset, world or method, a dataset must be chosen, or ``most`` is less
            than 1.
    """
    return _words(source, "attribute", dataset, world, methods, most, ax, wide)


def objects(
    source: Source,
    *,
    dataset: str | None = None,
    world: str | None = None,
    methods: Sequence[str] | str | None = None,
    most: int = _MOST_WORDS,
    ax: Axes | None = None,
    wide: bool = False,
) -> Axes:
    """Draw the accuracy of each object at bias 0, with the number of its test images, the highest first.

    Args and errors are those of :func:`attributes`.

    Returns:
        The axes; accuracies are in percent. Their mean, weighted by the images, is the metric ``obj_acc``.
    """
    return _words(source, "object", dataset, world, methods, most, ax, wide)


def _words(
    source: Source,
    part: str,
    dataset: str | None,
    world: str | None,
    methods: Sequence[str] | str | None,
    most: int,
    ax: Axes | None,
    wide: bool,
) -> Axes:
    """Draw the accuracy of each attribute or object."""
    if most < 1:
        raise ConfigError([f"most is {most}, expected 1 or more {part}s"])
    dataset, world = chosen_dataset(source, dataset), chosen_world(source, world)
    chosen = rows(source, dataset, world, methods)
    notes = first_notes(chosen)
    accuracies: list[tuple[Row, dict[str, list[float]]]] = []
    images: dict[str, int] = {}
    for row in chosen:
        seeds, problems = read_seeds(row, lambda result: read_words(result, source.attached, part))
        notes += problems
        found: dict[str, list[float]] = {}
        for word, (count, accuracy) in ((word, numbers) for seed in seeds for word, numbers in seed.items()):
            images.setdefault(word, count)
            found.setdefault(word, []).append(100 * accuracy)
        if found:
            accuracies.append((row, found))
    kept = sorted(images, key=lambda word: (-images[word], word))[:most]
    if len(kept) < len(images):
        notes.append(f"the {len(kept)} of {len(images)} {part}s with the most images")
    means = {
        word: statistics.fmean(statistics.fmean(found[word]) for _, found in accuracies if word in found)
        for word in kept
    }
    order = sorted(kept, key=lambda word: (means[word], word))  # from the bottom to the top
    axes = new_axes(ax, wide, _HEAD + _LINE_HEIGHT * max(len(order), 3))
    for row, found in accuracies:
        look = Look(row.place)
        places = [i for i, word in enumerate(order) if word in found]
        values = [found[order[i]] for i in places]
        spread = [statistics.stdev(seeds) if len(seeds) > 1 else 0 for seeds in values]
        axes.errorbar(
            [statistics.fmean(seeds) for seeds in values],
            places,
            xerr=spread if any(spread) else None,
            fmt=look.marker,
            color=look.colour,
            markersize=3.2,
            elinewidth=0.6,
            label=shown(row.label),
        )
    axes.set_yticks(range(len(order)), [f"{shown(word)} ({images[word]:,})" for word in order])
    axes.set(xlabel=f"accuracy of the {part} at bias 0, %", xlim=(-2, 102), ylim=(-0.7, max(len(order), 1) - 0.3))
    return finish(axes, own=ax is None, title=f"{dataset}, {world} world", notes=notes)


def confusion(
    source: Source,
    *,
    dataset: str | None = None,
    world: str | None = None,
    methods: Sequence[str] | str | None = None,
    most: int = _MOST_CONFUSED,
    ax: Axes | None = None,
    wide: bool = False,
) -> Axes:
    """Draw which attributes one method takes for which, at bias 0.

    A row is a true attribute with the number of its test images, and its numbers are the percentages of these images by
    predicted attribute; a last column stands for all attributes that are not drawn. The diagonal has the accuracies
    of :func:`attributes`. Numbers are means over seeds.

    Args:
        source: as in :func:`attributes`, and so are ``dataset``, ``world``, ``ax`` and ``wide``.
        methods: name of a method or label of a row; if it names several, or is None, the row with the highest AUC.
        most: largest number of attributes; those of the most wrong images are drawn.

    Returns:
        The axes; the matrix is the array of its first collection.

    Raises:
        ConfigError: there are no results of a dataset, world or method, a dataset must be chosen, or ``most`` is less
            than 1.
    """
    if most < 1:
        raise ConfigError([f"most is {most}, expected 1 or more attributes"])
    dataset, world = chosen_dataset(source, dataset), chosen_world(source, world)
    chosen = rows(source, dataset, world, methods)
    aucs = {row.label: source.arrangement.mean((row.label, dataset, world), "auc") or 0 for row in chosen}
    row = max(chosen, key=lambda row: (bool(row.results), aucs[row.label]))
    words, problems = read_seeds(row, lambda result: read_words(result, source.attached, "attribute"))
    confused, notes = read_seeds(row, lambda result: read_confusions(result, source.attached))
    title = f"{row.label} on {dataset}, {world} world"
    if not words or not confused or len(words) != len(confused):
        axes = new_axes(ax, wide)
        axes.set(xticks=[], yticks=[])
        return finish(axes, own=ax is None, title=title, notes=problems or notes)
    shares, order, images = _matrix(words, confused, most)
    axes = new_axes(ax, wide, COLUMN)
    axes.grid(False)
    _draw_shares(axes, shares)
    names = [shown(word) for word in order]
    middles = [i + 0.5 for i in range(len(shares[0]))]
    axes.set_xticks(middles, [*names, "other"][: len(middles)], rotation=90)
    axes.set_yticks(
        middles[: len(order)], [f"{name} ({images[word]:,})" for name, word in zip(names, order, strict=True)]
    )
    axes.invert_yaxis()
    axes.set(xlabel="predicted attribute at bias 0, % of images", ylabel="true attribute (images)")
    return finish(axes, own=ax is None, title=title, notes=notes)


def _draw_shares(axes: Axes, shares: list[list[float]]) -> None:
    """Draw a matrix of shares in percent, from no colour at all to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    blue = LinearSegmentedColormap.from_list("share", [f"{COLOURS[0]}00", f"{COLOURS[0]}ff"])
    axes.pcolormesh([[100 * share for share in line] for line in shares], cmap=blue, vmin=0, vmax=100)
    for y, line in enumerate(shares):
        for x, share in enumerate(line):
            if round(100 * share):
                style: dict[str, Any] = {"fontsize": SMALL_FONT, "color": INK if share < 0.85 else "white"}
                axes.text(x + 0.5, y + 0.5, f"{100 * share:.0f}", ha="center", va="center", **style)


def _matrix(
    words: Sequence[dict[str, tuple[int, float]]], confused: Sequence[dict[tuple[str, str], int]], most: int
) -> tuple[list[list[float]], list[str], dict[str, int]]:
    """Return the matrix of shares of images, its attributes in alphabetical order, and the images of each attribute.

    A last column has the shares of all other attributes, if there are any.
    """
    images = {word: count for seed in words for word, (count, _) in seed.items()}
    wrong = dict.fromkeys(images, 0)
    for seed in confused:
        for (true, _), count in seed.items():
            wrong[true] = wrong.get(true, 0) + count
    order = sorted(sorted(images, key=lambda word: (-wrong[word], word))[:most])

    def share(true: str, predicted: str) -> float:
        if true == predicted:
            return statistics.fmean(seed[true][1] for seed in words if true in seed)
        return statistics.fmean(seed.get((true, predicted), 0) for seed in confused) / images[true]

    shares = [[share(true, predicted) for predicted in order] for true in order]
    others = [1 - sum(line) for line in shares]
    if max(others) > _ROUNDING:
        shares = [[*line, max(0.0, other)] for line, other in zip(shares, others, strict=True)]
    return shares, order, images
