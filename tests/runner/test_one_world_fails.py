"""An error in one world leaves the other world to run, and is recorded with its traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from czslkit.data import batches
from czslkit.errors import ConfigError, DataError
from czslkit.evaluation.evaluator import Evaluation
from czslkit.method import Method
from czslkit.result_store import Store
from czslkit.runner import evaluate as evaluating
from czslkit.runner import prepare as preparing
from czslkit.runner import run_job as running

OPEN_COLUMNS = 9  # of the toys; the closed world has 7


def fails_in_open_world(real: Any, *, error: Exception) -> Any:
    def changed(method: Any, images: Any, text: Any, setting: Any = None) -> Any:
        if setting is not None and setting.world == "open" and setting.split == "test":
            raise error
        return real(method, images, text, *([setting] if setting is not None else []))

    return changed


def statuses(benchmark: Any) -> dict[str, str]:
    return {result["cell"]["world"]: result["status"] for result in benchmark.results}


@pytest.mark.parametrize("error", [KeyError("wet"), RuntimeError("out of memory"), ConfigError(["too many pairs"])])
def test_an_error_of_a_methods_scores_in_one_world_spares_the_other(
    bench_toys: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path
) -> None:
    monkeypatch.setattr(Method, "rank", fails_in_open_world(Method.rank, error=error))
    result = bench_toys("clip", "closed,open")
    assert statuses(result) == {"closed": "done", "open": "failed"}
    failed = result.results[1]["error"]
    assert failed["type"] == type(error).__name__
    assert "in changed" in failed["traceback"]
    kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
    assert any(line.endswith(f"open world failed: {kind}{error}") for line in bench_toys.log_lines)
    monkeypatch.undo()
    again = bench_toys("clip", "closed,open")
    assert statuses(again) == {"closed": "done", "open": "done"}
    assert again.results[0] == result.results[0]
    assert {found["status"] for found in Store(tmp_path / "runs").results()} == {"done"}


def test_an_error_that_appears_after_training_spares_the_other_world(
    bench_toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Evaluation.run

    def run(evaluation: Evaluation) -> Any:
        if "open" in evaluation.tasks:
            raise RuntimeError("no open world")
        return real(evaluation)

    monkeypatch.setattr(Evaluation, "run", run)
    result = bench_toys("clip", "closed,open")
    assert statuses(result) == {"closed": "done", "open": "failed"}
    assert result.results[1]["error"]["message"] == "no open world"
    assert statuses(bench_toys("coop", "open", settings={"train.epochs": 0})) == {"open": "failed"}


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (preparing, "load_feasibility"),  # before training
        (evaluating, "searched_threshold"),
        (evaluating, "metrics_record"),
    ],
)
def test_an_unexpected_error_of_the_open_world_alone_spares_the_closed_world(
    bench_toys: Any, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    real = getattr(where, name)

    def broken(*args: Any, **kwargs: Any) -> Any:
        if name == "metrics_record" and len(args[0].candidates) != OPEN_COLUMNS:
            return real(*args, **kwargs)
        raise KeyError(name)

    monkeypatch.setattr(where, name, broken)
    clip = {"eval.threshold": "search", "eval.feasibility": "clip"}
    result = bench_toys("clip", "closed,open", settings=clip)
    assert statuses(result) == {"closed": "done", "open": "failed"}
    assert result.results[1]["error"]["type"] == "KeyError"
    assert any(line.endswith(f"open world failed: KeyError: {name!r}") for line in bench_toys.log_lines)


def test_images_that_have_become_unreadable_keep_what_was_measured(
    bench_toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = bench_toys("clip").results

    def unreadable(evaluation: Evaluation) -> Any:
        raise DataError("x.png cannot be read")

    monkeypatch.setattr(Evaluation, "run", unreadable)
    monkeypatch.setattr(running, "evaluation_changes", lambda *a: "code changed")
    result = bench_toys("clip")
    assert result.results == (first,)
    assert any("x.png cannot be read\nfinished results are kept: closed" in line for line in bench_toys.log_lines)


def test_worlds_that_fit_into_memory_one_by_one_encode_the_images_once(
    bench_toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Evaluation.plan
    encoded: list[str] = []

    def plan(method: Any, data: Any, split: Any, worlds: Any, feed: Any, **options: Any) -> Any:
        if len(worlds) > 1:
            raise ConfigError(["memory is too little"])
        return real(method, data, split, worlds, feed, **options)

    whole = batches.Feed._encode
    monkeypatch.setattr(batches.Feed, "_encode", lambda feed, *a: [encoded.append(feed.split.name), whole(feed, *a)][1])
    monkeypatch.setattr(Evaluation, "plan", staticmethod(plan))
    assert statuses(bench_toys("clip", "closed,open", cache="off")) == {"closed": "done", "open": "done"}
    assert encoded == ["test"]


def test_an_unexpected_error_of_the_check_of_results_is_told_with_the_cell(
    bench_toys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (first,) = bench_toys("clip").results

    def broken(*args: Any) -> str:
        raise KeyError("digest")

    monkeypatch.setattr(running, "training_changes", broken)
    result = bench_toys("clip", "closed,open")
    assert statuses(result) == {"closed": "failed", "open": "failed"}
    assert "in broken" in result.results[0]["error"]["traceback"]
    message = "failed: KeyError: 'digest'\nfinished results are kept: closed"
    assert any(line.endswith(message) for line in bench_toys.log_lines)
    stored = Store(tmp_path / "runs").results()
    assert [found for found in stored if found["status"] == "done"] == [first]
    monkeypatch.undo()
    assert bench_toys("clip").results == (first,)
