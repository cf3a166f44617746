"""Metrics of weighted images, compared with an evaluation of repeated images."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from czslkit.metrics import bootstrap
from czslkit.metrics.bootstrap import METRIC_NAMES, intervals, resample_counts, resampled_metrics, weighted_metrics
from czslkit.metrics.curves import image_outcomes
from czslkit.metrics.outcomes import Outcomes
from czslkit.metrics.sweep import Metrics, Sweep, evaluate

both_bins = pytest.mark.parametrize("bins", ["exact", "original"])


@dataclass(frozen=True)
class World:
    scores: Tensor  # [N, K]
    target: Tensor  # [N]
    pairs: Tensor  # [K, 2]
    seen: Tensor  # [K]
    candidates: Tensor  # [K]
    topk: int = 1

    @property
    def outcomes(self) -> Outcomes:
        sweep = Sweep(self.pairs, self.seen, self.candidates, topk=self.topk)
        sweep.update(self.scores, *self.pairs[self.target].unbind(1))
        return image_outcomes(sweep.top_scores()[0], self.pairs)

    def evaluate(self, images: Any, bins: Any) -> Metrics:
        attr, obj = self.pairs[self.target[images]].unbind(1)
        return evaluate(self.scores[images], attr, obj, self.pairs, self.seen, self.candidates, self.topk, bins)


def world(seed: int, n: int, topk: int = 1, eighths: bool = False) -> World:
    """Return random scores with higher scores for true pairs; ``eighths`` makes ties, also between breakpoints."""
    random = torch.Generator().manual_seed(seed)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    target = torch.randint(0, 12, (n,), generator=random)
    scores = torch.randn(n, 12, generator=random)
    scores[torch.arange(n), target] += 2 * torch.rand(n, generator=random)
    return World(
        (8 * scores).round() / 8 if eighths else scores,
        target,
        pairs,
        torch.rand(12, generator=random) < 0.5,
        (torch.rand(12, generator=random) < 0.9).index_fill(0, torch.tensor([0]), True),
        topk,
    )


worlds = st.builds(world, st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 2), st.booleans())


@pytest.mark.parametrize("bins", ["exact", "original"])
@settings(max_examples=60, deadline=None)
@given(made=worlds, seed=st.integers(0, 1000))
def test_a_resample_is_an_evaluation_of_its_images(bins: str, made: World, seed: int) -> None:
    n = len(made.target)
    images = np.random.default_rng(seed).integers(n, size=(5, n))  # drawn with repetition
    weights = np.stack([np.bincount(chosen, minlength=n) for chosen in images], axis=1)
    found = weighted_metrics(made.outcomes, weights, bins)
    for r, chosen in enumerate(images):
        metrics = made.evaluate(chosen, bins)
        assert {name: found[name][r] for name in METRIC_NAMES} == pytest.approx(
            {name: getattr(metrics, name) for name in METRIC_NAMES}, abs=1e-12
        )


@both_bins
def test_every_image_once_gives_the_metrics_of_all(bins: str) -> None:
    made = world(0, 500)
    once = weighted_metrics(made.outcomes, np.ones((500, 1), dtype=int), bins)
    metrics = made.evaluate(slice(None), bins)
    assert metrics.best_hm > 0.3
    assert {name: once[name][0] for name in METRIC_NAMES} == pytest.approx(
        {name: getattr(metrics, name) for name in METRIC_NAMES}
    )


@both_bins
@pytest.mark.parametrize("kind", [True, False])
def test_images_of_one_kind_alone_have_no_curve(bins: str, kind: bool) -> None:
    made = world(0, 40)
    chosen = (made.seen[made.target] == kind).numpy()
    found = weighted_metrics(made.outcomes, chosen[:, None].astype(int), bins)
    metrics = made.evaluate(np.flatnonzero(chosen), bins)
    assert {name: found[name][0] for name in METRIC_NAMES} == pytest.approx(
        {name: getattr(metrics, name) for name in METRIC_NAMES}
    )
    assert (found["auc"][0], found["best_hm"][0]) == (0, 0)


def test_the_original_takes_the_biases_of_the_resample() -> None:
    """40 right unseen images give 20 points and 39 give 39; breakpoints of seen images lie between all of them."""
    scores = torch.zeros(80, 2)
    target = torch.arange(80) % 2
    scores[:, 0] = torch.linspace(1, 2, 80)
    made = World(scores, target, torch.tensor([[0, 0], [0, 1]]), torch.tensor([True, False]), torch.ones(2).bool())
    one_less = np.ones((80, 1), dtype=int)
    one_less[79] = 0
    for weights, images in ((np.ones((80, 1), dtype=int), slice(80)), (one_less, slice(79))):
        expected = made.evaluate(images, "original")
        assert weighted_metrics(made.outcomes, weights, "original")["auc"][0] == pytest.approx(expected.auc, abs=1e-12)
    assert len(made.evaluate(slice(80), "original").curve.biases) == 21
    assert len(made.evaluate(slice(79), "original").curve.biases) == 40


@both_bins
def test_scores_of_double_precision_are_compared_in_it(bins: str) -> None:
    made = world(3, 30)
    fine = World(made.scores.double() + 1e-9 * torch.arange(12), made.target, made.pairs, made.seen, made.candidates)
    restored = Outcomes.from_bytes(fine.outcomes.to_bytes())
    once = weighted_metrics(restored, np.ones((30, 1), dtype=int), bins)
    metrics = fine.evaluate(slice(None), bins)
    assert {name: once[name][0] for name in METRIC_NAMES} == pytest.approx(
        {name: getattr(metrics, name) for name in METRIC_NAMES}
    )


def test_resamples_are_as_large_as_the_images_and_the_same_for_the_same_seed() -> None:
    one, again, other = (np.hstack(list(resample_counts(50, 20, seed))) for seed in (0, 0, 1))
    assert one.shape == (50, 20)
    assert one.sum(0).tolist() == [50] * 20
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_resamples_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = world(1, 61).outcomes
    whole = resampled_metrics(images, "original", 50)
    monkeypatch.setattr(bootstrap, "DRAWS_PER_BLOCK", 61 * 7)
    monkeypatch.setattr(bootstrap, "MOST_KEPT_DRAWS", 0)
    parts = resampled_metrics(images, "original", 50)
    assert all(np.array_equal(whole[name], parts[name]) for name in METRIC_NAMES)


def test_results_with_as_many_images_share_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (list(resample_counts(53, 40)) for _ in range(2))
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert not any(block.flags.writeable for block in first)
    monkeypatch.setattr(bootstrap, "MOST_KEPT_DRAWS", 53 * 40 - 1)
    third = list(resample_counts(53, 40))
    assert third[0] is not first[0] and np.array_equal(third[0], first[0])


def test_the_interval_of_an_accuracy_is_the_binomial_one() -> None:
    made = world(2, 2000)
    accuracy = made.evaluate(slice(None), "exact").attr_acc
    low, high = intervals([resampled_metrics(made.outcomes)["attr_acc"]])[0]
    width = 1.96 * (accuracy * (1 - accuracy) / 2000) ** 0.5
    assert (low, high) == pytest.approx((accuracy - width, accuracy + width), abs=0.1 * width)


@both_bins
def test_intervals_of_repeated_draws_from_one_population_hold_its_value(bins: str) -> None:
    """95 of 100 intervals should hold it; the intervals of S, U and H, which are maxima, are a little too high."""
    population = world(7, 20_000)
    truth = population.evaluate(slice(None), bins)
    hits = dict.fromkeys(METRIC_NAMES, 0)
    random = np.random.default_rng(0)
    whole = population.outcomes
    for _ in range(60):
        chosen = random.choice(20_000, 800, replace=False)
        drawn = Outcomes(**{name: values[chosen] for name, values in vars(whole).items()})
        values = resampled_metrics(drawn, bins, 200)
        for name in METRIC_NAMES:
            low, high = intervals([values[name]])[0]
            hits[name] += low <= getattr(truth, name) <= high
    assert min(hits.values()) >= 50, hits


def test_curves_and_images_that_are_not_there_are_refused() -> None:
    images = world(0, 5).outcomes
    with pytest.raises(ValueError, match="bins must be one of 'exact', 'original', got '20'"):
        resampled_metrics(images, "20")
    nothing = Outcomes(**{name: values[:0] for name, values in vars(images).items()})
    with pytest.raises(ValueError, match="there are no images to draw from"):
        resampled_metrics(nothing)


def test_the_bootstrap_needs_no_torch() -> None:
    program = "import sys, czslkit.metrics.bootstrap; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.slow
@both_bins
def test_a_test_split_of_the_size_of_mit_states_takes_seconds(bins: str) -> None:
    images = world(0, 12_995).outcomes
    start = time.monotonic()
    resampled_metrics(images, bins)
    assert time.monotonic() - start < 30
