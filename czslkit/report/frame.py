"""Results as a pandas frame: one tidy row for each cell of a benchmark."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CzslkitError
from ..metrics.names import METRICS, defined_metrics
from ..options import flatten
from ..result_store import Result, Store
from .asked import Row, read_asked
from .escaping import printable
from .labels import differing_settings, row_labels, setting_name, transductive
from .resamples import Attached, Folder, Resamples, resampled_result

if TYPE_CHECKING:  # pandas takes a third of a second to import
    from pandas import DataFrame, Series

_TIMINGS = ("train_s", "eval_s")
_VERSIONS = ("czslkit", "torch", "python", "device")


def results(runs: str | Path) -> DataFrame:
    """Return the results below a folder that ``czslkit bench`` wrote, as :func:`results_frame` arranges them.

    Args:
        runs: folder of the results, as given to ``czslkit bench --runs``.

    Returns:
        A row for each result, by dataset, method, seed, configuration and world.

    Raises:
        CzslkitError: there is no such folder, or it holds no results.

    Warns:
        UserWarning: for each file that is left out because it is not a result.
    """
    store, found = stored_results(runs, lambda line: warnings.warn(line, stacklevel=4))
    asked = read_asked(store.root, lambda line: warnings.warn(line, stacklevel=4))
    return results_frame(found, store.attached, store.folder, asked.labels)


def stored_results(runs: str | Path, log: Callable[[str], None]) -> tuple[Store, list[dict[str, Any]]]:
    """Return the store of a folder and the results in it.

    Args:
        runs: folder of the results.
        log: called with a line for each file that is left out because it is not a result.

    Raises:
        CzslkitError: there is no such folder, or it holds no results.
    """
    store = Store(runs)
    if not store.root.is_dir():
        raise CzslkitError(f"no folder {store.root}; expected the folder of results that czslkit bench wrote")
    found = store.results()
    for problem in store.problems:
        log(f"left out: {printable(problem)}")
    if not found:
        raise CzslkitError(f"no results in {runs}; expected DATASET/METHOD/seedN-ID/WORLD.json from czslkit bench")
    return store, found


def results_frame(
    results: Sequence[Result],
    attached: Attached | None = None,
    folder: Folder | None = None,
    given: Mapping[Row, str] | None = None,
) -> DataFrame:
    """Arrange results as a tidy frame, one row for each result in the order given.

    Args:
        results: results as the store returns them.
        attached: returns the files of a result, as :meth:`Store.attached`; without it the frame has no intervals.
        folder: returns the folder of a cell, as :meth:`Store.folder`, in which resampled metrics are kept.
        given: the labels that users gave to rows, such as :attr:`~czslkit.report.asked.Asked.labels`.

    Returns:
        A frame with these columns, in this order:

        - ``method``, ``label`` (the row of the table), ``dataset``, ``world``, ``seed``, ``status`` (``done`` or
          ``failed``)
        - a column for each setting in which the results differ, such as ``train.lr`` or ``low_layers``, with plain
          Python values; NaN for a method without the setting. An option with the name of another column keeps its
          section, as in ``options.seed``.
        - each metric as a fraction, and the counts ``n_seen`` and ``n_unseen``; if a result has numbers per image, also
          the ends of the 95 % bootstrap interval of each metric, such as ``auc_low`` and ``auc_high``
        - the validation metrics of the epoch that was kept, such as ``val_auc``, and ``best_epoch``, its number from 1
        - ``train_s`` and ``eval_s``, seconds of training and evaluation
        - ``czslkit``, ``torch``, ``python``, ``device`` and the other versions
        - ``transductive``, whether the method adapts to the test images
        - ``error`` of a failed cell, and ``stale``, the reason why a kept result is stale

        Missing values are NaN or NA. Texts have dtype ``string``, numbers ``float64``, ``seed`` ``int64``,
        ``best_epoch`` ``Int64`` and settings ``object``.

    >>> cell = {"method": "csp", "dataset": "demo", "world": "closed", "seed": 0, "config_id": "a"}
    >>> frame = results_frame([{"cell": cell, "status": "done", "metrics": {"auc": 0.4}}])
    >>> frame[["label", "seed", "auc"]].values.tolist()
    [['csp', 0, 0.4]]
    """
    resamples = [resampled_result(result, attached, folder) for result in results]
    return cells_frame(results, resamples, row_labels(results, given))


def cells_frame(
    results: Sequence[Result],
    resamples: Sequence[Resamples | CzslkitError | None],
    labels: Sequence[str] | None = None,
) -> DataFrame:
    """Return the frame of :func:`results_frame`.

    Args:
        results: as for :func:`results_frame`.
        resamples: the return value of :func:`resampled_result` for each result.
        labels: the label of the row of each result; None for those of :func:`~czslkit.report.labels.row_labels`.
    """
    import pandas as pd

    cells = [result["cell"] for result in results]
    first = {
        "method": _texts(cell["method"] for cell in cells),
        "label": _texts(row_labels(results) if labels is None else labels),
        "dataset": _texts(cell["dataset"] for cell in cells),
        "world": _texts(cell["world"] for cell in cells),
        "seed": pd.Series([cell["seed"] for cell in cells], dtype="int64"),
        "status": _texts(result["status"] for result in results),
    }
    last = _metric_columns(results, resamples)
    for columns in (_training_columns(results), _timing_columns(results), _version_columns(results)):
        last |= {name: column for name, column in columns.items() if name not in last}
    last |= {
        "transductive": pd.Series(transductive(results), dtype="bool"),
        "error": _texts(_error_text(result) for result in results),
        "stale": _texts(result.get("stale") for result in results),
    }
    return pd.DataFrame({**first, **_setting_columns(results, {*first, *last}), **last})


def metric_names(results: Sequence[Result]) -> list[str]:
    """Return the metrics that papers print and every other metric of finished results, in the order of the columns."""
    return list(dict.fromkeys([*METRICS.values(), *(name for result in results for name in _metrics(result))]))


def setting_names(frame: DataFrame) -> list[str]:
    """Return the columns of a frame that are settings: the columns between ``status`` and the first metric."""
    columns = list(frame.columns)
    return columns[columns.index("status") + 1 : columns.index(next(iter(METRICS.values())))]


def _setting_columns(results: Sequence[Result], taken: Iterable[str]) -> dict[str, Series[Any]]:
    import pandas as pd

    configs = [flatten(result.get("config") or {}) for result in results]
    columns = {}
    for key in differing_settings(results):
        values = [json.loads(config[key]) if key in config else float("nan") for config in configs]
        name = setting_name(key)
        columns[key if name in taken else name] = pd.Series(values, dtype="object")
    return columns


def _metric_columns(
    results: Sequence[Result], resamples: Sequence[Resamples | CzslkitError | None]
) -> dict[str, Series[Any]]:
    intervals = [found.intervals if isinstance(found, Resamples) else {} for found in resamples]
    resampled = {metric for result_intervals in intervals for metric in result_intervals}
    columns = {}
    for metric in metric_names(results):
        columns[metric] = _numbers(_metrics(result).get(metric) for result in results)
        if metric in resampled:
            ends = [result_intervals.get(metric, (None, None)) for result_intervals in intervals]
            columns[f"{metric}_low"] = _numbers(low for low, _ in ends)
            columns[f"{metric}_high"] = _numbers(high for _, high in ends)
    return columns


def _training_columns(results: Sequence[Result]) -> dict[str, Series[Any]]:
    """Return the columns of the validation metrics of the best epoch, and last ``best_epoch``."""
    import pandas as pd

    trainings = [result.get("training") or {} for result in results]
    epochs = [training.get("best_epoch") for training in trainings]
    kept = [
        training["history"][epoch - 1] if epoch and epoch <= len(training.get("history") or ()) else {}
        for training, epoch in zip(trainings, epochs, strict=True)
    ]
    names = dict.fromkeys(name for epoch in kept for name in epoch if name.startswith("val_"))
    validation = {name: _numbers(epoch.get(name) for epoch in kept) for name in names}
    return {**validation, "best_epoch": pd.Series(epochs, dtype="Int64")}


def _timing_columns(results: Sequence[Result]) -> dict[str, Series[Any]]:
    timings = [result.get("timing") or {} for result in results]
    names = dict.fromkeys([*_TIMINGS, *(name for timing in timings for name in timing)])
    return {name: _numbers(timing.get(name) for timing in timings) for name in names}


def _version_columns(results: Sequence[Result]) -> dict[str, Series[Any]]:
    versions = [result.get("versions") or {} for result in results]
    names = dict.fromkeys([*_VERSIONS, *(name for found in versions for name in found)])
    return {name: _texts(found.get(name) for found in versions) for name in names}


def _metrics(result: Result) -> Mapping[str, float | None]:
    if result["status"] != "done":
        return {}
    return defined_metrics(result.get("metrics") or {}, str((result.get("protocol") or {}).get("bins")))


def _error_text(result: Result) -> str | None:
    error = result.get("error")
    return f"{error['type']}: {error['message']}" if error else None


def _numbers(values: Iterable[float | None]) -> Series[Any]:
    import pandas as pd

    return pd.Series(list(values), dtype="float64")


def _texts(values: Iterable[str | None]) -> Series[Any]:
    import pandas as pd

    return pd.Series(list(values), dtype="string")
