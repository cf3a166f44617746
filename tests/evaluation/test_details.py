"""The detail files, compared with loops over the whole matrix of scores."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from czslkit.data.splits import Split, Splits
from czslkit.evaluation import details as module
from czslkit.evaluation.details import detail_files, details, predictions
from czslkit.metrics.curves import predict
from czslkit.metrics.outcomes import Outcomes
from czslkit.metrics.sweep import Sweep, evaluate
from czslkit.types import PairSpace

WORDS = ("dry", "wet", "old"), ("cat", "dog", "bus", "car")
both_bins = pytest.mark.parametrize("bins", ["exact", "original"])


@pytest.fixture
def space() -> PairSpace:
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    return PairSpace(*WORDS, pairs, torch.arange(12) % 3 > 0)


@pytest.fixture
def target() -> Tensor:
    return torch.randint(0, 11, (300,), generator=torch.Generator().manual_seed(1))  # none of the last pair


@pytest.fixture
def scores(target: Tensor) -> Tensor:
    scores = torch.randn(300, 12, generator=torch.Generator().manual_seed(0))
    scores[torch.arange(300), target] += 1
    return scores


@pytest.fixture
def sweep(space: PairSpace, scores: Tensor, target: Tensor) -> Sweep:
    sweep = Sweep(space.pairs, space.seen, keep=5)
    sweep.update(scores, *space.pairs[target].unbind(1))
    return sweep


def details_json(sweep: Sweep, space: PairSpace, bins: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(detail_files(sweep, space, bins)["details.json"])
    return content


def guesses(scores: Tensor, space: PairSpace, bias: float) -> list[int]:
    """Return the predicted columns at a bias by sorting all scores."""
    found = []
    for row in scores.tolist():
        moved = [score + bias * (not seen) for score, seen in zip(row, space.seen.tolist(), strict=True)]
        found.append(moved.index(max(moved)))
    return found


@both_bins
def test_accuracies_of_pairs_attributes_and_objects_are_counted_one_by_one(
    sweep: Sweep, space: PairSpace, scores: Tensor, target: Tensor, bins: str
) -> None:
    content = details_json(sweep, space, bins)
    truth = [tuple(space.pairs[t].tolist()) for t in target]
    by_bias = [
        [tuple(space.pairs[c].tolist()) for c in guesses(scores, space, bias)] for bias in content["biases"].values()
    ]

    def share(names: Any, value: Any) -> list[float]:
        rows = [i for i, pair in enumerate(truth) if names(pair) == value]
        right = ([names(guess[i]) == value for i in rows] for guess in by_bias)
        return [len(rows), *(pytest.approx(np.mean(hits), abs=1e-4) for hits in right)]  # type: ignore[list-item]

    pairs = sorted(set(truth))
    seen = {tuple(pair): flag for pair, flag in zip(space.pairs.tolist(), space.seen.tolist(), strict=True)}
    assert content["pairs"]["columns"] == [
        *("attribute", "object", "seen", "images", "accuracy_at_zero", "accuracy_at_best_hm")
    ]
    assert content["pairs"]["rows"] == [
        [WORDS[0][a], WORDS[1][o], seen[a, o], *share(lambda pair: pair, (a, o))] for a, o in pairs
    ]
    for part, kind in enumerate(("attributes", "objects")):
        words = [[word, *share(lambda pair, part=part: pair[part], i)] for i, word in enumerate(WORDS[part])]
        assert content[kind]["rows"] == words
    assert sum(row[3] for row in content["pairs"]["rows"]) == 300


@both_bins
def test_the_accuracies_add_up_to_those_of_the_curve(sweep: Sweep, space: PairSpace, bins: Any) -> None:
    content, (metrics,) = details_json(sweep, space, bins), sweep.compute_all(bins)
    assert content["biases"] == {"zero": 0.0, "best_hm": metrics.hm_bias}
    for flag, expected in ((True, metrics.hm_seen), (False, metrics.hm_unseen)):
        rows = [row for row in content["pairs"]["rows"] if row[2] == flag]
        images = sum(row[3] for row in rows)
        assert sum(row[3] * row[5] for row in rows) / images == pytest.approx(expected, abs=1e-4)


def test_top_k_accuracies_agree_with_sorted_scores(
    sweep: Sweep, space: PairSpace, scores: Tensor, target: Tensor
) -> None:
    place = [row.argsort(descending=True).tolist().index(t) for row, t in zip(scores, target.tolist(), strict=True)]
    assert details_json(sweep, space, "exact")["accuracy_of_top_k_at_zero"] == {
        str(k): pytest.approx(np.mean([p < k for p in place]), abs=1e-6) for k in (1, 3, 5)
    }


def test_top_k_accuracies_beyond_the_kept_columns_are_left_out(
    space: PairSpace, scores: Tensor, target: Tensor
) -> None:
    short = Sweep(space.pairs, space.seen, keep=3)
    short.update(scores, *space.pairs[target].unbind(1))
    assert list(details_json(short, space, "exact")["accuracy_of_top_k_at_zero"]) == ["1", "3"]


@both_bins
def test_confused_pairs_are_counted(sweep: Sweep, space: PairSpace, scores: Tensor, target: Tensor, bins: str) -> None:
    content = details_json(sweep, space, bins)
    names = [(WORDS[0][a], WORDS[1][o]) for a, o in space.pairs.tolist()]
    for at, bias in content["biases"].items():
        pairs = zip(target.tolist(), guesses(scores, space, bias), strict=True)
        counted = Counter((*names[t], *names[g]) for t, g in pairs if t != g)
        rows = [(*row[:4], row[4]) for row in content[f"confused_at_{at}"]["rows"]]
        assert len(rows) == 20
        assert {row[:4]: row[4] for row in rows}.items() <= counted.items()
        assert [row[4] for row in rows] == sorted(counted.values(), reverse=True)[:20]


def test_confused_attributes_are_counted_at_bias_zero(
    sweep: Sweep, space: PairSpace, scores: Tensor, target: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [space.attrs[attr] for attr, _ in space.pairs.tolist()]
    found = zip(target.tolist(), guesses(scores, space, 0.0), strict=True)
    expected = Counter((names[true], names[guess]) for true, guess in found if names[true] != names[guess])
    table = details_json(sweep, space, "original")["confused_attributes_at_zero"]
    assert {(true, guess): n for true, guess, n in table["rows"]} == expected
    counts = [n for *_, n in table["rows"]]
    assert counts == sorted(counts, reverse=True)
    monkeypatch.setattr(module, "MAX_WORD_CONFUSIONS", 2)
    assert details_json(sweep, space, "original")["confused_attributes_at_zero"]["rows"] == table["rows"][:2]


def test_an_infinite_bias_is_text_in_json(space: PairSpace) -> None:
    sweep = Sweep(space.pairs, space.seen)
    sweep.update(torch.eye(12)[space.seen], *space.pairs[space.seen].unbind(1))
    content = details_json(sweep, space, "exact")
    assert content["biases"]["best_hm"] == "-inf"
    assert content["confused_at_zero"]["rows"] == []


@pytest.mark.parametrize("topk", [1, 2])
def test_predictions_at_any_bias_are_those_of_the_shifted_scores(space: PairSpace, topk: int) -> None:
    random = torch.Generator().manual_seed(5)
    scores = torch.randint(-12, 12, (60, 12), generator=random) / 8
    sweep = Sweep(space.pairs, space.seen, torch.arange(12) != 4, topk=topk)
    sweep.update(scores, *space.pairs[torch.arange(60) % 12].unbind(1))
    (top_scores,) = sweep.top_scores()
    for bias in (-math.inf, -0.5, 0.0, 0.25, 1000.0, math.inf):
        for bins in ("exact", "original"):
            far = {math.inf: 1e6, -math.inf: -1e6}.get(bias, bias)
            moved = scores.double() + far * ~space.seen
            for row, found in zip(moved.tolist(), predict(top_scores, bias, bins).tolist(), strict=True):  # type: ignore[arg-type]
                allowed = [c for c in range(12) if c != 4]
                assert found == sorted(allowed, key=lambda c: (-row[c], c))[:topk]


def test_the_csv_has_every_point_of_both_curves(sweep: Sweep, space: PairSpace) -> None:
    rows = list(csv.DictReader(io.StringIO(detail_files(sweep, space, "exact")["curve.csv"].decode())))
    assert list(rows[0]) == ["curve", "bias", "seen", "unseen"]
    for bins in ("original", "exact"):
        points = [tuple(float(row[k]) for k in ("bias", "seen", "unseen")) for row in rows if row["curve"] == bins]
        (metrics,) = sweep.compute_all(bins)  # type: ignore[arg-type]
        assert points == list(zip(*metrics.curve.to_dict().values(), strict=True))
    assert [row["bias"] for row in rows if row["curve"] == "exact"][:: len(points) - 1] == ["-inf", "inf"]


def test_numbers_per_image_are_those_of_the_evaluation(
    sweep: Sweep, space: PairSpace, scores: Tensor, target: Tensor
) -> None:
    images = Outcomes.from_bytes(detail_files(sweep, space, "exact")["images.npz"])
    assert images.target.tolist() == target.tolist()
    assert images.is_seen.tolist() == space.seen[target].tolist()
    guess = guesses(scores, space, 0)
    assert images.attr_right.tolist() == (space.pairs[guess, 0] == space.pairs[target, 0]).tolist()
    assert images.obj_right.tolist() == (space.pairs[guess, 1] == space.pairs[target, 1]).tolist()
    own = scores[torch.arange(300), target]
    assert images.true_score[images.reachable].tolist() == own[torch.from_numpy(images.reachable)].tolist()
    assert images.true_score.dtype == np.float32


def test_at_a_threshold_the_details_are_those_of_its_candidates(
    space: PairSpace, scores: Tensor, target: Tensor
) -> None:
    feasible = torch.linspace(-1, 1, 12)
    line: dict[str, Any] = {"feasibility": feasible, "thresholds": [0.0], "keep": 5}
    for infeasible in ("exclude", "original"):
        cut = Sweep(space.pairs, space.seen, **line, infeasible=infeasible)
        cut.update(scores, *space.pairs[target].unbind(1))
        factor = (feasible.masked_fill(space.seen, 0) >= 0).float() + space.seen  # 2 for seen pairs at a threshold of 0
        masked = scores * factor if infeasible == "original" else scores
        kept = None if infeasible == "original" else space.seen | (feasible >= 0)
        whole = Sweep(space.pairs, space.seen, kept, keep=5)
        whole.update(masked, *space.pairs[target].unbind(1))
        assert details_json(cut, space, "exact") == details_json(whole, space, "exact")
        metrics = evaluate(masked, *space.pairs[target].unbind(1), space.pairs, space.seen, kept)
        assert details_json(cut, space, "exact")["accuracy_of_top_k_at_zero"]["1"] == pytest.approx(
            metrics.at_zero.pair, abs=1e-6
        )


def test_the_details_of_c_gqa_stay_small() -> None:
    """The test split has 1,811 pairs of 413 attributes and 674 objects."""
    flat = torch.randperm(413 * 674, generator=torch.Generator().manual_seed(0))[:1811].sort().values
    pairs = torch.stack([flat // 674, flat % 674], 1)
    words = (tuple(f"{kind} {i}" for i in range(size)) for kind, size in (("attribute", 413), ("object", 674)))
    space = PairSpace(*words, pairs, torch.arange(1811) < 888)
    sweep = Sweep(pairs, space.seen, keep=5)
    sweep.update(torch.randn(1811, 1811), *pairs.unbind(1))
    sizes = {name: len(content) for name, content in detail_files(sweep, space, "exact").items()}
    assert sizes["details.json"] < 250_000
    assert sizes["images.npz"] < 60_000


def test_every_table_has_a_name_for_each_column(sweep: Sweep, space: PairSpace) -> None:
    (top_scores,) = sweep.top_scores()
    content = details(top_scores, space.pairs, space, sweep.compute_all("exact")[0], "exact")
    assert content["format"] == module.FORMAT
    for table in (value for value in content.values() if isinstance(value, dict) and "rows" in value):
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}
        assert "images" in table["columns"]


@both_bins
def test_the_predicted_pair_of_each_image_is_that_of_the_highest_score(
    sweep: Sweep, space: PairSpace, scores: Tensor, target: Tensor, bins: Any, tmp_path: Path
) -> None:
    paths = tuple(tmp_path / "images" / f"{i % 7}" / f"{i}.jpg" for i in range(300))
    split = Split("test", paths, *space.pairs[target].unbind(1), space.pairs)
    data = Splits("pets", tmp_path, space, split, split, split, "", 0)
    found = predictions(sweep, data, bins)
    columns = guesses(scores, space, sweep.compute_all(bins)[0].hm_bias)
    names = [
        (space.attrs[a], space.objs[o], seen)
        for (a, o), seen in zip(space.pairs.tolist(), space.seen.tolist(), strict=True)
    ]
    assert [found.pairs[number] for number in found.predicted] == [names[column] for column in columns]
    assert [found.pairs[number] for number in found.true] == [names[column] for column in target.tolist()]
    assert found.folder == str(tmp_path / "images")
    assert found.images[8] == "1/8.jpg" and len(found) == 300
