"""The evaluator, compared with the whole matrix of scores masked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import czslkit
from czslkit.data import demo_world
from czslkit.data.batches import Feed
from czslkit.data.make.mini import write_mini
from czslkit.data.splits import Splits
from czslkit.errors import ConfigError, PluginError
from czslkit.evaluation.evaluator import EvalOptions, Evaluation, OpenWorld, SearchedThreshold, searched_threshold
from czslkit.metrics.sweep import Metrics, evaluate
from czslkit.options import as_dict, parse
from czslkit.precision import PRECISIONS
from czslkit.types import Setting

NUMBERS = ("auc", "best_seen", "best_unseen", "best_hm", "attr_acc", "obj_acc")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """A dataset of 8 attributes x 6 objects and 24 seen pairs, with names that the demo CLIP knows."""
    root = tmp_path_factory.mktemp("data")
    write_mini("cgqa", root)
    data = czslkit.load_dataset("cgqa", root)
    return replace(data, space=replace(data.space, attrs=demo_world.ATTRS[:8], objs=demo_world.OBJS[:6]))


@pytest.fixture
def method(data: Splits, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A CLIP that records which pairs it encodes and the settings of its scores."""
    monkeypatch.setattr("czslkit.data.batches.has_fixed_features", lambda *_: True)  # encodes texts, too
    method = czslkit.build("clip", data.space, backbone="demo")
    method.asked, method.settings = [], []
    text, rank = method.text, method.rank

    monkeypatch.setattr("czslkit.data.batches.has_fixed_features", lambda *_: True)  # would score pairs, too

    def recorded_text(pairs: Tensor) -> Any:
        method.asked.append(pairs.tolist())
        return text(pairs)

    def recorded_rank(images: Any, text: Any, setting: Setting) -> Tensor:
        method.settings.append(setting)
        return rank(images, text, setting)

    method.text, method.rank = recorded_text, recorded_rank
    return method


@pytest.fixture(scope="module")
def feasible(data: Splits) -> Tensor:
    """Feasibility from -0.2 to 1, higher for pairs that have images."""
    values = torch.rand(48, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.2
    shown = data.space.flat()
    values[shown] = 0.7 * values[shown] + 0.3
    return values


def feed(method: Any, split: Any) -> Feed:
    return Feed(method, split, 7)


def sweeps(method: Any, data: Splits, worlds: list[str], *rule: Any) -> dict[str, Any]:
    """Return the filled sweeps of the test split."""
    open_world = OpenWorld(*rule) if rule else None
    return Evaluation.plan(method, data, "test", worlds, feed(method, data.test), open_world=open_world).run()


@pytest.fixture(scope="module")
def naive(data: Splits, feasible: Tensor) -> Any:
    """Return the metrics of the whole matrix of scores of a split."""
    method = czslkit.build("clip", data.space, backbone="demo").eval()
    space, dense = data.space.open(), {}
    with torch.no_grad():
        text = method.text(space.pairs)
        for split in (data.val, data.test):
            dense[split.name] = torch.cat([method.rank(batch.images, text) for batch in feed(method, split).batches()])

    def measure(split: Any, threshold: float, infeasible: str, bins: Any) -> Metrics:
        scores, labels = dense[split.name], (split.attr, split.obj, space.pairs, space.seen)
        if infeasible == "exclude":
            return evaluate(scores, *labels, (feasible >= np.float32(threshold)) | space.seen, bins=bins)
        held = feasible.masked_fill(space.seen, 0) >= np.float32(threshold)
        return evaluate(scores * (held.float() + space.seen.float()), *labels, bins=bins)

    return measure


@pytest.mark.parametrize("threshold", [-0.2, 0.3, 0.7])
@pytest.mark.parametrize("infeasible", ["exclude", "original"])
@pytest.mark.parametrize("bins", ["exact", "original"])
def test_a_threshold_gives_the_numbers_of_the_masked_matrix(
    data: Splits, method: Any, feasible: Tensor, naive: Any, threshold: float, infeasible: Any, bins: Any
) -> None:
    filled = sweeps(method, data, ["open"], feasible, [threshold], infeasible)
    (found,), expected = filled["open"].compute_all(bins), naive(data.test, threshold, infeasible, bins)
    assert expected.auc > 0
    for name in NUMBERS:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-9), name


@pytest.mark.parametrize("infeasible", ["exclude", "original"])
def test_infeasible_pairs_are_never_encoded(data: Splits, method: Any, feasible: Tensor, infeasible: Any) -> None:
    sweeps(method, data, ["open"], feasible, [0.5], infeasible)
    space = data.space.open()
    kept = space.pairs[(feasible >= 0.5) | space.seen]
    assert 24 < len(kept) < 48
    assert method.asked == 2 * [kept.tolist()]  # to measure what they take, and to be scored
    assert {setting.columns for setting in method.settings} == {48}


def test_a_method_whose_scores_depend_on_the_pairs_sees_all_of_them(
    data: Splits, method: Any, feasible: Tensor, naive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(method), "chunkable", False)
    filled = sweeps(method, data, ["open"], feasible, [0.5])
    assert [len(pairs) for pairs in method.asked] == [48, 48]  # to measure what they take, and to be scored
    expected = naive(data.test, 0.5, "exclude", "exact")
    assert filled["open"].compute_all("exact")[0].auc == pytest.approx(expected.auc, abs=1e-9)


def test_the_closed_world_has_no_threshold(data: Splits, method: Any, feasible: Tensor) -> None:
    both = sweeps(method, data, ["closed", "open"], feasible, [0.5])
    alone = sweeps(method, data, ["closed"])
    assert both["closed"].compute_all() == alone["closed"].compute_all()
    assert both["closed"].candidates.thresholds is None


def test_feasibility_is_one_number_for_each_pair(data: Splits, method: Any, feasible: Tensor) -> None:
    with pytest.raises(ValueError, match=r"feasibility is \[47\], expected \[48\], one value for each pair"):
        sweeps(method, data, ["open"], feasible[:47], [0.5])


def test_an_evaluation_can_be_run_again(data: Splits, method: Any) -> None:
    """The evaluation is measured once, and each run starts from empty sweeps."""
    evaluation = Evaluation.plan(method, data, "test", ["closed"], feed(method, data.test))
    first, second = evaluation.run()["closed"], evaluation.run()["closed"]
    assert first is not second
    assert first.compute_all() == second.compute_all()
    assert len(method.asked) == 3  # once to measure, and once for each run


def test_images_texts_and_scores_are_computed_in_the_number_format_of_the_feed(data: Splits, method: Any) -> None:
    found = {}
    for precision in PRECISIONS:
        feed = Feed(method, data.test, 7, precision=precision)
        found[precision] = Evaluation.plan(method, data, "test", ["closed"], feed).run()["closed"].top_scores()[0]
    fp32, tf32, bf16 = found.values()
    assert torch.equal(tf32.true_score, fp32.true_score)  # on a CPU
    assert not torch.equal(bf16.true_score, fp32.true_score)
    torch.testing.assert_close(bf16.true_score, fp32.true_score, rtol=0.05, atol=0.5)
    assert len(bf16.true_score.unique()) > 0.9 * len(fp32.true_score.unique())  # scores keep their digits


@pytest.mark.parametrize("infeasible", ["exclude", "original"])
@pytest.mark.parametrize("bins", ["exact", "original"])
def test_the_search_finds_what_a_loop_over_thresholds_finds(
    data: Splits, method: Any, feasible: Tensor, naive: Any, infeasible: Any, bins: Any
) -> None:
    unseen = feasible[~data.space.open().seen].double()
    best, threshold = 0.0, -10.0
    for tried in np.linspace(float(unseen.min()), float(unseen.max()), 50):
        auc = naive(data.val, tried, infeasible, bins).auc
        if auc > best:
            best, threshold = auc, float(tried)
    without_test = replace(data, test=None)
    validation = feed(method, data.val)
    found = searched_threshold(method, without_test, feasible, validation, bins=bins, infeasible=infeasible)
    assert found.value == threshold
    expected = naive(data.val, threshold, infeasible, bins)
    assert found.bias == (expected.hm_bias if expected.best_hm else None)
    assert best > 0.01 + naive(data.val, -1, "exclude", bins).auc  # the search has something to find


def test_the_search_scores_pairs_as_on_the_test_split(data: Splits, method: Any, feasible: Tensor) -> None:
    searched_threshold(method, data, feasible, feed(method, data.val), bins="original")
    assert [len(pairs) for pairs in method.asked] == [48, 48]  # to measure what they take, and for all 50 thresholds
    assert set(method.settings) == {Setting("test", "open", 48)}


def test_every_pair_is_a_candidate_if_every_threshold_has_auc_0(data: Splits, method: Any, feasible: Tensor) -> None:
    only_seen = replace(data.val, attr=data.train.attr[:48], obj=data.train.obj[:48])
    flawed = replace(data, val=only_seen)
    assert searched_threshold(method, flawed, feasible, feed(method, only_seen), bins="exact") == SearchedThreshold(
        -10, None
    )


def test_the_source_of_feasibility_is_a_name_or_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").touch()
    for source in ("file", "clip", str(tmp_path / "glove.txt")):
        options = parse(EvalOptions, {"threshold": "search", "feasibility": source}, where="csp.eval")
        assert parse(EvalOptions, as_dict(options), where="csp.eval") == options
    message = (
        r"^csp\.eval: feasibility is 'clpi', expected file, clip, method or the path of an existing file\. "
        r"Did you mean 'clip'\?$"
    )
    with pytest.raises(ConfigError, match=message):
        parse(EvalOptions, {"feasibility": "clpi"}, where="csp.eval")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("best", r"threshold is 'best', expected a number or search\.$"),
        (1.5, r"threshold is 1\.5, expected at most 1$"),
        ("nan", "threshold is 'nan', expected a number or search"),
    ],
)
def test_a_threshold_is_a_cosine_search_or_nothing(value: Any, message: str) -> None:
    assert parse(EvalOptions, {"threshold": None}, where="eval") == EvalOptions()
    with pytest.raises(ConfigError, match=message):
        parse(EvalOptions, {"threshold": value}, where="eval")


def test_a_score_that_is_no_number_stops_an_evaluation(method: Any, data: Splits) -> None:
    rank = method.rank
    method.rank = lambda images, text, setting: rank(images, text, setting) * torch.nan
    with pytest.raises(PluginError, match="returned scores that are NaN or infinite"):
        sweeps(method, data, ["closed"])
    method.rank = lambda images, text, setting: None
    with pytest.raises(PluginError, match="returned a NoneType"):
        sweeps(method, data, ["closed"])
