"""Changes of the scores that change no number: chunks, order, and a constant added to all scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from czslkit.metrics.sweep import Metrics, Sweep, evaluate

quick = settings(max_examples=60, deadline=None)
bins = st.sampled_from(["exact", "original"])
infeasible = st.sampled_from(["exclude", "original"])
THRESHOLDS = [0.25, -1.0, 0.0, 0.75]
PAIRS = torch.cartesian_prod(torch.arange(3), torch.arange(4))


@dataclass(frozen=True)
class Case:
    """Scores with all other arguments of an evaluation."""

    scores: Tensor  # [N, K]
    target: Tensor  # [N]
    pairs: Tensor  # [K, 2]
    seen: Tensor  # [K]
    mask: Tensor  # [K]
    feasibility: Tensor  # [K]
    topk: int
    infeasible: Any

    def sweep(self) -> Sweep:
        return Sweep(
            self.pairs,
            self.seen,
            self.mask,
            self.feasibility,
            THRESHOLDS,
            topk=self.topk,
            infeasible=self.infeasible,
        )

    def give(self, sweep: Sweep, rows: slice | Tensor, columns: slice = slice(None)) -> None:
        """Give some of the scores to a sweep, with the numbers of their images."""
        attr, obj = self.pairs[self.target[rows]].unbind(1)
        numbers = torch.arange(len(self.target))[rows]
        sweep.update(self.scores[rows][:, columns], attr, obj, columns=columns, images=numbers)

    def whole(self, kind: Any) -> tuple[Metrics, ...]:
        sweep = self.sweep()
        self.give(sweep, slice(None))
        return sweep.compute_all(kind)

    def images(self, order: Tensor) -> Case:
        return replace(self, scores=self.scores[order], target=self.target[order])

    def columns(self, order: Tensor) -> Case:
        parts = {name: getattr(self, name)[order] for name in ("pairs", "seen", "mask", "feasibility")}
        return replace(self, scores=self.scores[:, order], target=order.argsort()[self.target], **parts)


@st.composite
def cases(draw: st.DrawFn, ties: bool = True, unit: float = 1 / 8) -> Case:
    """Generate cases whose scores are multiples of ``unit``; without ``ties``, all scores of an image differ."""
    n, k = draw(st.integers(1, 8)), draw(st.integers(1, 7))

    def column(values: st.SearchStrategy[Any], size: int) -> Tensor:
        return torch.tensor(draw(st.lists(values, min_size=size, max_size=size)))

    row = st.lists(st.integers(-12, 12), min_size=k, max_size=k, unique=not ties)
    mask = column(st.booleans() if draw(st.booleans()) else st.just(True), k)
    mask[draw(st.integers(0, k - 1))] = True
    seen = column(st.booleans(), k)
    return Case(
        scores=torch.tensor([draw(row) for _ in range(n)]) * unit,
        target=column(st.integers(0, k - 1), n),
        pairs=PAIRS[draw(st.permutations(range(12)))[:k]],
        seen=seen,
        mask=mask | (seen if draw(st.booleans()) else mask),
        feasibility=column(st.integers(-4, 4), k) / 4,
        topk=draw(st.integers(1, 3)),
        infeasible=draw(infeasible),
    )


@quick
@given(cases(), st.data(), bins)
def test_the_order_of_the_images_changes_nothing(case: Case, data: st.DataObject, kind: Any) -> None:
    order = torch.tensor(data.draw(st.permutations(range(len(case.target)))))
    assert case.images(order).whole(kind) == case.whole(kind)


@quick
@given(cases(ties=False), st.data(), bins)
def test_the_order_of_the_columns_changes_nothing_where_none_tie(case: Case, data: st.DataObject, kind: Any) -> None:
    case = replace(case, infeasible="exclude")  # scores multiplied to 0 tie
    order = torch.tensor(data.draw(st.permutations(range(len(case.pairs)))))
    assert case.columns(order).whole(kind) == case.whole(kind)


@quick
@given(cases(), st.data(), bins)
def test_any_cut_into_chunks_changes_nothing(case: Case, data: st.DataObject, kind: Any) -> None:
    n, k = case.scores.shape
    cuts = [[0, *sorted(data.draw(st.sets(st.integers(0, size)))), size] for size in (n, k)]
    rows, columns = ([slice(*ends) for ends in pairwise(cut)] for cut in cuts)
    sweep = case.sweep()
    for chunk in data.draw(st.permutations([(row, part) for row in rows for part in columns])):
        case.give(sweep, *chunk)
    assert sweep.compute_all(kind) == case.whole(kind)


@quick
@given(cases(), st.data(), bins)
def test_any_order_of_merging_changes_nothing(case: Case, data: st.DataObject, kind: Any) -> None:
    owner = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=len(case.target), max_size=len(case.target))))
    sweeps = [case.sweep() for _ in range(4)]
    for i, sweep in enumerate(sweeps):
        case.give(sweep, (owner == i).nonzero()[:, 0])
    while len(sweeps) > 1:
        one, other = data.draw(st.permutations(range(len(sweeps))))[:2]
        sweeps[one].merge(sweeps[other])
        del sweeps[other]
    assert sweeps[0].compute_all(kind) == case.whole(kind)


# docs/metrics.md: multiples of 1/1024 between -250 and 250, before and after.


@quick
@given(cases(unit=1 / 1024), st.integers(-249 * 1024, 249 * 1024), bins)
def test_a_constant_added_to_all_scores_changes_nothing_on_a_grid(case: Case, steps: int, kind: Any) -> None:
    case = replace(case, infeasible="exclude")  # what multiplies scores depends on where they lie
    moved = replace(case, scores=case.scores + steps / 1024)
    assert moved.whole(kind) == case.whole(kind)


@quick
@given(st.integers(0, 2**32 - 1), st.integers(-(2**17), 2**17))
def test_a_constant_on_the_whole_grid_changes_nothing(seed: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(-(2**16), 2**16, (30, 8)) / 1024 * random.choice([1, 2**-6, 2**-10])
    scores = np.round(scores * 1024) / 1024
    target = random.integers(0, 8, 30)
    labels = PAIRS[:8][target].unbind(1)
    seen = torch.arange(8) % 2 == 0
    for kind in ("exact", "original"):
        before, after = (
            evaluate((scores + constant).astype(np.float32), *labels, PAIRS[:8], seen, bins=kind)  # type: ignore[arg-type]
            for constant in (0.0, steps / 1024)
        )
        assert after == before


@quick
@given(cases(), bins)
def test_an_area_is_between_zero_and_one(case: Case, kind: Any) -> None:
    for metrics in case.whole(kind):
        assert 0 <= metrics.auc <= metrics.best_seen * metrics.best_unseen + 1e-12
        assert metrics.best_hm <= 1


def brute_force(scores: np.ndarray, target: np.ndarray, seen: np.ndarray) -> float:
    """Return the area by sorting the scores of every image between all biases at which two columns swap."""
    gaps = np.unique(scores[:, :, None] - scores[:, None])
    biases = [gaps[0] - 1, *(gaps[1:] + gaps[:-1]) / 2, gaps[-1] + 1]
    points = []
    for bias in biases:
        right = (scores + np.where(seen, 0, bias)).argmax(1) == target  # the first of equal ones
        points.append([right[seen[target] == kind].mean() if (seen[target] == kind).any() else 0 for kind in (1, 0)])
    return sum((a[0] + b[0]) / 2 * (b[1] - a[1]) for a, b in pairwise(points))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(12))
def test_the_exact_area_is_that_of_every_breakpoint_of_any_scores(seed: int, dtype: Any) -> None:
    random = np.random.default_rng(seed)
    n, k = random.integers(2, 40), random.integers(2, 13)
    target, seen = random.integers(0, k, n), random.random(k) < 0.5
    scores = (random.normal(size=(n, k)) * random.choice([0.01, 1, 30])).astype(dtype)
    scores[np.arange(n), target] += random.random(n).astype(dtype) * 2 * scores.std()
    attr, obj = PAIRS[:k][target].unbind(1)
    found = evaluate(scores, attr, obj, PAIRS[:k], seen)
    assert found.auc == pytest.approx(brute_force(scores.astype(np.float64), target, seen), abs=1e-12)
