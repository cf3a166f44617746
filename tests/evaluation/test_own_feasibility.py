"""The open world of a method itself: its feasibility, the epoch that it selects, and the pairs that it masks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import czslkit
from czslkit.data.batches import Feed
from czslkit.data.splits import Splits
from czslkit.errors import ConfigError
from czslkit.evaluation.evaluator import Evaluation
from czslkit.evaluation.feasibility_source import FeasibilityScores, method_feasibility
from czslkit.evaluation.validation import plan_validation
from czslkit.method import METHODS
from czslkit.metrics.feasibility import threshold_grid
from czslkit.options import parse
from czslkit.training.epoch import Trainer
from czslkit.training.options import TrainOptions
from czslkit.types import VALIDATION, Setting, TextFeatures
from czslkit_plugins.csp import Csp

ASKED: list[bool] = []  # for each call of feasibility, whether the method was in training mode


class Knowing(Csp):
    """CSP that derives the feasibility of a pair from its learned words."""

    version = 1

    def feasibility(self) -> Tensor:
        ASKED.append(self.training)
        words = torch.nn.functional.normalize(self.prompt.words, dim=1)
        return (words[: len(self.space.attrs)] @ words[len(self.space.attrs) :].T).flatten()


class Masking(Csp):
    """CSP that never predicts the last pair of the candidates."""

    version = 1
    masks_pairs = "the last pair"
    masked_score = -torch.inf

    def rank(self, images: Any, text: TextFeatures, setting: Setting = VALIDATION) -> Tensor:
        last = (text.pairs == self.space.pairs[-1].to(text.pairs.device)).all(1)
        return super().rank(images, text, setting).masked_fill(last, self.masked_score)


class Lowering(Masking):
    """CSP that gives the last pair of the candidates a very low score."""

    masked_score = -1e6


class StreamingMask(Masking):
    streams = True


class StreamingLow(Lowering):
    streams = True


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    list(METHODS)  # every plugin is loaded, so that the copy below holds them all
    monkeypatch.setattr(METHODS, "_items", {**METHODS._items, "knowing": Knowing, "masking": Masking})
    for name, cls in {"lowering": Lowering, "stream-mask": StreamingMask, "stream-low": StreamingLow}.items():
        METHODS._items[name] = cls
    ASKED.clear()


@pytest.fixture
def data(toys: Path) -> Splits:
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def bench(toys: Path, clip_file: Path, tmp_path: Path) -> Any:
    """Benchmark on the toys; its log lines are in ``.log_lines``."""

    def go(methods: str = "knowing", worlds: str = "closed,open", *, seeds: Any = (0,), **settings: Any) -> Any:
        go.log_lines = []
        quick = {"backbone": str(clip_file), "train.epochs": 2, "train.batch_size": 8, "train.lr": 1e-2}
        named = {key.replace("__", "."): value for key, value in settings.items()}
        where = {"data": toys, "runs": tmp_path / "runs", "log": go.log_lines.append, "progress": False}
        return czslkit.bench(methods, "toys", worlds, seeds, settings=quick | named, **where)

    return go


@pytest.fixture
def trained(tmp_path: Path, data: Splits, clip_file: Path) -> Callable[[str], Any]:
    """Return a stored method of a benchmark."""

    def go(name: str) -> Any:
        (folder,) = (tmp_path / "runs" / "toys" / name).glob("*/training")
        return czslkit.load(folder)

    return go


def test_the_trained_method_is_asked_for_the_candidates_of_the_open_world(
    bench: Any, trained: Any, data: Splits
) -> None:
    closed, opened = bench(eval__feasibility="method", eval__threshold=0.01).results
    assert ASKED == [False]
    values = method_feasibility(trained("knowing")).values
    kept = int(((values >= 0.01) | data.space.open().seen).sum())
    assert 5 < kept < 9
    protocol = opened["protocol"]
    assert (protocol["candidates"], protocol["threshold"], protocol["threshold_from"]) == (kept, 0.01, "given")
    assert protocol["feasibility"] == "method"
    assert protocol["feasibility_sha256"] == FeasibilityScores(values, "").digest
    assert closed["protocol"]["threshold"] is None and "feasibility" not in closed["protocol"]
    bench(eval__feasibility="method", eval__threshold=0.01)
    assert bench.log_lines[-1].endswith("done before")


def test_a_threshold_is_searched_with_the_feasibility_of_the_method(bench: Any, trained: Any, data: Splits) -> None:
    (found,) = bench(worlds="open", eval__feasibility="method", eval__threshold="search").results
    values = method_feasibility(trained("knowing")).values
    protocol = found["protocol"]
    assert protocol["threshold_from"] == "searched on validation"
    assert protocol["feasibility_sha256"] == FeasibilityScores(values, "").digest
    assert protocol["threshold"] in [-10, *threshold_grid(values, data.space.open().seen)]
    assert any("threshold search, about: 8 images x 9 pairs" in line for line in bench.log_lines)
    assert any("test, open world, at most, about: 8 images x 9 pairs" in line for line in bench.log_lines)


def test_trainings_with_their_own_feasibility_are_compared(bench: Any) -> None:
    result = bench(worlds="open", seeds=(0, 1), eval__feasibility="method", eval__threshold=0.01)
    first, second = (found["protocol"]["feasibility_sha256"] for found in result.results)
    assert first != second
    assert (
        "In the open world of toys, unseen pairs with feasibility below 0.01 are excluded (threshold given, "
        "feasibility from the method itself)."
    ) in result.table().caption()
    assert "measured alike" not in " ".join(result.table().caption())


def test_a_method_without_feasibility_fails_before_its_training_in_the_open_world_alone(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"eval__feasibility": "method", "eval__threshold": 0.1}
    closed, opened = bench("csp", **settings).results
    message = (
        "eval.feasibility is method, but Csp has no feasibility of its own: define feasibility() in it, or set "
        "eval.feasibility to file, clip or the path of a file"
    )
    assert (closed["status"], opened["error"]["message"]) == ("done", message)
    monkeypatch.setattr(Trainer, "run", lambda *arguments: pytest.fail("trained"))
    (opened,) = bench("csp", "open", **settings).results
    assert opened["error"]["message"] == message


def test_feasibility_without_a_threshold_is_not_asked_for(bench: Any) -> None:
    assert bench("csp,knowing", eval__feasibility="method").failed == 0
    assert not ASKED


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(8), "float32 [8], expected floats [9]: one for each of 3 attributes x 3 objects"),
        (torch.zeros(9).long(), "int64 [9], expected floats [9]"),
        ([0.0] * 9, "holds a list, expected a tensor"),
        (torch.linspace(0, 1.6, 9), ": number 6 (red left) is 1.2, expected -1 to 1"),
        (torch.zeros(9).index_fill(0, torch.tensor(2), torch.nan), ": number 2 (blue whole) is nan, expected -1 to 1"),
    ],
)
def test_feasibility_is_one_number_for_each_combination(
    values: Any, message: str, data: Splits, clip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = czslkit.build("knowing", data.space, backbone=str(clip_file))
    monkeypatch.setattr(Knowing, "feasibility", lambda self: values)
    with pytest.raises(ConfigError, match=r"^Knowing\.feasibility\(\).*" + re.escape(message)):
        method_feasibility(method)


def test_feasibility_has_no_gradient_and_may_exceed_one_by_rounding(data: Splits, clip_file: Path) -> None:
    method: Any = czslkit.build("knowing", data.space, backbone=str(clip_file)).train()
    found = method_feasibility(method)
    assert not found.values.requires_grad and found.source == "method"
    method.feasibility = lambda: torch.ones(9, dtype=torch.double) + 1e-7
    assert method_feasibility(method).values.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        ({}, None),
        ({"eval__threshold": 0.5, "eval__feasibility": "clip"}, 0.5),
        ({"eval__threshold": "search", "eval__feasibility": "clip"}, None),
        ({"eval__threshold": 0.5, "eval__feasibility": "method"}, None),
    ],
)
def test_the_open_world_selects_the_epoch_among_the_candidates_that_are_known_before_training(
    settings: Any, threshold: Any, bench: Any, data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []
    real = Evaluation.plan

    def recorded(method: Any, data: Any, split: str, worlds: Any, *arguments: Any, **named: Any) -> Evaluation:
        if split == "val":
            planned.append((list(worlds), named.get("open_world")))
        return real(method, data, split, worlds, *arguments, **named)

    monkeypatch.setattr(Evaluation, "plan", recorded)
    closed, opened = bench(train__select_world="open", **settings).results
    assert (closed["status"], opened["status"]) == ("done", "done")
    world, rule = next((worlds, rule) for worlds, rule in planned if not rule or len(rule.thresholds) == 1)
    assert (world, rule and list(rule.thresholds)) == (["open"], threshold and [threshold])
    for found in (closed, opened):
        assert found["protocol"]["selected_by"] == "validation AUC, open world"
        assert found["config"]["train"]["select_world"] == "open"
        assert ("feasibility" in found["depends"]["training"]) == (threshold is not None)


def test_the_validation_is_the_auc_of_the_open_world_in_a_given_memory(data: Splits, clip_file: Path) -> None:
    method = czslkit.build("csp", data.space, backbone=str(clip_file))
    options, feed = TrainOptions(select_world="open"), Feed(method, data.val, 8)
    expected = Evaluation.plan(method, data, "val", ["open"], feed).run()["open"].compute_all("exact")[0]
    found = plan_validation(method, data, feed, options, bins="exact")()
    bias = {"val_bias": min(max(expected.hm_bias, -1000), 1000)} if expected.best_hm else {}
    assert found == {"val_auc": expected.auc, **bias}
    with pytest.raises(ConfigError, match=r"memory is 1\.0 kB, but"):
        plan_validation(method, data, feed, options, bins="exact", memory=1000)


def test_the_epoch_of_the_open_world_needs_an_auc() -> None:
    message = (
        r"^csp\.train: select_world is 'open', but no AUC selects the epoch while select is 'last'; "
        r"set select to 'auc' or select_world to 'closed'$"
    )
    with pytest.raises(ConfigError, match=message):
        parse(TrainOptions, {"select_world": "open", "select": "last"}, where="csp.train")


def test_a_changed_feasibility_file_makes_a_training_that_it_selected_stale(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "feasibility.pt"
    settings = {"eval__threshold": 0.5, "eval__feasibility": str(file), "train__select_world": "open"}
    torch.save(torch.linspace(-1, 1, 9), file)
    (first,) = bench("csp", "closed", **settings).results
    bench("csp", "closed", **settings)
    assert bench.log_lines[-1].endswith("done before")
    torch.save(torch.linspace(1, -1, 9), file)
    (again,) = bench("csp", "closed", **settings).results
    assert any(line.endswith("closed world stale because feasibility changed") for line in bench.log_lines)
    assert again["training_key"] != first["training_key"]
    other = bench("csp", "closed", **{**settings, "eval__threshold": 0.4}).results[0]
    assert other["training_key"] != again["training_key"]
    torch.save(torch.zeros(3), file)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda *arguments: pytest.fail("trained"))
        (failed,) = bench("csp", "closed", **{**settings, "eval__threshold": 0.3}).results
    assert failed["error"]["message"].endswith(
        "holds float32 [3], expected floats [9]: one for each of 3 attributes x 3 objects"
    )


def test_results_of_the_closed_world_keep_their_cells_and_trainings(bench: Any) -> None:
    first = bench("csp", "closed").results
    assert bench("csp", "closed", train__select_world="closed", eval__stream_seed=0).results == first
    assert bench.log_lines[-1].endswith("done before")
    assert "select_world" not in first[0]["config"]["train"]
    assert "feasibility" not in first[0]["depends"]["training"]


def test_pairs_that_a_method_masks_are_recorded_and_told(bench: Any) -> None:
    result = bench("csp,masking")
    csp, masking = result.results[:2], result.results[2:]
    assert not any("masks_pairs" in found["protocol"] for found in csp)
    assert [found["protocol"]["masks_pairs"] for found in masking] == ["the last pair"] * 2
    assert result.table().caption().count("masking itself never predicts the last pair.") == 1


@pytest.mark.parametrize("infeasible", ["exclude", "original"])
def test_a_pair_of_score_minus_infinity_is_measured_as_one_of_a_very_low_score(bench: Any, infeasible: str) -> None:
    settings = {"eval__threshold": 0.1, "eval__feasibility": "clip", "eval__infeasible": infeasible}
    results = bench("masking,lowering,stream-mask,stream-low", **settings).results
    masked, low, stream_masked, stream_low = (
        [one["metrics"]["auc"] for one in results[i : i + 2]] for i in (0, 2, 4, 6)
    )
    assert masked == low and stream_masked == stream_low
