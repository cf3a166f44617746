"""Numbers of czslkit, compared with the output of the original evaluator; its nan for no images is 0 here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from czslkit.metrics.feasibility import best_threshold, threshold_grid
from czslkit.metrics.sweep import Metrics, Sweep, evaluate

RECORDED = Path(__file__).parent / "recorded"
CLOSED = sorted(path.stem for path in RECORDED.glob("*_s[0-9].json") if not path.stem.startswith("ow_"))
SLOW = pytest.param("mit_s1", marks=pytest.mark.slow)
OPEN = sorted(path.stem for path in RECORDED.glob("ow_*.json"))
MICRO = sorted(path.stem for path in RECORDED.glob("micro_*.json"))
closed = pytest.mark.parametrize("name", [SLOW if name == "mit_s1" else name for name in CLOSED])


def number(recorded: float | str) -> float:
    return 0.0 if recorded == "nan" else float(recorded)


def original_stats(metrics: Metrics) -> dict[str, float]:
    """Return the metrics under the names of the original evaluator, without its constant ``*_ca`` entries."""
    stats = {
        "AUC": metrics.auc,
        "best_seen": metrics.best_seen,
        "best_unseen": metrics.best_unseen,
        "best_hm": metrics.best_hm,
        "hm_seen": metrics.hm_seen,
        "hm_unseen": metrics.hm_unseen,
        "biasterm": metrics.hm_bias,
        "attr_acc": metrics.attr_acc,
        "obj_acc": metrics.obj_acc,
    }
    for prefix, at in (("closed", metrics.at_limit), ("closed_ub", metrics.at_zero)):
        stats |= {f"{prefix}_{kind}_match": getattr(at, kind) for kind in ("attr", "obj", "seen", "unseen")}
        stats[f"{prefix}_match"] = at.pair
    return stats


def assert_same(found: dict[str, float], recorded: dict[str, Any]) -> None:
    assert {k: found[k] for k in recorded} == pytest.approx({k: number(v) for k, v in recorded.items()}, abs=1e-6)


@closed
def test_the_original_curve_is_the_recorded_one_for_every_topk(recorded: Any, name: str) -> None:
    case = recorded(name)
    (split,) = case.splits.values()
    for topk, run in case.record["runs"].items():
        metrics = evaluate(*split.images, case.pairs, case.seen, split.candidates, topk=int(topk), bins="original")
        assert_same(original_stats(metrics), run["stats"])
        assert metrics.curve.biases[:-1].tolist() == run["biases"]
        assert metrics.curve.seen.tolist() == [number(v) for v in run["seen"]]
        assert metrics.curve.unseen.tolist() == [number(v) for v in run["unseen"]]


@closed
def test_the_exact_curve_is_that_of_an_independent_program(recorded: Any, name: str) -> None:
    case = recorded(name)
    (split,) = case.splits.values()
    metrics = evaluate(*split.images, case.pairs, case.seen, split.candidates)
    exact = {k: v for k, v in case.record["exact"].items() if v != "nan"}
    assert {k: getattr(metrics, k) for k in exact} == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("name", OPEN)
def test_a_threshold_search_finds_the_recorded_numbers(recorded: Any, name: str) -> None:
    case = recorded(name)
    record = case.record
    grid = threshold_grid(case.feasibility, case.seen)
    assert list(grid) == record["grid"]
    kept = [int((case.feasibility[~case.seen] >= np.float32(t)).sum()) for t in grid]
    # The record counts candidates by feasibility alone, which the seen pairs hold as 0.
    kept = [n + int(case.seen.sum()) * (t <= 0) for n, t in zip(kept, grid, strict=True)]
    assert kept == [row[-1] for row in record["per_threshold"]]

    def sweep(split: str, thresholds: Any) -> Sweep:
        sweep = Sweep(case.pairs, case.seen, None, case.feasibility, thresholds, bins="original", infeasible="original")
        sweep.update(*case.splits[split].images)
        return sweep

    found = sweep("val", grid).compute_all()
    names = ("auc", "best_hm", "best_seen", "best_unseen", "attr_acc", "obj_acc")
    numbers = np.array([[getattr(m, name) for name in names] for m in found])
    assert numbers == pytest.approx(np.array(record["per_threshold"])[:, :-1], abs=1e-6)
    best = best_threshold(grid, found)
    assert best == record["best_threshold"]
    (test,) = sweep("test", [best]).compute_all()
    assert_same(original_stats(test), record["test"])
    assert test.curve.biases[:-1].tolist() == record["test_biases"]
    everything = evaluate(*case.splits["test"].images, case.pairs, case.seen, bins="original")
    assert_same(original_stats(everything), record["test_without_threshold"])


@pytest.mark.parametrize("name", MICRO)
def test_a_handful_of_scores_gives_the_recorded_numbers(name: str) -> None:
    record = json.loads((RECORDED / f"{name}.json").read_text())
    attr, obj = np.array(record["truth"]).T
    scores = np.array(record["scores"], dtype=np.float32)
    inputs = (scores, attr, obj, record["pairs"], record["seen"], record["candidates"])
    original, exact = evaluate(*inputs, bins="original"), evaluate(*inputs)
    assert_same(original_stats(original), record["stats"])
    assert original.curve.biases[:-1].tolist() == record["biases"]
    assert {k: getattr(exact, k) for k in record["exact"]} == pytest.approx(record["exact"], abs=1e-12)
