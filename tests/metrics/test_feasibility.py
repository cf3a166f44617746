from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from czslkit.metrics.feasibility import best_threshold, threshold_grid
from czslkit.metrics.sweep import Metrics, evaluate
from czslkit.pair_feasibility import feasibility
from czslkit.types import PairSpace

RECORDED = Path(__file__).parent / "recorded"


def space(n_attrs: int, n_objs: int, seen: Any) -> PairSpace:
    pairs = torch.as_tensor(seen, dtype=torch.long).reshape(-1, 2)
    names = (tuple(f"{kind}{i}" for i in range(n)) for kind, n in (("a", n_attrs), ("o", n_objs)))
    return PairSpace(*names, pairs, torch.ones(len(pairs), dtype=torch.bool))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_ut_zappos_scores_are_those_of_the_original() -> None:
    with np.load(RECORDED / "ut-zappos_feasibility.npz") as record:
        found = feasibility(space(16, 12, record["seen"].astype(int)), record["attr"], record["obj"])
        assert found.dtype == torch.float32
        assert found.numpy() == pytest.approx(record["feasibility"], abs=2e-6)


def test_mit_states_scores_are_the_published_ones() -> None:
    # GloVe 6B in half precision, and every third of the 28,175 published values.
    with np.load(RECORDED / "mit-states_published_feasibility.npz") as record:
        found = feasibility(space(115, 245, record["seen"].astype(int)), record["attr"], record["obj"])
        assert found.numpy()[::3] == pytest.approx(record["feasibility"], abs=1e-4)


def test_every_pair_agrees_with_a_naive_loop() -> None:
    random = np.random.default_rng(0)
    seen = [(0, 0), (0, 2), (1, 2), (3, 1)]  # attribute 2 and object 3 were never seen
    attrs, objs = random.normal(size=(4, 5)), random.normal(size=(4, 6))
    found = feasibility(space(4, 4, seen), attrs, objs).reshape(4, 4)
    for a in range(4):
        for o in range(4):
            by_obj = max((cosine(objs[o], objs[other]) for attr, other in seen if attr == a), default=-1.0)
            by_attr = max((cosine(attrs[a], attrs[other]) for other, obj in seen if obj == o), default=-1.0)
            expected = 0.0 if (a, o) in seen else (by_obj + by_attr) / 2
            assert float(found[a, o]) == pytest.approx(expected, abs=1e-6)
    assert float(found[2, 3]) == -1


def test_only_seen_pairs_of_the_space_count() -> None:
    known = space(2, 2, [[0, 0], [1, 1]])
    with_unseen = PairSpace(
        known.attrs, known.objs, torch.tensor([[0, 0], [0, 1], [1, 1]]), torch.tensor([True, False, True])
    )
    vectors = torch.eye(2) + 1
    assert torch.equal(feasibility(with_unseen, vectors, vectors), feasibility(known, vectors, vectors))


def test_vectors_that_do_not_fit_are_named() -> None:
    vectors, pairs = torch.ones(2, 3), space(2, 2, [[0, 0]])
    with pytest.raises(ValueError, match=r"attr_vectors is \[3, 2\], expected \[2, D\]"):
        feasibility(pairs, vectors.T, vectors)
    with pytest.raises(ValueError, match="obj_vectors: vector 1 is not finite"):
        feasibility(pairs, vectors, torch.tensor([[1.0], [torch.nan]]))
    with pytest.raises(ValueError, match=r"obj_vectors must be of float dtype, got torch.int64"):
        feasibility(pairs, vectors, vectors.long())


def test_the_grid_spans_the_unseen_pairs() -> None:
    grid = threshold_grid(np.float32([9, 0.1, 0.7, -0.2]), np.array([True, False, False, False]))
    assert (len(grid), grid[0], grid[-1]) == (50, float(np.float32(-0.2)), float(np.float32(0.7)))


def test_a_grid_needs_unseen_pairs() -> None:
    with pytest.raises(ValueError, match=r"feasibility is \[2\] and seen \[3\], expected \[K\] both"):
        threshold_grid(torch.zeros(2), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="all of the 2 pairs are seen"):
        threshold_grid(torch.zeros(2), torch.ones(2, dtype=torch.bool))


def with_auc(auc: float) -> Metrics:
    return replace(evaluate(torch.zeros(1, 1), [0], [0], [[0, 0]], [True]), auc=auc)


def test_the_first_of_equally_good_thresholds_is_taken() -> None:
    assert best_threshold([0.1, 0.2, 0.3], [with_auc(auc) for auc in (0.1, 0.5, 0.5)]) == 0.2


def test_every_pair_is_a_candidate_if_every_threshold_has_auc_0() -> None:
    assert best_threshold([0.1, 0.2], [with_auc(0.0)] * 2) == -10
    assert best_threshold([], []) == -10


def test_each_threshold_needs_its_metrics() -> None:
    with pytest.raises(ValueError, match="2 thresholds but 1 metrics, expected the same number"):
        best_threshold([0.1, 0.2], [with_auc(0.0)])
