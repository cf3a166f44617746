"""Results grouped into the rows and columns of a table, with the mean over seeds and the best of each column."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from ..metrics.names import METRICS

if TYPE_CHECKING:
    from pandas import DataFrame

Column = tuple[str, str]  # dataset, world
Key = tuple[str, str, str]  # label of the row, dataset, world: one entry of a table
KEY_COLUMNS = ["label", "dataset", "world"]  # of the frame


@dataclass(frozen=True, eq=False)
class Arrangement:
    """The entries of a table: the seeds of each row in each dataset and world, summarised.

    Attributes:
        frame: one row for each cell, as :func:`czslkit.report.frame.results_frame` returns it.
        rows: label of each row, in order.
        columns: dataset and world of each column, in the order of the frame.
        finished: the finished cells of each entry, as row numbers of the frame.
        failed: the failed cells of each entry, likewise.
        statistics: for each entry and metric the mean and the sample standard deviation as fractions (NaN if there are
            too few), and the number of seeds that have the metric.
        ranks: for each entry and metric of ``METRICS`` 1 for the best printed mean of a column, 2 for the second best;
            all others have none, nor has an entry if no other entry of its column has a number.
    """

    frame: DataFrame
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    finished: Mapping[Key, list[int]]
    failed: Mapping[Key, list[int]]
    statistics: Mapping[Key, Mapping[str, tuple[float, float, int]]]
    ranks: Mapping[tuple[Key, str], int]

    @cached_property
    def summary(self) -> DataFrame:
        """One row for each entry, with columns ``(metric, "mean")``, ``(metric, "std")`` and ``(metric, "n")``."""
        import pandas as pd

        entries = list(self.statistics.values())
        metrics = list(entries[0] if entries else METRICS.values())
        columns = {
            (metric, name): [entry[metric][i] for entry in entries]
            for metric in metrics
            for i, name in enumerate(("mean", "std", "n"))
        }
        return pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(self.statistics, names=KEY_COLUMNS))

    def mean(self, key: Key, metric: str) -> float | None:
        """Return the mean over seeds as a fraction, None if no seed has the metric."""
        return self._statistic(key, metric, 0)

    def std(self, key: Key, metric: str) -> float | None:
        """Return the sample standard deviation over seeds as a fraction, None for fewer than two seeds."""
        return self._statistic(key, metric, 1)

    def rank(self, key: Key, metric: str) -> int:
        """Return the rank of an entry in its column: 1, 2, or 0 for an entry without a mark."""
        return self.ranks.get((key, metric), 0)

    def printed(self, key: Key, metric: str) -> str:
        """Return what a table prints for an entry: mean and standard deviation in percent, ``failed`` or a dash."""
        if self.failed.get(key) and not self.finished[key]:
            return "failed"
        mean, std = self.mean(key, metric), self.std(key, metric)
        return ("-" if mean is None else percent(mean)) + ("" if std is None else f" ± {percent(std)}")

    def _statistic(self, key: Key, metric: str, position: int) -> float | None:
        found = self.statistics.get(key, {}).get(metric)
        return None if found is None or found[position] != found[position] else found[position]


def arrange(frame: DataFrame, metrics: Sequence[str], rows: Sequence[str] | None = None) -> Arrangement:
    """Group the cells of a frame into entries.

    Args:
        frame: as :func:`czslkit.report.frame.results_frame` returns it.
        metrics: columns of the frame to summarise; they include all of ``METRICS``.
        rows: every label of the frame, in the order of the rows; by default that of the frame.
    """
    cells: dict[Key, list[int]] = {}
    for row, key in enumerate(frame[KEY_COLUMNS].itertuples(index=False, name=None)):
        cells.setdefault(key, []).append(row)
    values = {metric: frame[metric].tolist() for metric in metrics}
    done = (frame["status"] == "done").tolist()
    entries = {
        key: {metric: _statistics([values[metric][row] for row in found]) for metric in metrics}
        for key, found in cells.items()
    }
    return Arrangement(
        frame,
        rows=tuple(frame["label"].unique() if rows is None else rows),
        columns=tuple(dict.fromkeys(key[1:] for key in cells)),
        finished={key: [row for row in found if done[row]] for key, found in cells.items()},
        failed={key: [row for row in found if not done[row]] for key, found in cells.items()},
        statistics=entries,
        ranks=_ranks(entries),
    )


def percent(fraction: float) -> str:
    """Return a fraction in percent, as tables print it.

    >>> percent(0.4096)
    '41.0'
    """
    return f"{100 * fraction:.1f}"


def _statistics(values: Sequence[float]) -> tuple[float, float, int]:
    """Return mean, sample standard deviation and number of the values that are not missing.

    NaN stands for the mean of no values, and for the standard deviation of fewer than two. The mean is correctly
    rounded. The mean of pandas is not, and an error in the last bit can change a printed digit.
    """
    known = [value for value in values if value == value]
    mean = statistics.fmean(known) if known else float("nan")
    return mean, statistics.stdev(known) if len(known) > 1 else float("nan"), len(known)


def _ranks(entries: Mapping[Key, Mapping[str, tuple[float, float, int]]]) -> dict[tuple[Key, str], int]:
    """Return the ranks of the printed means in each column; entries that print alike share a rank."""
    columns: dict[Column, list[Key]] = defaultdict(list)
    for key in entries:
        columns[key[1:]].append(key)
    ranks: dict[tuple[Key, str], int] = {}
    for keys, metric in product(columns.values(), METRICS.values()):
        printed = {key: float(percent(entries[key][metric][0])) for key in keys if entries[key][metric][2]}
        best = sorted(set(printed.values()), reverse=True)[:2]
        if len(printed) > 1:
            ranks |= {(key, metric): best.index(mean) + 1 for key, mean in printed.items() if mean in best}
    return ranks
