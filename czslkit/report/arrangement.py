"""Results grouped into the rows and columns of a table, with the mean over seeds and the best of each column."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..metrics.names import METRICS

if TYPE_CHECKING:
    from pandas import DataFrame, Series

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
        summary: one row for each entry, with columns ``(metric, "mean")``, ``(metric, "std")`` and ``(metric, "n")``:
            mean and sample standard deviation as fractions, and the number of seeds that have the metric.
        ranks: one row for each entry, with a column for each metric of ``METRICS``: 1 for the best printed mean of a
            column, 2 for the second best, 0 for all others; 0 also if only one entry of the column has a number.
    """

    frame: DataFrame
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    finished: Mapping[Key, list[int]]
    failed: Mapping[Key, list[int]]
    summary: DataFrame
    ranks: DataFrame

    def mean(self, key: Key, metric: str) -> float | None:
        """Return the mean over seeds as a fraction, None if no seed has the metric."""
        return self._statistic(key, metric, "mean")

    def std(self, key: Key, metric: str) -> float | None:
        """Return the sample standard deviation over seeds as a fraction, None for fewer than two seeds."""
        return self._statistic(key, metric, "std")

    def rank(self, key: Key, metric: str) -> int:
        """Return the rank of an entry in its column: 1, 2, or 0 for an entry without a mark."""
        rank: Any = self.ranks.at[key, metric] if key in self.finished else 0
        return int(rank)

    def printed(self, key: Key, metric: str) -> str:
        """Return what a table prints for an entry: mean and standard deviation in percent, ``failed`` or a dash."""
        if self.failed.get(key) and not self.finished[key]:
            return "failed"
        mean, std = self.mean(key, metric), self.std(key, metric)
        return ("-" if mean is None else percent(mean)) + ("" if std is None else f" ± {percent(std)}")

    def _statistic(self, key: Key, metric: str, statistic: str) -> float | None:
        if key not in self.finished or (metric, statistic) not in self.summary.columns:
            return None
        value: Any = self.summary.at[key, (metric, statistic)]
        return None if value != value else float(value)


def arrange(frame: DataFrame, metrics: Sequence[str], rows: Sequence[str] | None = None) -> Arrangement:
    """Group the cells of a frame into entries.

    Args:
        frame: as :func:`czslkit.report.frame.results_frame` returns it.
        metrics: columns of the frame to summarise; they include all of ``METRICS``.
        rows: every label of the frame, in the order of the rows; by default that of the frame.
    """
    groups = frame.groupby(KEY_COLUMNS, sort=False)
    summary: DataFrame = groups[list(metrics)].agg([_mean, _std, "count"])
    summary = summary.rename(columns={"_mean": "mean", "_std": "std", "count": "n"}, level=1)
    cells: dict[Any, DataFrame] = dict(iter(groups))
    return Arrangement(
        frame,
        rows=tuple(frame["label"].unique() if rows is None else rows),
        columns=tuple(frame[["dataset", "world"]].drop_duplicates().itertuples(index=False, name=None)),
        finished={key: list(cell.index[cell["status"] == "done"]) for key, cell in cells.items()},
        failed={key: list(cell.index[cell["status"] != "done"]) for key, cell in cells.items()},
        summary=summary,
        ranks=_ranks(summary),
    )


def percent(fraction: float) -> str:
    """Return a fraction in percent, as tables print it.

    >>> percent(0.4096)
    '41.0'
    """
    return f"{100 * fraction:.1f}"


def _mean(values: Series[float]) -> float:
    """Return the mean of the values that are not missing, NaN if all are missing.

    The result is correctly rounded. The mean of pandas is not, and an error in the last bit can change a printed digit.
    """
    known = values.dropna()
    return statistics.fmean(known) if len(known) else float("nan")


def _std(values: Series[float]) -> float:
    """Return the sample standard deviation of the values that are not missing, NaN for fewer than two."""
    known = values.dropna()
    return statistics.stdev(known) if len(known) > 1 else float("nan")


def _ranks(summary: DataFrame) -> DataFrame:
    """Return the ranks of the printed means in each column; entries that print alike share a rank."""
    means: Any = summary.xs("mean", axis=1, level=1)[list(METRICS.values())]
    columns = means.map(lambda mean: float(percent(mean))).groupby(level=["dataset", "world"])
    ranks = columns.rank(method="dense", ascending=False)
    marked: DataFrame = ranks.where((ranks <= 2) & (columns.transform("count") > 1), 0).astype(int)
    return marked
