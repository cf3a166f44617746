"""The evaluation of a score file, and a summary of the numbers as a text, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate
from torch import Tensor

from ..csv_cells import csv_cell
from ..errors import ConfigError
from ..metrics.metrics import Metrics
from ..metrics.names import METRICS, defined_metrics
from ..metrics.sweep import Bins, Infeasible, Sweep
from ..types import PairSpace
from .score_file import ScoreFile, fill
from .score_labels import Labels

_CURVE_NAMES = {"original": "original (about 20 biases, in float32)", "exact": "exact (every breakpoint)"}


@dataclass(frozen=True)
class Row:
    """The metrics of one set of candidates."""

    threshold: float | None  # None if no thresholds were given
    candidates: int  # number of candidates, seen pairs included
    by_bins: dict[Bins, Metrics]  # metrics by curve; the main curve comes first


@dataclass(frozen=True)
class Summary:
    """The metrics of a score file, with one row for each set of candidates, and the settings of the evaluation."""

    rows: Sequence[Row]
    bins: Bins  # main curve, from which S, U, H and the bias are taken
    settings: dict[str, Any]  # files and options of the evaluation, for CSV and JSON
    notes: Sequence[str] = ()  # sentences for the caption

    def numbers(self) -> list[dict[str, Any]]:
        """Return every number of each row under the names of :class:`Metrics`; accuracies are in [0, 1].

        Undefined metrics are None.
        """
        return [
            defined_metrics(
                {
                    "threshold": row.threshold,
                    "candidates": row.candidates,
                    **row.by_bins[self.bins].to_dict(),
                    **{f"auc_{bins}": metrics.auc for bins, metrics in row.by_bins.items()},
                },
                self.bins,
            )
            for row in self.rows
        ]

    def render(self, kind: str) -> str:
        """Return the summary as ``text``, ``markdown``, ``csv`` or ``json``."""
        rendered: str = getattr(self, f"to_{kind}")()
        return rendered

    def to_text(self) -> str:
        """Return a plain table in percent, with a caption."""
        return "\n".join([self._table("plain"), "", *self.caption()]) + "\n"

    def to_markdown(self) -> str:
        """Return a Markdown table in percent, with a caption."""
        return "\n".join([self._table("github"), "", " ".join(self.caption())]) + "\n"

    def to_csv(self) -> str:
        """Return CSV with a line for each threshold; nested values become columns such as ``at_zero.attr``."""
        rows = [_flatten({**self.settings, **numbers}) for numbers in self.numbers()]
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writerow({name: csv_cell(name) for name in rows[0]})
        writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
        return out.getvalue()

    def to_json(self) -> str:
        """Return strict JSON; an infinite bias is ``"inf"`` or ``"-inf"``."""
        return json.dumps({**self.settings, "results": self.numbers()}, indent=1, allow_nan=False) + "\n"

    def caption(self) -> list[str]:
        """Return sentences that explain the numbers."""
        first = self.rows[0].by_bins[self.bins]
        other = next(bins for bins in _CURVE_NAMES if bins != self.bins)
        return [
            f"{first.n_seen} images of seen pairs, {first.n_unseen} images of unseen pairs.",
            "All numbers but the bias are percentages.",
            f"S, U, H: best seen, unseen and harmonic-mean accuracy along the {_CURVE_NAMES[self.bins]} curve.",
            f"AUC: the area under that curve, and under the {_CURVE_NAMES[other]} curve.",
            "attr, obj: accuracy of the attribute and of the object of the predicted pair, at bias 0.",
            *(f"A dash marks undefined numbers: {reason}." for reason in dict.fromkeys(first.undefined.values())),
            *self.notes,
        ]

    def _table(self, kind: str) -> str:
        """Return the table in a format of tabulate."""
        rows = []
        for row in self.rows:
            main = row.by_bins[self.bins]
            percent = {"S": main.best_seen, "U": main.best_unseen, "H": main.best_hm}
            percent |= {f"AUC {bins}": metrics.auc for bins, metrics in row.by_bins.items()}
            percent |= {"attr": main.attr_acc, "obj": main.obj_acc}
            threshold = {} if row.threshold is None else {"threshold": f"{row.threshold:.6g}"}
            cells = threshold | {"candidates": str(row.candidates)}
            cells |= {name: f"{100 * value:.2f}" for name, value in percent.items()}
            cells |= {"bias of H": f"{main.hm_bias:.4g}"}
            metric_of = {**METRICS, "AUC original": "auc", "AUC exact": "auc", "bias of H": "hm_bias"}
            rows.append({n: "-" if metric_of.get(n) in main.undefined else cell for n, cell in cells.items()})
        align = ["right"] * len(rows[0])
        return tabulate(rows, headers="keys", tablefmt=kind, disable_numparse=True, colalign=align)


def summarise(
    scores: ScoreFile,
    space: PairSpace,
    labels: Labels,
    candidates: Tensor | None = None,
    feasibility: Tensor | None = None,
    thresholds: Sequence[float] | None = None,
    *,
    topk: int = 1,
    bins: Bins = "original",
    infeasible: Infeasible = "exclude",
    files: Mapping[str, str] | None = None,
) -> Summary:
    """Evaluate a score file in one pass and return the summary.

    Args:
        scores: the score file.
        space: the label space; its pairs are the ``K`` columns of the scores, in order.
        labels: attribute and object of each image, ``[N]`` each.
        candidates: ``[K]`` bool, which pairs may be predicted; all of them if None.
        feasibility: ``[K]`` float; required with ``thresholds``.
        thresholds: feasibility thresholds; the summary has a row for each.
        topk: an image is right if its true pair is among this many best candidates.
        bins: the main curve of the summary; the summary has the AUC of both curves.
        infeasible: see :class:`Sweep`.
        files: paths of the other input files by role, for :attr:`Summary.settings`.

    Raises:
        ConfigError: scores, columns and labels do not belong together, or no pair is a candidate.
        DataError: the file is damaged, or has a score that is not finite.
    """
    options: dict[str, Any] = {"topk": topk, "bins": bins, "infeasible": infeasible}
    try:
        sweep = Sweep(space.pairs, space.seen, candidates, feasibility, thresholds, **options)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    fill(sweep, scores, labels)
    curves: tuple[Bins, ...] = (bins, "exact" if bins == "original" else "original")
    found = {curve: sweep.compute_all(curve) for curve in curves}
    counts = sweep.candidates.counts()
    rows = [
        Row(threshold, counts[i], {curve: found[curve][i] for curve in curves})
        for i, threshold in enumerate([None] if thresholds is None else thresholds)
    ]
    settings: dict[str, Any] = {
        "files": {"scores": str(scores.path), **(files or {})},
        "columns": len(sweep.candidates),
        "seen_columns": int(space.seen.sum()),
        **options,
    }
    if thresholds is None:
        settings["infeasible"] = None
    masked = ~sweep.candidates.mask[sweep.candidates.find(*labels)]  # [N], whether the true pair is no candidate
    multiplied = thresholds is not None and infeasible == "original"
    return Summary(rows, bins, settings, _notes(int(masked.sum()), topk, multiplied))


def _notes(masked: int, topk: int, multiplied: bool) -> list[str]:
    """Return sentences about unusual settings.

    Args:
        masked: number of images whose true pair is no candidate.
        topk: number of predictions per image.
        multiplied: whether scores were multiplied as in the original evaluator.
    """
    notes = []
    if topk > 1:
        notes.append(f"An image is right if its pair is among the best {topk}.")
    if masked:
        notes.append(f"{masked} images show a pair that is no candidate, and are never right.")
    if multiplied:
        notes.append(
            "As in the original evaluator, unseen pairs below a threshold have score 0, "
            "and scores of seen pairs count twice at thresholds up to 0."
        )
    return notes


def _flatten(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return a dict whose nested dicts are replaced by entries such as ``outer.inner``."""
    flat: dict[str, Any] = {}
    for name, value in numbers.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat
