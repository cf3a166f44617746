"""The record of a finished or failed cell: its metrics, and the protocol of the measurement."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..data.splits import Splits
from ..evaluation.feasibility_source import FeasibilityScores
from ..method import Method
from ..metrics.names import defined_metrics
from ..metrics.score_columns import UNUSED
from ..metrics.sweep import Metrics, Sweep
from ..precision import precision_record
from ..provenance import environment
from .plan import Spec

Results = dict[str, dict[str, Any]]  # contents of results by world
#: Value of ``train.select`` -> the criterion in words.
SELECTED_BY = {"auc": "validation AUC, {world} world", "loss": "validation loss", "last": "the last epoch"}


@dataclass(frozen=True, eq=False)
class FeasibilityThreshold:
    """The threshold that an unseen pair's feasibility has to reach in the open world."""

    value: float
    origin: str  # "given", "published" or "searched on validation"
    scores: FeasibilityScores
    bias: float | None = None  # the best one on the validation split, if the threshold was searched there


def metrics_record(sweep: Sweep, bins: str) -> dict[str, float | None]:
    """Return the metrics of an evaluation on the curve ``bins``, and the AUC of both curves; None if undefined."""
    by_bins: dict[str, Metrics] = {kind: sweep.compute_all(kind)[0] for kind in ("original", "exact")}
    names = ("auc", "best_seen", "best_unseen", "best_hm", "attr_acc", "obj_acc", "n_seen", "n_unseen")
    areas = {f"auc_{kind}": found.auc for kind, found in by_bins.items()}
    return defined_metrics({name: getattr(by_bins[bins], name) for name in names} | areas, bins)


def protocol_record(
    sweep: Sweep, world: str, spec: Spec, data: Splits, threshold: FeasibilityThreshold | None = None
) -> dict[str, Any]:
    """Return the settings and the data of a measurement; results of different protocols are not compared.

    Args:
        threshold: the threshold of the open world; None if every pair is a candidate.
    """
    candidates = sweep.candidates.group != UNUSED
    selected_by = SELECTED_BY[spec.train.select].format(world=spec.train.select_world)
    if reason := spec.undefined_criterion(data):
        selected_by = f"validation accuracy, {spec.train.select_world} world, since the AUC is undefined: {reason}"
    space = data.space
    words = (f"{space.attrs[a]} {space.objs[o]}\n" for a, o in sweep.candidates.pairs[candidates].tolist())
    biases = sweep.compute_all("original")[0].curve.biases.tolist()
    protocol = {
        "bins": spec.evaluation.bins,
        "biases": biases if spec.evaluation.bins == "original" else "every breakpoint",
        "split": "test",
        "columns": len(candidates),
        "candidates": int(candidates.sum()),
        "candidates_sha256": hashlib.sha256("".join(words).encode()).hexdigest(),
        "threshold": None,
        "selected_by": "a checkpoint" if spec.checkpoint else selected_by,
    }
    if world == "closed" or spec.evaluation.threshold is None:
        return protocol
    if threshold is None:
        return protocol | {"feasibility": f"missing: feasibility_{spec.dataset}.pt"}
    return protocol | {
        "threshold": threshold.value,
        "threshold_from": threshold.origin,
        "feasibility": threshold.scores.source,
        "feasibility_sha256": threshold.scores.digest,
        "infeasible": spec.evaluation.infeasible,
    }


def method_record(method: Method, spec: Spec) -> dict[str, Any]:
    """Return the entries of the protocol that only some measurements have.

    They are the number formats other than fp32, the repository and commit of a downloaded checkpoint, and what methods
    add that adapt to the test images, or mask pairs themselves.
    """
    trained: Mapping[str, Any] = {} if spec.checkpoint or not method.trains else {"train": spec.train.precision}
    precision = precision_record(**trained, eval=spec.evaluation.precision)
    record: dict[str, Any] = {"precision": precision} if precision else {}
    if spec.checkpoint and spec.checkpoint.origin:
        record["checkpoint"] = spec.checkpoint.origin
    if method.streams:
        record["transductive"] = {"images": "one by one", "stream_seed": spec.evaluation.stream_seed}
    if method.masks_pairs:
        record["masks_pairs"] = method.masks_pairs
    return record


def threshold_summary(protocol: Mapping[str, Any]) -> str:
    """Return a sentence with the threshold of the open world and the number of candidates."""
    candidates = f"{protocol['candidates']} of {protocol['columns']} pairs are candidates"
    return f"open world: threshold {protocol['threshold']:.4g}, {protocol['threshold_from']}: {candidates}"


def failure(error: Exception) -> dict[str, Any]:
    """Return the content of a failed result: the error, and no numbers."""
    return {
        "status": "failed",
        "error": {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        },
        "protocol": {},
        "metrics": {},
        "training": None,
        "timing": None,
        "versions": environment("unknown"),
        "finished": now(),
    }


def now() -> str:
    """Return the current time in UTC, in whole seconds."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
