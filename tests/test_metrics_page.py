"""Every number of the example in ``docs/metrics.md``, compared with czslkit and with a naive loop."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import czslkit
from czslkit.metrics.metrics import Accuracies, Curve, Metrics

PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[list[list[str]]]:
    """The cells of each fenced block of a kind, line by line."""
    found = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [[re.split(r"\s{2,}", line) for line in block.splitlines()] for block in found]


(TABLE,) = blocks("scores")
(WORDS,) = blocks("vectors")
PAIRS = [tuple(cell.split()) for cell in TABLE[0][1:]]
SEEN = [cell == "yes" for cell in TABLE[1][1:]]
SHOWN = [tuple(line[0].partition(": ")[2].split()) for line in TABLE[2:]]
SCORES = np.array([[float(cell) for cell in line[1:]] for line in TABLE[2:]])
ATTRS, OBJS = (tuple(sorted({pair[i] for pair in PAIRS})) for i in (0, 1))
VECTORS = {word: [float(number) for number in numbers] for word, *numbers in WORDS}
SPACE = czslkit.PairSpace(
    ATTRS, OBJS, torch.tensor([[ATTRS.index(a), OBJS.index(o)] for a, o in PAIRS]), torch.tensor(SEEN)
)
IMAGES = SCORES, [ATTRS.index(a) for a, _ in SHOWN], [OBJS.index(o) for _, o in SHOWN]

#: Name of a column of numbers, a line of it and what the page says.
NUMBERS = [
    (column, line[0], float(cell))
    for block in blocks("numbers")
    for i, column in enumerate(block[0][1:])
    for line, cell in ((line, line[1 + i]) for line in block[1:])
]


def options(column: str) -> tuple[str, int, float | None, str]:
    """Return bins, topk, threshold and treatment of infeasible pairs from the name of a column."""
    bins, _, rest = column.partition(", ")
    if match := re.fullmatch(r"best (\d)", rest):
        return bins, int(match[1]), None, "exclude"
    if match := re.fullmatch(r"(exclude|original) ([\d.]+)", rest):
        return bins, 1, float(match[2]), match[1]
    assert not rest, column
    return bins, 1, None, "exclude"


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def naive_feasibility(attr: str, obj: str) -> float:
    seen = [pair for pair, known in zip(PAIRS, SEEN, strict=True) if known]
    by_obj = max((cosine(VECTORS[obj], VECTORS[o]) for a, o in seen if a == attr), default=-1.0)
    by_attr = max((cosine(VECTORS[attr], VECTORS[a]) for a, o in seen if o == obj), default=-1.0)
    return 0.0 if (attr, obj) in seen else (by_obj + by_attr) / 2


class Naive:
    """The example, computed by sorting all candidates at every bias."""

    def __init__(self, bins: str, topk: int, threshold: float | None, infeasible: str) -> None:
        self.topk, kind = topk, np.float32 if bins == "original" else np.float64
        feasible = [threshold is None or naive_feasibility(*pair) >= threshold for pair in PAIRS]
        factor = np.ones(len(PAIRS))
        if threshold is not None and infeasible == "original":
            factor = np.array(feasible, dtype=float) + SEEN
            feasible = [True] * len(PAIRS)
        self.scores = (SCORES * factor).astype(kind)
        self.columns = [c for c in range(len(PAIRS)) if SEEN[c] or feasible[c]]
        self.bump = np.array([not seen for seen in SEEN], dtype=kind)
        self.points = self.original() if bins == "original" else self.exact()
        self.limit = 1000.0 if bins == "original" else 1e6
        self.kind = kind

    def best(self, image: int, bias: float) -> list[int]:
        row = self.scores[image] + self.scores.dtype.type(bias) * self.bump
        return sorted(self.columns, key=lambda c: (-row[c], c))[: self.topk]

    def shares(self, bias: float) -> dict[str, float]:
        """Return the shares ``attr``, ``obj``, ``pair``, ``seen`` and ``unseen`` at a bias."""
        hits: dict[str, list[bool]] = {name: [] for name in ("attr", "obj", "pair", "seen", "unseen")}
        for image, truth in enumerate(SHOWN):
            found = [PAIRS[c] for c in self.best(image, bias)]
            hits["attr"].append(any(pair[0] == truth[0] for pair in found))
            hits["obj"].append(any(pair[1] == truth[1] for pair in found))
            hits["pair"].append(truth in found)
            hits["seen" if SEEN[PAIRS.index(truth)] else "unseen"].append(truth in found)
        return {name: sum(right) / len(right) for name, right in hits.items()}

    def point(self, bias: float) -> tuple[float, float]:
        shares = self.shares(bias)
        return shares["seen"], shares["unseen"]

    def exact(self) -> list[tuple[float, float, float]]:
        """Return bias, S and U of every interval between two biases at which an image changes."""
        gaps = sorted({float(a - b) for row in self.scores for a in row for b in row})
        ends = [-math.inf, *gaps, math.inf]
        intervals: list[tuple[float, float, tuple[float, float]]] = []
        for low, high in itertools.pairwise(ends):
            inside = high - 1 if math.isinf(low) else low + 1 if math.isinf(high) else (low + high) / 2
            at = self.point(inside)
            if intervals and intervals[-1][2] == at:
                low = intervals.pop()[0]
            intervals.append((low, high, at))
        names = [
            low if math.isinf(low) else high if math.isinf(high) else (low + high) / 2 for low, high, _ in intervals
        ]
        return [(name, *at) for name, (_, _, at) in zip(names, intervals, strict=True)]

    def original(self) -> list[tuple[float, float, float]]:
        proposed = []
        for image, truth in enumerate(SHOWN):
            column = PAIRS.index(truth)
            if not SEEN[column] and column in self.best(image, 1000.0):
                seen = sorted((self.scores[image, c] for c in range(len(PAIRS)) if SEEN[c]), reverse=True)
                proposed.append(float(seen[self.topk - 1] - self.scores[image, column] - np.float32(1e-4)))
        biases = [*sorted(proposed)[:: max(len(proposed) // 20, 1)], 1000.0]
        return [(bias, *self.point(bias)) for bias in biases]

    def numbers(self) -> dict[str, float]:
        means = [2 * s * u / (s + u) if s and u else 0.0 for _, s, u in self.points]
        best = self.points[means.index(max(means))]
        zero, limit = self.shares(0.0), self.shares(self.limit)
        truth = [SEEN[PAIRS.index(pair)] for pair in SHOWN]
        return {
            "best_seen": max(s for _, s, _ in self.points),
            "best_unseen": max(u for *_, u in self.points),
            "best_hm": max(means),
            "hm_bias": best[0],
            "hm_seen": best[1],
            "hm_unseen": best[2],
            "auc": sum((a[1] + b[1]) / 2 * (b[2] - a[2]) for a, b in itertools.pairwise(self.points)),
            "attr_acc": zero["attr"],
            "obj_acc": zero["obj"],
            **{f"at_zero.{name}": share for name, share in zero.items()},
            **{f"at_limit.{name}": share for name, share in limit.items()},
            "n_seen": sum(truth),
            "n_unseen": len(truth) - sum(truth),
        }


def measured(bins: Any, topk: int, threshold: float | None, infeasible: Any) -> Metrics:
    if threshold is None:
        return czslkit.evaluate(*IMAGES, SPACE.pairs, SPACE.seen, topk=topk, bins=bins)
    feasibility = czslkit.word_feasibility(SPACE, VECTORS.get)[SPACE.flat()]
    sweep = czslkit.Sweep(
        SPACE.pairs, SPACE.seen, None, feasibility, [threshold], topk=topk, bins=bins, infeasible=infeasible
    )
    sweep.update(*IMAGES)
    return sweep.compute_all()[0]


def number(metrics: Metrics, name: str) -> float:
    found: Any = metrics
    for part in name.split("."):
        found = getattr(found, part)
    return float(found)


def test_the_page_has_the_whole_example() -> None:
    assert SCORES.shape == (2, 3)
    names = {name for column, name, _ in NUMBERS if column == "exact"}
    parts = {field.name for field in fields(Accuracies)}
    at = {f"{where}.{part}" for where in ("at_zero", "at_limit") for part in parts}
    of_metrics = {field.name for field in fields(Metrics)} - {"at_zero", "at_limit", "curve"}
    assert names == of_metrics | at | {"attr_acc", "obj_acc"}
    assert len({column for column, *_ in NUMBERS}) == 10


@pytest.mark.parametrize(("column", "name", "stated"), NUMBERS)
def test_a_number_is_that_of_czslkit_and_of_a_naive_loop(column: str, name: str, stated: float) -> None:
    assert number(measured(*options(column)), name) == pytest.approx(stated, abs=1e-6)
    assert Naive(*options(column)).numbers()[name] == pytest.approx(stated, abs=1e-6)


def test_the_feasibility_of_the_example_is_that_of_the_page() -> None:
    assert "(0.8 + 0.6) / 2 = 0.7" in PAGE
    found = czslkit.word_feasibility(SPACE, VECTORS.get).reshape(len(ATTRS), len(OBJS))
    for a, attr in enumerate(ATTRS):
        for o, obj in enumerate(OBJS):
            assert float(found[a, o]) == pytest.approx(naive_feasibility(attr, obj), abs=1e-6)
    assert naive_feasibility("wet", "cat") == naive_feasibility("dry", "dog") == pytest.approx(0.7)


@pytest.mark.parametrize("kind", [Metrics, Accuracies, Curve])
def test_every_number_has_a_definition(kind: type) -> None:
    for field in fields(kind):
        assert f"`{field.name}`" in PAGE, f"docs/metrics.md does not say what {kind.__name__}.{field.name} is"


EYE, ONE_SEEN = np.eye(2), [True, False]
TWO = [[0, 0], [0, 1]]


@pytest.mark.parametrize("bins", ["exact", "original"])
def test_without_images_of_a_kind_its_numbers_are_zero(bins: Any) -> None:
    assert "| there are no seen images | S, H and AUC are 0; U is computed as usual |" in PAGE
    found = czslkit.evaluate(EYE[1:], [0], [1], TWO, ONE_SEEN, bins=bins)
    assert (found.best_seen, found.best_hm, found.auc, found.best_unseen) == (0, 0, 0, 1)
    assert "| there are no unseen images | U, H and AUC are 0; in the exact curve, S is computed as usual;" in PAGE
    found = czslkit.evaluate(EYE[:1], [0], [0], TWO, ONE_SEEN, bins=bins)
    assert (found.best_unseen, found.best_hm, found.auc) == (0, 0, 0)
    assert found.best_seen == (1 if bins == "exact" else 0)
    assert found.hm_bias == (-math.inf if bins == "exact" else 1000)


@pytest.mark.parametrize("bins", ["exact", "original"])
def test_without_an_unseen_image_that_is_ever_right_the_curve_is_empty(bins: Any) -> None:
    assert (
        "| no unseen image is ever right | U, H and AUC are 0; S is computed as if there were no unseen images |"
        in PAGE
    )
    scores = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # the second shows column 1, behind the unseen column 2
    found = czslkit.evaluate(scores, [0, 0], [0, 1], [[0, 0], [0, 1], [0, 2]], [True, False, False], bins=bins)
    assert (found.best_unseen, found.best_hm, found.auc) == (0, 0, 0)
    assert found.best_seen == (1 if bins == "exact" else 0)
    assert found.hm_bias == (-math.inf if bins == "exact" else 1000)


def test_between_equal_scores_the_lower_column_wins() -> None:
    for seen in ([True, True], [False, False], [True, False], [False, True]):
        for target in (0, 1):
            found = czslkit.evaluate(np.zeros((1, 2)), [0], [target], TWO, seen, bins="original")
            assert found.at_zero.pair == (target == 0)


def test_the_other_edges_are_as_stated() -> None:
    pairs, seen = [[0, 0], [0, 1], [0, 2]], [True, False, False]
    never = czslkit.evaluate([[0.0, 1.0, 2.0]], [0], [2], pairs, seen, [True, True, False])
    assert (never.n_unseen, never.best_unseen) == (1, 0)
    alone = czslkit.evaluate([[0.0, 1.0, 2.0]], [0], [0], pairs, seen, [True, False, False])
    assert (alone.at_limit.pair, alone.curve.biases.tolist()) == (1, [-math.inf])
    few = czslkit.evaluate([[0.0, 1.0, 2.0]] * 2, [0, 0], [0, 2], pairs, seen, [True, False, True], topk=5)
    assert (few.at_zero.pair, few.at_limit.pair) == (1, 1)


def test_a_constant_matters_where_float32_cannot_tell_scores_apart() -> None:
    assert "scores 0 and 0.00005 differ after adding 1000 and are equal after adding 1100" in " ".join(PAGE.split())
    for constant, right in ((0.0, 1.0), (100.0, 0.0)):
        scores = np.array([[0.0, 0.00005]]) + constant
        found = czslkit.evaluate(scores, [0], [1], TWO, [False, False], bins="original")
        assert found.at_limit.pair == right
        assert czslkit.evaluate(scores, [0], [1], TWO, [False, False]).at_limit.pair == 1
