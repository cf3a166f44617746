"""Sets of candidates, compared with a naive count, and inputs that do not describe one set of pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from czslkit.metrics.score_columns import UNUSED, ScoreColumns
from czslkit.metrics.sweep import Sweep, evaluate

PAIRS = torch.cartesian_prod(torch.arange(2), torch.arange(3))
SEEN = torch.tensor([True, False, True, False, True, False])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_candidates_of_a_threshold_are_the_seen_pairs_and_those_feasible_enough(data: st.DataObject) -> None:
    seen, mask = (torch.tensor(data.draw(st.lists(st.booleans(), min_size=6, max_size=6))) for _ in range(2))
    seen[0] = mask[0] = True
    quarters = st.integers(-4, 4).map(lambda n: n / 4)
    feasibility = torch.tensor(data.draw(st.lists(quarters, min_size=6, max_size=6)))
    thresholds = data.draw(st.lists(quarters, min_size=1, max_size=4))
    candidates = ScoreColumns(PAIRS, seen, mask, feasibility, thresholds)
    expected = [mask & (seen | (feasibility >= threshold)) for threshold in thresholds]
    by_level = [candidates.at_level(level) for level in range(candidates.n_levels)]
    for found, kept in zip(candidates.in_threshold_order(by_level), expected, strict=True):
        assert torch.equal(found, kept)
    assert candidates.counts() == tuple(int(kept.sum()) for kept in expected)
    assert torch.equal(candidates.group != UNUSED, seen | torch.stack(expected).any(0))


ONE = torch.zeros(1, 6)
WRONG_INPUTS = [
    (
        {"scores": torch.zeros(1, 5)},
        r"scores \[1, 5\], attr \[1\] and obj \[1\] do not fit 6 columns: expected \[n, 6\]",
    ),
    ({"attr": [0, 0]}, r"attr \[2\] and obj \[1\] do not fit"),
    ({"scores": ONE.long()}, r"scores must be of float dtype, got torch.int64"),
    ({"scores": ONE + torch.nan}, r"image 0 has a score that is not finite"),
    (
        {"scores": torch.cat([ONE, ONE - torch.inf]), "attr": [0, 0], "obj": [0, 0]},
        r"image 1 has a score that is not finite",
    ),
    ({"attr": [0.5]}, r"attr must be of integer dtype, got torch.float64"),
    (
        {"attr": [0, 1], "obj": [0, 3], "scores": torch.zeros(2, 6)},
        r"image 1 of this chunk shows pair \(1, 3\).*among the 6 pairs",
    ),
    ({"obj": [-1], "attr": [1]}, r"image 0 of this chunk shows pair \(1, -1\)"),
    ({"pairs": PAIRS[:, :1]}, r"pairs are \[6, 1\], expected \[K, 2\]"),
    ({"pairs": PAIRS - 1}, r"pair \[-1, -1\] is negative"),
    ({"pairs": PAIRS.float()}, r"pairs must be of integer dtype, got torch.float32"),
    ({"pairs": PAIRS // 2}, r"expected different pairs, only 2 of 6 differ"),
    ({"seen": SEEN[:5]}, r"seen is \[5\], expected \[6\]"),
    ({"seen": SEEN.long()}, r"seen must be of bool dtype, got torch.int64"),
    ({"candidates": ~SEEN[:2]}, r"candidates is \[2\], expected \[6\]"),
    ({"candidates": SEEN & ~SEEN}, r"none of the 6 pairs is a candidate"),
    ({"topk": 0}, r"topk must be at least 1, got 0"),
    ({"bins": "20"}, r"bins must be one of 'exact', 'original', got '20'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_INPUTS)
def test_inputs_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    good = {"scores": ONE, "attr": [0], "obj": [0], "pairs": PAIRS, "seen": SEEN}
    with pytest.raises(ValueError, match=message):
        evaluate(**{**good, **change})


FEASIBLE = torch.zeros(6)
WRONG_SWEEPS = [
    ({"thresholds": [0.0]}, "thresholds without feasibility: give both or neither"),
    ({"feasibility": FEASIBLE}, "feasibility without thresholds: give both or neither"),
    ({"feasibility": FEASIBLE, "thresholds": []}, r"thresholds must be one or more numbers, got \[\]"),
    ({"feasibility": FEASIBLE, "thresholds": [math.nan]}, r"thresholds must be one or more numbers, got \[nan\]"),
    ({"feasibility": FEASIBLE / 0, "thresholds": [0.0]}, "feasibility of column 1 is nan"),
    ({"feasibility": FEASIBLE[:3], "thresholds": [0.0]}, r"feasibility is \[3\], expected \[6\]"),
    ({"infeasible": "zero"}, "infeasible must be one of 'exclude', 'original', got 'zero'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_SWEEPS)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep(PAIRS, SEEN, **options)
