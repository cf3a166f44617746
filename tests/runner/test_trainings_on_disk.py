"""A training that is on disk is used again, whatever is left of it, and its key may be an older one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import czslkit
from czslkit import evaluation
from czslkit import training as training_package
from czslkit.checkpoints.trained import TrainedMethod
from czslkit.errors import ConfigError
from czslkit.evaluation.evaluator import Evaluation
from czslkit.heads import CosineHead
from czslkit.json_digest import with_digest
from czslkit.result_store import Store
from czslkit.runner import train as training_of_job
from czslkit.training.state import state_key
from czslkit.weights import read_safetensors, write_tensors

FILES = ("last.safetensors", "method.json", "weights.safetensors")


@pytest.fixture
def folder(bench_toys: Any, tmp_path: Path) -> Path:
    """The folder of a finished training of CSP, with a result of the closed world."""
    assert bench_toys().failed == 0
    (found,) = (tmp_path / "runs").rglob("training")
    return found


def open_world(bench_toys: Any, **arguments: Any) -> dict[str, Any]:
    (result,) = bench_toys(worlds="open", **arguments).results
    assert result["status"] == "done", result["error"]
    return result


def rewritten_key(folder: Path, key: str) -> None:
    """Give a training on disk another key, as an older version or another set of recorded classes does."""
    state, description = folder / "last.safetensors", folder / "method.json"
    tensors, metadata = read_safetensors(state)
    write_tensors(tensors, state, metadata | {"key": key})
    description.write_text(with_digest(json.loads(description.read_text()) | {"training_key": key}))


def as_smaller_record(folder: Path) -> str:
    """Make a result and its training look as if fewer classes had been recorded; return the key."""
    path = folder.parent / "closed.json"
    content = json.loads(path.read_text())
    del content["depends"]["training"]["code"]["czslkit.heads.cosine:CosineHead"]
    content["training_key"] = "0123abcd"
    path.write_text(with_digest(content))
    rewritten_key(folder, "0123abcd")
    return "0123abcd"


def test_weights_without_a_state_are_evaluated(
    bench_toys: Any, folder: Path, trainings: list[int], tmp_path: Path
) -> None:
    (closed,) = Store(tmp_path / "runs").results()
    before = {name: (folder / name).read_bytes() for name in FILES}
    (folder / "last.safetensors").unlink()
    opened = open_world(bench_toys)
    assert not trainings
    assert opened["training"] == closed["training"]
    assert opened["training_key"] == closed["training_key"]
    message = f"there is no {folder / 'last.safetensors'}: the trained weights beside it are used"
    assert any(line.endswith(message) for line in bench_toys.log_lines)
    assert {name: (folder / name).read_bytes() for name in FILES[1:]} == {name: before[name] for name in FILES[1:]}
    again = open_world(bench_toys, runs=tmp_path / "whole")
    assert again["metrics"] == opened["metrics"]


def test_weights_without_a_state_and_a_result_are_evaluated_without_their_history(
    bench_toys: Any, folder: Path, trainings: list[int]
) -> None:
    for path in (folder / "last.safetensors", folder.parent / "closed.json"):
        path.unlink()
    opened = open_world(bench_toys)
    assert not trainings
    assert opened["training"]["history"] == []
    assert (opened["training"]["epochs"], opened["training"]["best_epoch"]) == (2, None)
    assert opened["training"]["trainable_parameters"] == 6 * 64


def test_a_deleted_weights_file_is_written_again_from_the_state(
    bench_toys: Any, folder: Path, trainings: list[int]
) -> None:
    before = {name: (folder / name).read_bytes() for name in FILES}
    (folder / "weights.safetensors").unlink()
    open_world(bench_toys)
    assert not trainings
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    assert TrainedMethod.read(folder).method == "csp"


def test_a_damaged_state_is_named_and_the_weights_are_used(bench_toys: Any, folder: Path, trainings: list[int]) -> None:
    state = folder / "last.safetensors"
    state.write_bytes(state.read_bytes()[:50])
    open_world(bench_toys)
    assert not trainings
    message = f"{state} is damaged: the trained weights beside it are used"
    assert any(line.endswith(message) for line in bench_toys.log_lines)


def test_a_damaged_state_alone_is_named_and_kept(bench_toys: Any, folder: Path, trainings: list[int]) -> None:
    state = folder / "last.safetensors"
    state.write_bytes(state.read_bytes()[:50])
    (folder / "method.json").unlink()
    open_world(bench_toys)
    assert len(trainings) == 2
    kept = folder.with_name("training.stale")
    assert (kept / "last.safetensors").stat().st_size == 50
    message = f"{state} is damaged: it is kept in {kept}, and the training starts anew"
    assert any(line.endswith(message) for line in bench_toys.log_lines)


@pytest.mark.parametrize("state", ["there is no {}", "{} is damaged"])
def test_weights_that_cannot_be_read_are_trained_again(
    bench_toys: Any, folder: Path, trainings: list[int], state: str
) -> None:
    weights, last = folder / "weights.safetensors", folder / "last.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:100])
    last.write_bytes(b"x") if "damaged" in state else last.unlink()
    open_world(bench_toys)
    assert len(trainings) == 2
    assert weights.read_bytes() == before
    start = f"{state.format(last)}, and the trained weights beside it cannot be used, so the training starts anew: "
    assert any(start + f"{weights} was changed after it was written" in line for line in bench_toys.log_lines)


def test_a_training_under_an_older_key_is_used_again_and_again(
    bench_toys: Any, folder: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = as_smaller_record(folder)
    for version in (2, 3, 4):
        monkeypatch.setattr(evaluation, "VERSION", version)
        (again,) = bench_toys().results
        assert "czslkit.heads.cosine:CosineHead" in again["depends"]["training"]["code"]
        assert again["training_key"] == state_key(folder) == key
    assert not trainings
    assert not list(folder.parent.glob("training.stale*"))
    monkeypatch.setattr(CosineHead, "version", 2)
    bench_toys()
    assert len(trainings) == 2


def test_a_training_whose_description_has_a_newer_key_than_its_state_is_used(
    bench_toys: Any, folder: Path, trainings: list[int]
) -> None:
    """Earlier versions wrote the description again, but not the state."""
    description = json.loads((folder / "method.json").read_text())
    rewritten_key(folder, "0123abcd")
    (folder / "method.json").write_text(with_digest(description))
    open_world(bench_toys)
    assert not trainings


def test_an_older_key_is_known_from_a_result_that_was_replaced(
    bench_toys: Any, folder: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_smaller_record(folder)
    monkeypatch.setattr(evaluation, "VERSION", 2)
    with monkeypatch.context() as broken:
        broken.setattr(Evaluation, "run", lambda self: 1 / 0)
        assert bench_toys().failed == 1
    assert (folder.parent / "closed.stale.json").exists()
    assert bench_toys().failed == 0
    assert not trainings


def test_an_older_key_is_known_from_a_cell_with_other_evaluation_settings(
    bench_toys: Any, folder: Path, trainings: list[int]
) -> None:
    key = as_smaller_record(folder)
    (other,) = bench_toys(settings={"eval.infeasible": "original"}).results
    assert not trainings
    assert other["training_key"] == key
    (third,) = bench_toys(settings={"train.lr": 2e-2}).results
    assert len(trainings) == 2
    assert third["training_key"] != key


def test_the_weights_of_another_cell_without_a_state_are_used(
    bench_toys: Any, folder: Path, trainings: list[int]
) -> None:
    (folder / "last.safetensors").unlink()
    assert bench_toys(settings={"eval.infeasible": "original"}).failed == 0
    assert not trainings


def test_a_checkpoint_stays_the_same_cell_when_its_training_is_used_under_another_key(
    bench_toys: Any, folder: Path, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluated() -> Any:
        arguments: Any = {"data": toys, "runs": tmp_path / "evaluated", "checkpoints": [folder], "log": str}
        return czslkit.bench(None, "toys", "closed", **arguments).results

    as_smaller_record(folder)
    first = evaluated()
    monkeypatch.setattr(evaluation, "VERSION", 2)
    bench_toys()
    monkeypatch.setattr(evaluation, "VERSION", 1)
    assert evaluated() == first


def test_an_estimate_announces_no_training_for_weights_that_are_there(
    bench_toys: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "VERSION", 2)
    for arguments in ({}, {"settings": {"eval.infeasible": "original"}}):
        bench_toys(estimate=True, **arguments)
        assert any("test, closed world, about" in line for line in bench_toys.log_lines)
        assert not any("training of" in line for line in bench_toys.log_lines)
    monkeypatch.setattr(training_package, "VERSION", 2)
    bench_toys(worlds="open", estimate=True)
    assert any("training of 2 epochs, about" in line for line in bench_toys.log_lines)
    bench_toys(worlds="open", estimate=True, keep_stale=True)
    assert not any("training of" in line for line in bench_toys.log_lines)


def test_an_estimate_writes_no_result(
    bench_toys: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = (folder.parent / "closed.json").read_bytes()
    monkeypatch.setattr(evaluation, "VERSION", 2)
    bench_toys(estimate=True, keep_stale=True)
    assert any("kept although it is stale" in line for line in bench_toys.log_lines)
    assert (folder.parent / "closed.json").read_bytes() == before
    assert "stale" in bench_toys(keep_stale=True).results[0]
    assert (folder.parent / "closed.json").read_bytes() != before


def test_keys_are_those_of_the_description_and_of_the_state(folder: Path) -> None:
    (key,) = training_of_job.stored_keys(folder)
    rewritten_key(folder, "other")
    assert training_of_job.stored_keys(folder) == ["other"]
    (folder / "method.json").unlink()
    assert training_of_job.stored_keys(folder) == ["other"]
    assert training_of_job.stored_keys(folder / "nothing") == []
    assert key != "other"


@pytest.mark.parametrize("lost", ["weights.safetensors", "method.json"])
@pytest.mark.parametrize("damaged", [True, False])
def test_a_lost_trained_method_of_a_finished_cell_comes_back_without_an_evaluation(
    bench_toys: Any, folder: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch, lost: str, damaged: bool
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / lost).write_bytes(b"x") if damaged else (folder / lost).unlink()
    monkeypatch.setattr(Evaluation, "run", lambda self: pytest.fail("evaluated"))
    assert bench_toys().failed == 0
    assert not trainings
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    told = f"done before, and its trained method is written again to {folder}"
    assert any(line.endswith(told) for line in bench_toys.log_lines)
    bench_toys()
    assert bench_toys.log_lines[-1].endswith("done before")


def test_a_finished_cell_without_weights_and_state_says_that_they_are_gone(
    bench_toys: Any, folder: Path, trainings: list[int]
) -> None:
    for name in ("weights.safetensors", "last.safetensors"):
        (folder / name).unlink()
    assert bench_toys().failed == 0
    assert not trainings
    told = f"done before, but its trained weights are gone: remove {folder.parent} to train the method again"
    assert any(line.endswith(told) for line in bench_toys.log_lines)


def test_a_run_without_weights_names_the_benchmark_as_the_remedy(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    remedy = r"lacks weights.safetensors, .* Run the czslkit bench command of this run again, which writes the trained"
    with pytest.raises(ConfigError, match=remedy):
        TrainedMethod.read(folder.parent)
