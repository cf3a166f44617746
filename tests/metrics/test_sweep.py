"""The sweep, compared with naive loops over the whole matrix and with sweeps of other chunks."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
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

PAIRS = torch.cartesian_prod(torch.arange(2), torch.arange(3))
SEEN = torch.tensor([True, False, True, False, True, False])
quick = settings(max_examples=60, deadline=None)


@dataclass(frozen=True)
class World:
    scores: Tensor  # [N, K] multiples of 1/8: sums and differences are exact, ties are many
    target: Tensor  # [N]
    pairs: Tensor  # [K, 2]
    seen: Tensor  # [K]
    candidates: Tensor  # [K]
    feasibility: Tensor  # [K]
    topk: int

    @property
    def images(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.scores, *self.pairs[self.target].unbind(1)

    def evaluate(self, bins: Any = "exact") -> Metrics:
        return evaluate(*self.images, self.pairs, self.seen, self.candidates, self.topk, bins)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    n, k = draw(st.integers(1, 9)), draw(st.integers(1, 7))

    def column(values: st.SearchStrategy[Any], size: int) -> Tensor:
        return torch.tensor(draw(st.lists(values, min_size=size, max_size=size)))

    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(4))[draw(st.permutations(range(12)))[:k]]
    candidates = column(st.booleans() if draw(st.booleans()) else st.just(True), k)
    candidates[draw(st.integers(0, k - 1))] = True
    return World(
        scores=column(st.integers(-12, 12), n * k).reshape(n, k) / 8,
        target=column(st.integers(0, k - 1), n),
        pairs=pairs,
        seen=column(st.booleans(), k),
        candidates=candidates,
        feasibility=column(st.integers(-4, 4), k) / 4,
        topk=draw(st.integers(1, 3)),
    )


def predicted(world: World, scores: np.ndarray, image: int) -> list[int]:
    """Return the columns of the best candidates of an image by sorting all of them."""
    allowed = [c for c in range(len(world.pairs)) if world.candidates[c]]
    return sorted(allowed, key=lambda c: (-scores[image, c], c))[: world.topk]


def share(values: Iterator[bool]) -> float:
    right = list(values)
    return sum(right) / len(right) if right else 0.0


def point(world: World, scores: np.ndarray) -> tuple[float, float]:
    """Return the accuracy over images of seen and of unseen pairs; the bias is already added to the scores."""
    right = [int(t) in predicted(world, scores, i) for i, t in enumerate(world.target)]
    return tuple(  # type: ignore[return-value]
        share(r for r, t in zip(right, world.target, strict=True) if bool(world.seen[t]) == kind)
        for kind in (True, False)
    )


def summary(points: list[tuple[float, float]]) -> dict[str, float]:
    area = sum((a[0] + b[0]) / 2 * (b[1] - a[1]) for a, b in pairwise(points))
    means = [2 * s * u / (s + u) if s and u else 0.0 for s, u in points]
    best = means.index(max(means))
    return {
        "auc": area,
        "best_seen": max(s for s, _ in points),
        "best_unseen": max(u for _, u in points),
        "best_hm": max(means),
        "hm_seen": points[best][0],
        "hm_unseen": points[best][1],
    }


def naive_exact(world: World) -> dict[str, float]:
    scores, unseen = world.scores.double().numpy(), (~world.seen).double().numpy()
    gaps = sorted({float(a - b) for row in scores for a in row for b in row})
    biases = [gaps[0] - 1, *((a + b) / 2 for a, b in pairwise(gaps)), gaps[-1] + 1]
    return summary([point(world, scores + b * unseen) for b in biases])


def naive_original(world: World) -> dict[str, float]:
    scores, unseen = world.scores.numpy(), (~world.seen).numpy()

    def biased(bias: np.float32) -> np.ndarray:
        moved = scores.copy()
        moved[:, unseen] += bias
        return moved

    final = biased(np.float32(1e3))
    gaps = []
    for i, target in enumerate(world.target.tolist()):
        if unseen[target] and target in predicted(world, final, i):
            seen_threshold = np.sort(scores[i, ~unseen])[::-1][world.topk - 1]
            gaps.append(seen_threshold - scores[i, target] - np.float32(1e-4))
    biases = sorted(gaps)[:: max(len(gaps) // 20, 1)]
    return summary([*(point(world, biased(b)) for b in biases), point(world, final)])


def values(metrics: Metrics) -> dict[str, float]:
    return {k: getattr(metrics, k) for k in ("auc", "best_seen", "best_unseen", "best_hm", "hm_seen", "hm_unseen")}


@quick
@given(worlds())
def test_the_exact_curve_is_a_naive_sweep_over_every_bias(world: World) -> None:
    assert values(world.evaluate()) == pytest.approx(naive_exact(world), abs=1e-12)


@quick
@given(worlds())
def test_the_original_curve_is_a_naive_sweep_over_its_biases(world: World) -> None:
    if world.seen.sum() >= world.topk:  # the original stops here
        assert values(world.evaluate("original")) == pytest.approx(naive_original(world), abs=1e-6)


@quick
@given(worlds())
def test_attribute_and_object_accuracies_are_those_of_the_predicted_pairs(world: World) -> None:
    metrics = world.evaluate()
    best = [
        [tuple(world.pairs[c].tolist()) for c in predicted(world, world.scores.numpy(), i)]
        for i in range(len(world.target))
    ]
    truth = [tuple(world.pairs[t].tolist()) for t in world.target]
    for which, found in ((0, metrics.attr_acc), (1, metrics.obj_acc)):
        hits = (any(pair[which] == true[which] for pair in pairs) for pairs, true in zip(best, truth, strict=True))
        assert found == pytest.approx(share(hits))
    assert (metrics.at_zero.seen, metrics.at_zero.unseen) == pytest.approx(point(world, world.scores.numpy()))
    assert metrics.at_limit.unseen == metrics.best_unseen == metrics.curve.unseen[-1]


@quick
@given(worlds(), st.sampled_from(["exact", "original"]))
def test_no_number_leaves_its_range(world: World, bins: Any) -> None:
    metrics = world.evaluate(bins)
    assert all(0 <= v <= 1 for v in values(metrics).values())
    assert metrics.n_seen + metrics.n_unseen == len(world.target)
    assert metrics.curve.biases.equal(metrics.curve.biases.sort().values)
    json.dumps(metrics.to_dict(), allow_nan=False)


@quick
@given(worlds(), st.integers(-40, 40), st.sampled_from(["exact", "original"]))
def test_a_constant_added_to_all_scores_changes_nothing(world: World, eighths: int, bins: Any) -> None:
    assert replace(world, scores=world.scores + eighths / 8).evaluate(bins) == world.evaluate(bins)


@quick
@given(worlds(), st.randoms(use_true_random=False), st.sampled_from(["exclude", "original"]))
def test_chunks_their_order_and_merging_change_nothing(world: World, random: Any, infeasible: Any) -> None:
    thresholds = [0.25, -1.0, -0.5, 0.0, 0.25]

    def sweep() -> Sweep:
        return Sweep(
            world.pairs,
            world.seen,
            world.candidates,
            world.feasibility,
            thresholds,
            topk=world.topk,
            infeasible=infeasible,
        )

    whole, parts = sweep(), [sweep(), sweep()]
    whole.update(*world.images)
    columns = list(range(len(world.pairs)))
    random.shuffle(columns)
    cut = random.randint(0, len(columns))
    rows = [list(range(len(world.target)))[i::3] for i in range(3)]
    chunks = [(images, part) for images in rows for part in (columns[:cut], columns[cut:])]
    random.shuffle(chunks)
    for images, part in chunks:
        scores, attr, obj = (values[images] for values in world.images)
        random.choice(parts).update(scores[:, part], attr, obj, columns=torch.tensor(part), images=torch.tensor(images))
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))
    for bins in ("exact", "original"):
        assert parts[0].compute(bins) == whole.compute(bins)


@quick
@given(worlds(), st.integers(0, 9), st.integers(0, 7), st.booleans())
def test_appended_chunks_need_no_image_numbers(world: World, rows: int, columns: int, by_image: bool) -> None:
    sweep = Sweep(world.pairs, world.seen, world.candidates, topk=world.topk)
    blocks = [(r, c) for r in (slice(rows), slice(rows, None)) for c in (slice(columns), slice(columns, None))]
    for r, c in blocks if by_image else sorted(blocks, key=lambda block: block[1].start or 0):
        scores, attr, obj = (values[r] for values in world.images)
        sweep.update(scores[:, c], attr, obj, columns=c)
    assert sweep.compute() == world.evaluate()


@quick
@given(worlds())
def test_images_that_other_processes_appended_are_appended(world: World) -> None:
    parts = [Sweep(world.pairs, world.seen, world.candidates, topk=world.topk) for _ in range(3)]
    for part, images in zip(parts, (slice(2), slice(2, 5), slice(5, None)), strict=True):
        part.update(*(values[images] for values in world.images))
    for other in parts[1:]:
        parts[0].merge(other)
    assert parts[0].compute() == world.evaluate()


@quick
@given(worlds(), st.sampled_from(["exact", "original"]))
def test_a_threshold_is_a_mask_of_candidates(world: World, bins: Any) -> None:
    thresholds = [0.5, -0.25, 3.0, -1.0]
    sweep = Sweep(world.pairs, world.seen, world.candidates, world.feasibility, thresholds, topk=world.topk)
    sweep.update(*world.images)
    for threshold, metrics in zip(thresholds, sweep.compute_all(bins), strict=True):
        kept = world.candidates & (world.seen | (world.feasibility >= threshold))
        if kept.any():
            assert metrics == replace(world, candidates=kept).evaluate(bins)


@quick
@given(worlds(), st.sampled_from(["exact", "original"]))
def test_the_original_multiplies_scores_at_a_threshold(world: World, bins: Any) -> None:
    thresholds = [-1.0, 0.0, 0.5]
    feasibility = world.feasibility.masked_fill(world.seen, 0)
    sweep = Sweep(
        world.pairs, world.seen, world.candidates, feasibility, thresholds, topk=world.topk, infeasible="original"
    )
    sweep.update(*world.images)
    for threshold, metrics in zip(thresholds, sweep.compute_all(bins), strict=True):
        factor = (feasibility >= threshold).float() + world.seen.float()
        multiplied = replace(world, scores=world.scores * factor)
        assert values(metrics) == values(multiplied.evaluate(bins))
        assert (metrics.at_zero, metrics.at_limit) == (
            multiplied.evaluate(bins).at_zero,
            multiplied.evaluate(bins).at_limit,
        )


@quick
@given(worlds(), st.integers(1, 5), st.sampled_from(["exclude", "original"]))
def test_keeping_more_columns_changes_no_number_and_ranks_them_all(world: World, keep: int, infeasible: Any) -> None:
    line = (world.candidates, world.feasibility, [0.25, -1.0])
    plain, kept = (
        Sweep(world.pairs, world.seen, *line, topk=world.topk, keep=k, infeasible=infeasible) for k in (1, keep)
    )
    for sweep in (plain, kept):
        sweep.update(*world.images)
    for bins in ("exact", "original"):
        assert kept.compute(bins) == plain.compute(bins)  # type: ignore[arg-type]
    feasibility = world.feasibility.masked_fill(world.seen, 0)
    for threshold, top_scores in zip((0.25, -1.0), kept.top_scores(), strict=True):
        factor = (feasibility >= threshold).float() + world.seen.float()
        allowed = world.candidates & ((factor > 0) | (infeasible == "original"))
        scores = (world.scores * factor if infeasible == "original" else world.scores).tolist()
        for row, found in zip(scores, top_scores.top.column.tolist(), strict=True):
            best = sorted(allowed.nonzero()[:, 0].tolist(), key=lambda c: (-row[c], c))
            assert [c for c in found if c < len(row)] == best[: max(keep, world.topk)]


def test_a_curve_worked_by_hand() -> None:
    # Unseen columns 1, 3, 5. Images of pairs 0 and 4 (seen), 1 and 3 (unseen).
    scores = torch.tensor(
        [
            [2.0, 0.0, 1.0, 1.5, 0.0, 0.0],  # right below bias 0.5
            [0.0, 1.0, 0.0, 0.0, 3.0, 0.0],  # right below bias 2
            [2.0, 1.0, 0.0, 0.0, 0.0, 0.5],  # right above bias 1
            [0.0, 2.0, 5.0, 1.0, 0.0, 0.0],  # never right: another unseen pair is better
        ]
    )
    attr, obj = PAIRS[[0, 4, 1, 3]].unbind(1)
    metrics = evaluate(scores, attr, obj, PAIRS, SEEN)
    assert metrics.curve.biases.tolist() == [-math.inf, 0.75, 1.5, math.inf]
    assert metrics.curve.seen.tolist() == [1.0, 0.5, 0.5, 0.0]
    assert metrics.curve.unseen.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert values(metrics) == {
        "auc": 0.25,
        "best_seen": 1.0,
        "best_unseen": 0.5,
        "best_hm": 0.5,
        "hm_seen": 0.5,
        "hm_unseen": 0.5,
    }
    assert (metrics.hm_bias, metrics.n_seen, metrics.n_unseen) == (1.5, 2, 2)
    assert metrics.at_zero.pair == 0.5
    assert (metrics.attr_acc, metrics.obj_acc) == (0.75, 0.5)


def test_a_tie_goes_to_the_lower_column() -> None:
    seen = torch.tensor([False, True])
    for target, right in ((0, 1.0), (1, 0.0)):
        metrics = evaluate(torch.zeros(1, 2), [0], [target], [[0, 0], [0, 1]], seen)
        assert metrics.at_zero.pair == right


def test_a_share_of_no_images_is_zero() -> None:
    scores, seen = torch.eye(2), torch.tensor([True, False])
    only_seen = evaluate(scores[:1], [0], [0], [[0, 0], [0, 1]], seen)
    assert (only_seen.best_seen, only_seen.best_unseen, only_seen.best_hm, only_seen.auc) == (1, 0, 0, 0)
    only_unseen = evaluate(scores[1:], [0], [1], [[0, 0], [0, 1]], seen)
    assert (only_unseen.best_seen, only_unseen.best_unseen, only_unseen.best_hm, only_unseen.auc) == (0, 1, 0, 0)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.float16, torch.bfloat16, torch.float64])
def test_every_float_dtype_gives_the_same_numbers(kind: Any) -> None:
    scores = torch.randint(-16, 16, (20, 6), generator=torch.Generator().manual_seed(0)) / 8
    attr, obj = PAIRS[torch.arange(20) % 6].unbind(1)
    given = scores.to(kind) if isinstance(kind, torch.dtype) else scores.numpy().astype(kind)
    assert evaluate(given, attr, obj, PAIRS, SEEN) == evaluate(scores, attr, obj, PAIRS, SEEN)


def test_differences_below_float32_count() -> None:
    scores = np.array([[1.0, 1.0 + 1e-12]])
    assert evaluate(scores, [0], [1], [[0, 0], [0, 1]], [True, True]).at_zero.pair == 1


def test_read_only_arrays_are_taken() -> None:
    scores = np.broadcast_to(np.float32([2, 1]), (3, 2))
    assert evaluate(scores, [0] * 3, [0] * 3, [[0, 0], [0, 1]], [True, False]).best_seen == 1


def test_gradients_are_left_alone() -> None:
    scores = torch.zeros(1, 2, requires_grad=True)
    assert evaluate(scores, [0], [0], [[0, 0], [0, 1]], [True, False]).at_zero.pair == 1


def test_scores_of_masked_columns_may_be_anything() -> None:
    scores = torch.tensor([[1.0, 0.5, torch.nan]])
    inputs = (scores, [0], [0], [[0, 0], [0, 1], [0, 2]], [True, False, False], [True, True, False])
    assert evaluate(*inputs).best_seen == 1


def test_columns_that_are_never_candidates_need_no_scores() -> None:
    sweep = Sweep(PAIRS, SEEN, feasibility=torch.arange(6) / 6, thresholds=[0.5])
    sweep.update(torch.eye(6)[:, [0, 2, 3, 4, 5]], PAIRS[:, 0], PAIRS[:, 1], columns=[0, 2, 3, 4, 5])
    (metrics,) = sweep.compute_all()
    assert (metrics.best_seen, metrics.best_unseen) == (1, pytest.approx(2 / 3))


def test_many_small_updates_are_one_large_one() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, target = torch.randn(100, 6, generator=generator), torch.randint(0, 6, (100,), generator=generator)
    attr, obj = PAIRS[target].unbind(1)
    sweep = Sweep(PAIRS, SEEN)
    for i in range(100):
        sweep.update(scores[i : i + 1], attr[i : i + 1], obj[i : i + 1])
    assert sweep.compute() == evaluate(scores, attr, obj, PAIRS, SEEN)


def test_a_large_matrix_is_worked_on_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    attr, obj = PAIRS[torch.arange(40) % 6].unbind(1)
    whole = evaluate(scores, attr, obj, PAIRS, SEEN)
    monkeypatch.setattr("czslkit.metrics.sweep_state.SCORES_PER_BLOCK", 20)
    assert evaluate(scores, attr, obj, PAIRS, SEEN) == whole


def test_the_reported_numbers_are_strict_json() -> None:
    metrics = evaluate(torch.eye(6), PAIRS[:, 0], PAIRS[:, 1], PAIRS, torch.ones(6, dtype=torch.bool))
    found = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert (found["hm_bias"], found["attr_acc"], found["at_zero"]["pair"]) == ("-inf", 1.0, 1.0)
    assert "curve" not in found
    assert metrics.curve.to_dict() == {"biases": [-math.inf], "seen": [1.0], "unseen": [0.0]}
