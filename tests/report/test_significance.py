"""Intervals and comparisons, compared with an evaluation of every single resample."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from czslkit.errors import CzslkitError
from czslkit.metrics import bootstrap
from czslkit.metrics.bootstrap import METRIC_NAMES, intervals, resample_counts
from czslkit.metrics.curves import image_outcomes
from czslkit.metrics.sweep import Metrics, Sweep, evaluate
from czslkit.report.arrangement import arrange
from czslkit.report.frame import cells_frame, metric_names
from czslkit.report.resamples import Attached, Resamples, resampled_result
from czslkit.report.significance import Significance, significance

PAIRS = torch.cartesian_prod(torch.arange(2), torch.arange(3))
SEEN = torch.tensor([True, False, True, False, True, False])
N = 40


class Runs:
    """Results of made-up methods on the same 40 images, and their attached files.

    Rows with equally long names have the same noise.
    """

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []
        self.files: dict[int, bytes] = {}
        self.scores: dict[tuple[str, int], torch.Tensor] = {}
        self.target = torch.randint(0, 6, (N,), generator=torch.Generator().manual_seed(9))

    def add(self, row: str, skill: float, seed: int = 0, *, bins: str = "exact", data: str = "d", **cell: Any) -> None:
        noise = torch.Generator().manual_seed(100 * seed + len(row))
        scores = torch.randn(N, 6, generator=noise)
        scores[torch.arange(N), self.target] += skill
        sweep = Sweep(PAIRS, SEEN)
        sweep.update(scores, *PAIRS[self.target].unbind(1))
        (metrics,) = sweep.compute_all(bins)  # type: ignore[arg-type]
        self.scores[row, seed] = scores
        self.results.append(
            {
                "cell": {
                    "method": row,
                    "dataset": "toys",
                    "world": "closed",
                    "seed": seed,
                    "config_id": "a",
                    **cell,
                },
                "status": "done",
                "protocol": {"bins": bins},
                "depends": {"data": {"test": data}},
                "metrics": {name: getattr(metrics, name) for name in METRIC_NAMES},
            }
        )
        self.files[id(self.results[-1])] = image_outcomes(sweep.top_scores()[0], PAIRS).to_bytes()

    def attached(self, result: Mapping[str, Any], name: str) -> bytes | None:
        return self.files.get(id(result)) if name == "images.npz" else None

    def found(self, attached: Attached | None = None) -> Significance:
        resamples = [resampled_result(result, attached or self.attached) for result in self.results]
        return significance(arrange(cells_frame(self.results, resamples), metric_names(self.results)), resamples)

    def evaluate(self, row: str, seed: int, images: Any) -> Metrics:
        return evaluate(self.scores[row, seed][images], *PAIRS[self.target[images]].unbind(1), PAIRS, SEEN)


@pytest.fixture
def runs() -> Runs:
    return Runs()


def key(row: str, world: str = "closed") -> tuple[str, str, str]:
    return row, "toys", world


def test_intervals_and_gaps_are_those_of_resamples_evaluated_one_by_one(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds of one method are compared with one seed of another, as means over seeds on the same resample."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 100)
    runs.add("good", 2.0, 0)
    runs.add("good", 1.5, 1)
    runs.add("fair", 1.4)
    found = runs.found()
    weights = np.hstack(list(resample_counts(N, 100)))
    by_row: dict[str, Any] = {"good": [], "fair": []}
    for r in range(100):
        images = np.repeat(np.arange(N), weights[:, r])
        for row, seeds in (("good", (0, 1)), ("fair", (0,))):
            of_seeds = [runs.evaluate(row, seed, images) for seed in seeds]
            by_row[row].append({name: np.mean([getattr(m, name) for m in of_seeds]) for name in METRIC_NAMES})
    for name in METRIC_NAMES:
        good, fair = (np.array([values[name] for values in by_row[row]]) for row in ("good", "fair"))
        assert found.interval(key("good"), name) == pytest.approx(intervals([good])[0])
        gap = found.differences[key("fair")][name]
        assert gap.best == "good"
        assert (gap.low, gap.high) == pytest.approx(intervals([fair - good])[0], abs=1e-9)
        assert gap.below == pytest.approx(np.mean(fair - good < -1e-12), abs=0.01)
        assert found.tied(key("fair"), name) == (gap.low <= 0 <= gap.high)
        means = [np.mean([r["metrics"][name] for r in runs.results if r["cell"]["method"] == row]) for row in by_row]
        assert gap.difference == pytest.approx(means[1] - means[0])
    assert key("good") not in found.differences


def test_a_clearly_worse_entry_is_not_tied_and_a_twin_is(runs: Runs) -> None:
    runs.add("good", 3.0)
    runs.add("twin", 3.0)
    runs.add("poor", 0.2)
    found = runs.found()
    assert found.tied(key("poor"), "auc") is False
    assert found.differences[key("poor")]["auc"].below == 1
    assert found.tied(key("good"), "auc") is None
    assert found.tied(key("twin"), "auc") is True  # of equal ones the first is the best
    assert found.differences[key("twin")]["auc"].low == 0
    assert found.notes == ()


def test_the_interval_of_a_mean_over_seeds_is_narrower_than_the_widest_of_a_seed(runs: Runs) -> None:
    runs.add("good", 2.0, 0)
    runs.add("good", 1.0, 1)
    resamples = [resampled_result(result, runs.attached) for result in runs.results]
    one, other = (found.intervals["auc"] for found in resamples if isinstance(found, Resamples))
    low, high = runs.found().intervals[key("good")]["auc"]
    assert one != other
    assert high - low < max(end - start for start, end in (one, other))


def test_worlds_are_columns_of_their_own(runs: Runs) -> None:
    runs.add("good", 2.0)
    runs.add("fair", 1.0, world="open")
    found = runs.found()
    assert set(found.intervals) == {key("good"), key("fair", "open")}
    assert not found.differences


def test_results_without_numbers_per_image_are_left_alone(runs: Runs) -> None:
    runs.add("good", 2.0)
    runs.add("fair", 1.0)
    runs.files.clear()
    assert runs.found() == Significance()
    assert runs.found().caption(True, METRIC_NAMES) == []


def test_an_entry_without_numbers_per_image_is_named_if_others_have_them(runs: Runs) -> None:
    for row, skill in (("good", 2.0), ("fair", 1.0), ("none", 0.1)):
        runs.add(row, skill)
    del runs.files[id(runs.results[2])]
    found = runs.found()
    assert found.notes == ("none on toys (closed) is not compared with the best: there are no numbers per image",)
    assert set(found.differences) == {key("fair")}
    assert found.tied(key("none"), "auc") is None


def test_nothing_is_compared_with_a_best_that_has_no_numbers_per_image(runs: Runs) -> None:
    for row, skill in (("good", 4.0), ("fair", 1.0), ("poor", 0.1)):
        runs.add(row, skill)
    del runs.files[id(runs.results[0])]
    found = runs.found()
    assert not found.differences
    assert set(found.intervals) == {key("fair"), key("poor")}


def test_a_seed_without_numbers_per_image_takes_its_entry_out(runs: Runs) -> None:
    runs.add("good", 2.0, 0)
    runs.add("good", 2.0, 1)
    runs.add("fair", 1.0)
    del runs.files[id(runs.results[1])]
    found = runs.found()
    assert set(found.intervals) == {key("fair")}
    assert found.notes == ("good on toys (closed) is not compared with the best: there are no numbers per image",)


@pytest.mark.parametrize("other", [{"data": "other"}, {"bins": "original"}])
def test_other_data_and_other_curves_are_not_compared(runs: Runs, other: dict[str, str]) -> None:
    runs.add("good", 3.0)
    runs.add("fair", 1.0, **other)  # type: ignore[arg-type]
    found = runs.found()
    assert not found.differences
    assert found.notes == (
        "fair on toys (closed) is not compared with the best: good was measured on other images, or with another curve",
    )
    assert set(found.intervals) == {key("good"), key("fair")}


def test_other_images_are_not_compared(runs: Runs) -> None:
    runs.add("good", 3.0)
    runs.target = runs.target.flip(0)
    runs.add("fair", 1.0)
    assert not runs.found().differences
    assert (
        "fair on toys (closed) is not compared with the best: good was measured on other images"
        in runs.found().notes[0]
    )


def test_seeds_measured_on_other_images_have_no_mean(runs: Runs) -> None:
    runs.add("good", 3.0, 0)
    runs.target = runs.target.flip(0)
    runs.add("good", 3.0, 1)
    found = runs.found()
    assert not found.intervals
    assert found.notes == (
        "good on toys (closed) is not compared with the best: seed 1 was measured on other images than seed 0",
    )


def test_a_file_that_cannot_be_used_is_named(runs: Runs) -> None:
    runs.add("good", 3.0)
    runs.files[id(runs.results[0])] = b"torn"
    assert (
        runs.found()
        .notes[0]
        .startswith(
            "good on toys (closed) is not compared with the best: seed 0: images.npz: holds no numbers per image"
        )
    )

    def gone(result: Any, name: str) -> bytes:
        raise CzslkitError("x/closed.images.npz cannot be read: No such file")

    assert runs.found(gone).notes == (
        "good on toys (closed) is not compared with the best: x/closed.images.npz cannot be read: No such file",
    )


def test_failed_results_do_not_count(runs: Runs) -> None:
    runs.add("good", 3.0)
    runs.add("fair", 1.0)
    runs.results[1] |= {"status": "failed", "metrics": {}}
    found = runs.found()
    assert set(found.intervals) == {key("good")} and not found.differences and not found.notes


@pytest.mark.parametrize(("skill", "end"), [(0.0, " No number is marked here."), (2.9, "multiple comparisons).")])
def test_the_caption_says_what_the_mark_means(runs: Runs, skill: float, end: str) -> None:
    runs.add("good", 4.0)
    runs.add("rival", skill)
    (said,) = runs.found().caption(False, ["auc"])
    assert said.startswith(
        "~ marks numbers that are not significantly below the best of their column: the 95% interval"
    )
    assert said.endswith(end)
    first, _ = runs.found().caption(True, ["auc"])
    assert first == "[low, high] is the 95% bootstrap interval from 1000 resamples of the test images."


def test_numpy_is_imported_only_if_there_are_numbers_to_resample() -> None:
    program = (
        "import sys; from czslkit.report.significance import significance; from czslkit.report.resamples import "
        "resampled_result; assert resampled_result({'status': 'failed'}, lambda *a: b'') is None;"
        "assert not {'numpy', 'pandas', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
