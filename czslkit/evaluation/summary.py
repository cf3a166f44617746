"""An evaluation in print: both curves, at every threshold asked for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from ..errors import ConfigError
from ..metrics.metrics import Metrics
from ..metrics.sweep import Bins, Infeasible, Sweep
from ..types import PairSpace
from .score_file import Labels, ScoreFile, fill

_CURVES = {"original": "original (about 20 biases, in float32)", "exact": "exact (every breakpoint)"}


@dataclass(frozen=True)
class Row:
    """One set of candidates."""

    threshold: float | None  # None where none was asked for
    candidates: int  # pairs that reach it, seen ones included
    by_bins: dict[Bins, Metrics]


@dataclass(frozen=True)
class Summary:
    """What is printed of a sweep."""

    rows: Sequence[Row]
    bins: Bins  # the curve that S, U, H and the bias are of
    facts: dict[str, Any]  # how the numbers came about, for JSON
    notes: Sequence[str] = ()  # a sentence each

    def numbers(self) -> list[dict[str, Any]]:
        """Every number of each row, fractions of one, under the names of :class:`Metrics`."""
        return [
            {
                "threshold": row.threshold,
                "candidates": row.candidates,
                **row.by_bins[self.bins].to_dict(),
                **{f"auc_{bins}": metrics.auc for bins, metrics in row.by_bins.items()},
            }
            for row in self.rows
        ]

    def render(self, kind: str) -> str:
        """As ``text``, ``markdown``, ``csv`` or ``json``."""
        rendered: str = getattr(self, f"to_{kind}")()
        return rendered

    def to_text(self) -> str:
        return "\n".join([self._table("plain"), "", *self.caption()]) + "\n"

    def to_markdown(self) -> str:
        return "\n".join([self._table("github"), "", " ".join(self.caption())]) + "\n"

    def to_csv(self) -> str:
        """A line for each threshold; what is nested spreads over ``at_zero.attr`` and so on."""
        rows = [_flat({**self.facts, **numbers}) for numbers in self.numbers()]
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def to_json(self) -> str:
        """Strict JSON; an infinite bias is ``"inf"`` or ``"-inf"``."""
        return json.dumps({**self.facts, "results": self.numbers()}, indent=1, allow_nan=False) + "\n"

    def caption(self) -> list[str]:
        """What the numbers are, a sentence each."""
        one = self.rows[0].by_bins[self.bins]
        other = next(bins for bins in _CURVES if bins != self.bins)
        return [
            f"{one.n_seen} images of seen pairs, {one.n_unseen} of unseen ones. Percentages, but for the bias.",
            f"S, U, H: best seen, unseen and harmonic-mean accuracy along the {_CURVES[self.bins]} curve.",
            f"AUC: the area under that curve, and under the {_CURVES[other]} one.",
            "attr, obj: accuracy of the parts of the predicted pair, at bias 0.",
            *self.notes,
        ]

    def _table(self, kind: str) -> str:
        rows = []
        for row in self.rows:
            shown = row.by_bins[self.bins]
            percent = {"S": shown.best_seen, "U": shown.best_unseen, "H": shown.best_hm}
            percent |= {f"AUC {bins}": metrics.auc for bins, metrics in row.by_bins.items()}
            percent |= {"attr": shown.attr_acc, "obj": shown.obj_acc}
            at = {} if row.threshold is None else {"threshold": f"{row.threshold:.6g}"}
            numbers = {name: f"{100 * value:.2f}" for name, value in percent.items()}
            rows.append(at | {"candidates": str(row.candidates)} | numbers | {"bias of H": f"{shown.hm_bias:.4g}"})
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
    """Evaluate scores on disk, in one pass over them.

    Args:
        space: what the ``K`` columns stand for, in order.
        labels: attribute and object of each image, ``[N]`` each.
        candidates: ``[K]`` bool, what may be predicted; everything if None.
        feasibility: ``[K]`` float, together with ``thresholds``; a row of the summary for each of these.
        files: what everything was read from, to be told.

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
    allowed = torch.ones_like(space.seen) if candidates is None else candidates
    reached = torch.zeros(len(allowed)) if feasibility is None else feasibility.float()
    curves: tuple[Bins, ...] = (bins, "exact" if bins == "original" else "original")
    found = {kind: sweep.compute_all(kind) for kind in curves}
    rows = []
    for i, threshold in enumerate([None] if thresholds is None else thresholds):
        # In float32, as the sweep compares them.
        line = torch.tensor(-torch.inf if threshold is None else threshold, dtype=torch.float32)
        count = int((allowed & (space.seen | (reached >= line))).sum())
        rows.append(Row(threshold, count, {kind: found[kind][i] for kind in curves}))
    facts: dict[str, Any] = {
        "files": {"scores": str(scores.path), **(files or {})},
        "columns": len(allowed),
        "seen_columns": int(space.seen.sum()),
        **options,
    }
    if thresholds is None:
        facts["infeasible"] = None
    unreachable = int((~allowed[sweep.candidates.find(*labels)]).sum())
    multiplied = thresholds is not None and infeasible == "original"
    return Summary(rows, bins, facts, _notes(unreachable, topk, multiplied))


def _notes(unreachable: int, topk: int, multiplied: bool) -> list[str]:
    notes = []
    if topk > 1:
        notes.append(f"Right is what is among the best {topk}.")
    if unreachable:
        notes.append(f"{unreachable} images show a pair that is no candidate, and are never right.")
    if multiplied:
        notes.append(
            "Unseen pairs below a threshold have score 0, and seen pairs twice theirs at thresholds up to 0, "
            "as in the original evaluator."
        )
    return notes


def _flat(numbers: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in numbers.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat
