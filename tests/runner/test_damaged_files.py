"""A file of a run in which a byte has changed is named and not used; what it was made for is made again."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from czslkit.checkpoints.trained import load
from czslkit.cli import main
from czslkit.errors import ConfigError
from czslkit.learned_state import learned_state
from czslkit.runner.train import stored_keys
from czslkit.training.state import state_key
from czslkit.training_files import STATE_FILE
from czslkit.weights import read_safetensors, read_tensors

FEW_AND_MANY = [pytest.param(12, id="few"), pytest.param(1500, marks=pytest.mark.slow, id="many")]
ATTACHED = ("curve.csv", "details.json", "images.npz", "predictions.json.gz")


@pytest.fixture
def runs(bench_toys: Any, tmp_path: Path) -> Path:
    """The folder of results of CSP in both worlds, with its training."""
    assert bench_toys(worlds="closed,open").failed == 0
    return tmp_path / "runs"


@pytest.fixture
def cell(runs: Path) -> Path:
    """The folder of the cell, with ``closed.json`` and ``training``."""
    (result,) = runs.rglob("closed.json")
    return result.parent


def damages(file: Path, number: int) -> Iterator[bytes]:
    """Write damaged contents to a file one after another and yield them: a changed byte, a cut end, a row of zeros.

    Half of the changed bytes are in the first 1,000. At the end, the file is as it was.
    """
    content, draw = file.read_bytes(), random.Random(0)
    contents = [b"", content[: len(content) // 2], content[:-1], content[:20] + bytes(len(content) - 20)]
    for n in range(number):
        damaged = bytearray(content)
        damaged[draw.randrange(min(len(content), 1000) if n % 2 else len(content))] ^= 1 << draw.randrange(8)
        contents.append(bytes(damaged))
    for damaged in contents:
        file.write_bytes(damaged)
        yield bytes(damaged)
    file.write_bytes(content)


def loaded(load: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor] | str:
    """Return the tensors that ``load`` returns, or its error message."""
    try:
        return load()
    except ConfigError as error:
        return str(error)


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Return whether two dicts hold the same tensors under the same names."""
    if found.keys() != expected.keys():
        return False
    return all(found[n].dtype == expected[n].dtype and torch.equal(found[n], expected[n]) for n in expected)


def flip(file: Path, at: int = -5) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("number", FEW_AND_MANY)
def test_no_damage_of_a_result_changes_the_table_unnoticed(
    runs: Path, cell: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["table", str(runs)])
    whole = capsys.readouterr().out
    for content in damages(cell / "closed.json", number):
        assert main(["table", str(runs)]) == 0
        said = capsys.readouterr()
        assert said.out == whole or said.err.startswith(f"left out: {cell / 'closed.json'}: "), content


@pytest.mark.parametrize("number", FEW_AND_MANY)
@pytest.mark.parametrize("name", ATTACHED)
def test_no_damage_of_a_file_of_a_result_is_unnoticed(
    runs: Path, cell: Path, name: str, number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("czslkit.report.page_figures.page_figures", lambda table: {})  # they take a second each
    file = cell / f"closed.{name}"
    for content in damages(file, number):
        assert main(["report", str(runs)]) == 0
        message = f"not used: {file} is not the file that was written with its result: its content has the digest "
        assert message in capsys.readouterr().err, content
    page = (runs / "report.html").read_text()
    assert (f"closed.{name} is not the file" in page) == (name != "curve.csv")  # which only figures show


@pytest.mark.parametrize("number", FEW_AND_MANY)
def test_no_damage_of_a_state_is_resumed_from(cell: Path, number: int) -> None:
    folder = cell / "training"
    expected, key = read_safetensors(folder / STATE_FILE), state_key(folder)
    assert key
    for content in damages(folder / STATE_FILE, number):
        assert state_key(folder) == state_key(folder, {key}), content
        if state_key(folder):
            tensors, metadata = read_safetensors(folder / STATE_FILE)
            assert metadata.items() >= expected[1].items(), content  # the name of the digest may be what has changed
            assert same(tensors, expected[0]), content


@pytest.mark.parametrize("number", FEW_AND_MANY)
@pytest.mark.parametrize("name", ["weights.safetensors", "method.json"])
def test_no_damage_of_a_trained_method_is_loaded(cell: Path, name: str, number: int) -> None:
    folder = cell / "training"
    whole = learned_state(load(folder))
    for content in damages(folder / name, number):
        found = loaded(lambda: learned_state(load(folder)))
        assert found.startswith(str(folder / name)) if isinstance(found, str) else same(found, whole), content


@pytest.mark.parametrize("number", FEW_AND_MANY)
def test_no_damage_of_a_file_of_tensors_is_read(cell: Path, number: int) -> None:
    file = cell / "training" / "weights.safetensors"
    whole = read_tensors(file)
    for content in damages(file, number):
        found, message = loaded(lambda: read_tensors(file)), f"{file} is not a readable weight file"
        assert found.startswith(message) if isinstance(found, str) else same(found, whole), content


def test_a_cell_with_a_damaged_result_is_evaluated_again(bench_toys: Any, cell: Path, trainings: list[int]) -> None:
    file = cell / "closed.json"
    before = bench_toys().results[0]["metrics"]
    flip(file, file.read_bytes().index(b'"auc": ') + 9)
    damaged = file.read_bytes()
    assert bench_toys().results[0]["metrics"] == before
    assert not trainings
    assert (cell / "closed.stale.json").read_bytes() == damaged
    (told,) = (line for line in bench_toys.log_lines if f"{file}: was changed after it was written" in line)
    assert told.endswith("This result is made again, and the old file is kept as closed.stale.json")
    assert "Run czslkit bench" not in told
    bench_toys()
    assert any(line.endswith("done before") for line in bench_toys.log_lines)


def test_a_damaged_result_of_a_world_that_is_not_asked_for_has_its_remedy(bench_toys: Any, cell: Path) -> None:
    flip(cell / "open.json")
    bench_toys()
    (told,) = (line for line in bench_toys.log_lines if str(cell / "open.json") in line)
    assert told.endswith("Run czslkit bench again to make this result anew, or remove the file.")


@pytest.mark.parametrize("name", ATTACHED)
def test_a_cell_with_a_damaged_file_is_evaluated_again(
    bench_toys: Any, cell: Path, trainings: list[int], name: str
) -> None:
    file = cell / f"closed.{name}"
    before = file.read_bytes()
    flip(file)
    bench_toys()
    assert file.read_bytes() == before
    assert not trainings
    reason = f"closed world stale because closed.{name} was changed after it was written"
    assert any(line.endswith(reason) for line in bench_toys.log_lines)


def test_a_file_of_a_result_may_be_deleted(bench_toys: Any, cell: Path) -> None:
    (cell / "closed.curve.csv").unlink()
    bench_toys()
    assert any(line.endswith("done before") for line in bench_toys.log_lines)


@pytest.mark.parametrize("content", [b"", None])
def test_a_killed_training_with_a_damaged_state_starts_anew(
    bench_toys: Any, cell: Path, trainings: list[int], content: bytes | None
) -> None:
    folder = cell / "training"
    weights = (folder / "weights.safetensors").read_bytes()
    for file in (folder / "method.json", folder / "weights.safetensors", cell / "closed.json"):
        file.unlink()
    flip(folder / STATE_FILE) if content is None else (folder / STATE_FILE).write_bytes(content)
    assert bench_toys().failed == 0
    assert len(trainings) == 2
    assert (folder / "weights.safetensors").read_bytes() == weights
    kept = folder.with_name("training.stale")
    message = f"{folder / STATE_FILE} is damaged: it is kept in {kept}, and the training starts anew"
    assert any(line.endswith(message) for line in bench_toys.log_lines)


def test_a_damaged_description_without_a_state_is_named(bench_toys: Any, cell: Path, trainings: list[int]) -> None:
    folder = cell / "training"
    (folder / STATE_FILE).unlink()
    (cell / "closed.json").unlink()
    flip(folder / "method.json")
    assert bench_toys().failed == 0
    assert len(trainings) == 2
    message = f"{folder / 'method.json'} is damaged: it is kept in {folder.with_name('training.stale')}"
    assert any(message in line for line in bench_toys.log_lines)


@pytest.mark.parametrize("name", ["weights.safetensors", "method.json"])
def test_a_damaged_trained_method_is_written_again_from_the_state(
    bench_toys: Any, cell: Path, trainings: list[int], name: str
) -> None:
    file = cell / "training" / name
    before = file.read_bytes()
    flip(file)
    (cell / "closed.json").unlink()
    assert bench_toys().failed == 0
    assert not trainings
    assert file.read_bytes() == before


def test_the_damaged_state_of_another_cell_is_not_copied(bench_toys: Any, cell: Path, trainings: list[int]) -> None:
    (cell / "training" / "method.json").unlink()
    flip(cell / "training" / STATE_FILE)
    assert bench_toys(settings={"eval.infeasible": "original"}).failed == 0
    assert len(trainings) == 2


def rewritten(file: Path, change: Callable[[str], str], **metadata: str) -> None:
    """Write a state as an earlier version did, without a digest, with other names of tensors and other metadata."""
    tensors, known = read_safetensors(file)
    save_file({change(name): value for name, value in tensors.items()}, file, {**known, **metadata})


@pytest.mark.parametrize("section", ["method.", "best.", "optimizer.", "seconds", "history", "optimizers"])
def test_a_state_without_a_digest_that_is_not_whole_starts_anew(
    bench_toys: Any, cell: Path, trainings: list[int], section: str
) -> None:
    state, weights = cell / "training" / STATE_FILE, (cell / "training" / "weights.safetensors").read_bytes()
    damaged = {} if section.endswith(".") else {section: "[x"}
    rewritten(state, lambda name: name.replace(section, f"x{section[1:]}"), **damaged)
    for file in (cell / "training" / "method.json", cell / "closed.json"):
        file.unlink()
    assert bench_toys().failed == 0
    assert len(trainings) == 2
    assert (cell / "training" / "weights.safetensors").read_bytes() == weights
    message = f"{state} is damaged: it is kept in {cell / 'training.stale'}, and the training starts anew"
    assert sum(line.endswith(message) for line in bench_toys.log_lines) == 1
    assert (cell / "training.stale" / STATE_FILE).exists()


def test_a_pipe_in_another_cell_is_not_waited_for(bench_toys: Any, cell: Path, trainings: list[int]) -> None:
    (cell / "training" / STATE_FILE).unlink()
    os.mkfifo(cell / "training" / STATE_FILE)
    assert state_key(cell / "training", {"any"}) is None
    assert bench_toys(settings={"train.lr": 2e-2}).failed == 0
    assert len(trainings) == 2


def test_a_state_of_an_earlier_version_has_no_digest_and_is_resumed_from(
    bench_toys: Any, cell: Path, trainings: list[int]
) -> None:
    state = cell / "training" / STATE_FILE
    save_file(*read_safetensors(state)[:1], state, read_safetensors(state)[1])
    assert stored_keys(cell / "training") == [state_key(cell / "training")]
    (cell / "closed.json").unlink()
    assert bench_toys().failed == 0
    assert not trainings
