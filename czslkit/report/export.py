"""The numbers of a table in full precision, as CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..csv_cells import csv_cell
from ..metrics.names import defined_metrics
from ..result_store import Result
from .arrangement import Arrangement
from .escaping import printable
from .frame import setting_names
from .literature import PublishedRow
from .published import Comparison, published_caption
from .significance import Significance

if TYPE_CHECKING:
    from pandas import DataFrame


def as_csv(
    arrangement: Arrangement,
    significance: Significance,
    comparisons: Sequence[Comparison],
    literature: Sequence[PublishedRow] = (),
) -> str:
    """Write a line for each entry: its settings, its numbers of seeds, and every metric as fractions in full precision.

    Args:
        arrangement: the entries.
        significance: intervals and tie marks; each metric with intervals gets columns for them.
        comparisons: published numbers; if there are any, their columns come last.
        literature: published rows that were not measured here; each is a line after ours, in the same columns.
    """
    import pandas as pd

    keys = list(arrangement.finished)
    first_cells = [min([*arrangement.finished[key], *arrangement.failed[key]]) for key in keys]
    settings = arrangement.frame.loc[first_cells, setting_names(arrangement.frame)].reset_index(drop=True)
    counts = {
        "done": [len(arrangement.finished[key]) for key in keys],
        "failed": [len(arrangement.failed[key]) for key in keys],
    }
    statistics = _statistics(arrangement, significance).reset_index(drop=True)
    statistics.columns = pd.Index([f"{metric}_{statistic}" for metric, statistic in statistics.columns])
    published = {(c.label, c.dataset, c.world): c.csv_columns() for c in comparisons}
    parts = [
        pd.DataFrame({"method": [label for label, _, _ in keys]}),
        settings.map(_setting_text),
        pd.DataFrame({"dataset": [dataset for _, dataset, _ in keys], "world": [world for _, _, world in keys]}),
        pd.DataFrame(counts),
        statistics,
        pd.DataFrame([published.get(key, {}) for key in keys]),
    ]
    blocks = [pd.concat(parts, axis=1)] + [pd.DataFrame([row.csv_columns() for row in literature])] * bool(literature)
    lines = pd.concat([block.map(csv_cell).astype(object) for block in blocks])  # whole numbers stay whole
    header = [csv_cell(printable(name)) for name in lines.columns]
    return lines.to_csv(index=False, header=header, lineterminator="\n")


def as_json(
    arrangement: Arrangement,
    significance: Significance,
    comparisons: Sequence[Comparison],
    results: Sequence[Result],
    caption: Sequence[str],
    literature: Sequence[PublishedRow] = (),
) -> str:
    """Write the numbers of :func:`as_csv`, the metrics of each seed, the difference to the best and every error.

    Args:
        arrangement: the entries.
        significance: intervals, tie marks and differences to the best.
        comparisons: published numbers.
        results: the result of each row of ``arrangement.frame``.
        caption: sentences below the table.
        literature: published rows that were not measured here.
    """
    statistics = _statistics(arrangement, significance)
    plain = statistics.astype(object).where(statistics.notna(), None)
    rows: list[dict[str, Any]] = []
    for key, values in zip(arrangement.finished, plain.itertuples(index=False, name=None), strict=True):
        metrics: dict[str, dict[str, Any]] = {}
        for (metric, statistic), value in zip(plain.columns, values, strict=True):
            metrics.setdefault(metric, {})[statistic] = value
        cells = [results[i] for i in arrangement.finished[key]]
        row = {
            **dict(zip(("method", "dataset", "world"), key, strict=True)),
            "metrics": metrics,
            "seeds": {
                str(result["cell"]["seed"]): defined_metrics(result["metrics"], result["protocol"].get("bins"))
                for result in cells
            },
            "failed": [results[i]["cell"]["seed"] for i in arrangement.failed[key]],
        }
        if differences := significance.differences.get(key):
            row["against_best"] = {metric: found.as_dict() for metric, found in differences.items()}
        rows.append(row)
    failed = [{"cell": r["cell"], "error": r["error"]} for r in results if r["status"] == "failed"]
    content: dict[str, Any] = {"caption": list(caption), "rows": rows, "failed": failed}
    if significance.intervals:
        content["bootstrap"] = significance.settings()
    if comparisons:
        published = [comparison.as_dict() for comparison in comparisons]
        content["published"] = {"caption": published_caption(comparisons), "rows": published}
    if literature:
        content["literature"] = [row.as_dict() for row in literature]
    return json.dumps(content, indent=1) + "\n"


def _statistics(arrangement: Arrangement, significance: Significance) -> DataFrame:
    """Return ``arrangement.summary`` with ``low``, ``high`` and ``tied`` after the ``n`` of each resampled metric."""
    import pandas as pd

    summary, keys = arrangement.summary, list(arrangement.finished)
    resampled = {metric for entry_intervals in significance.intervals.values() for metric in entry_intervals}
    columns: dict[tuple[str, str], Any] = {}
    for metric in summary.columns.unique(level=0):
        columns |= {(metric, statistic): summary[metric, statistic] for statistic in ("mean", "std", "n")}
        if metric in resampled:
            ends = [significance.interval(key, metric) or (float("nan"), float("nan")) for key in keys]
            columns[metric, "low"] = [low for low, _ in ends]
            columns[metric, "high"] = [high for _, high in ends]
            columns[metric, "tied"] = pd.Series([significance.tied(key, metric) for key in keys], summary.index, object)
    return pd.DataFrame(columns, index=summary.index)


def _setting_text(value: Any) -> str:
    """Return a setting as labels show it; empty for a method without the setting.

    >>> [_setting_text(value) for value in ("adam", 0.01, [1, 2], True, None, float("nan"))]
    ['adam', '0.01', '[1,2]', 'true', 'null', '']
    """
    if isinstance(value, str):
        return value
    return "" if value != value else json.dumps(value, separators=(",", ":"))
