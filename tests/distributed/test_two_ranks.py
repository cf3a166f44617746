"""Two processes of torchrun give the numbers of one, for every method."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from czslkit.method import METHODS
from czslkit.metrics.outcomes import Outcomes
from czslkit.result_store import Store
from czslkit.testing.tiny_data import write_tiny
from czslkit.training_files import STATE_FILE

TRAININGS = Path(__file__).with_name("trainings.py")
OWN = ("contrastive", "remembering")  # the methods of methods.py
TOLERANCE = 1e-4


def run(ranks: int, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script or a module in one process, or in several that torchrun starts."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    start = [sys.executable, *(torchrun if ranks > 1 else []), *map(str, command)]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(start, capture_output=True, text=True, timeout=900, env=variables)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of every method: ``one`` process, ``two``, and ``handed`` from two to one."""
    folder = tmp_path_factory.mktemp("trainings")
    write_tiny(folder)
    for ranks, stages in ((2, ("stopped", "two")), (1, ("one", "handed"))):
        done = run(ranks, TRAININGS, folder, *stages)
        assert done.returncode == 0, done.stderr
        (folder / f"{ranks}.log").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny dataset."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


def results(folder: Path, name: str) -> dict[str, Any]:
    """Return the results of a method by world."""
    store = Store(folder)
    found = [result for result in store.results() if result["cell"]["method"] == name]
    return {result["cell"]["world"]: result for result in found}


@pytest.mark.parametrize(
    ("name", "place"), [*((name, "two") for name in (*METHODS, *OWN)), ("troika", "handed"), ("contrastive", "handed")]
)
def test_two_ranks_train_and_score_as_one_process(trainings: Path, name: str, place: str) -> None:
    expected, found = results(trainings / "one", name), results(trainings / place, name)
    assert found.keys() == expected.keys() == {"closed", "open"}
    for world, result in found.items():
        other = expected[world]
        assert result["status"] == other["status"] == "done", result["error"] or other["error"]
        assert result["cell"] == other["cell"]
        assert result["metrics"] == pytest.approx(other["metrics"], abs=TOLERANCE)
        rows, wanted = result["training"]["history"], other["training"]["history"]
        assert len(rows) == len(wanted)
        for row, wanted_row in zip(rows, wanted, strict=True):
            assert row == pytest.approx(wanted_row, abs=TOLERANCE, rel=TOLERANCE)
        assert place == "handed" or result["ranks"] == 2
        assert "ranks" not in other


def test_one_of_two_ranks_logs_the_values_of_one_process(trainings: Path) -> None:
    for name in (*METHODS, *OWN):
        tables = []
        for place in ("one", "two"):
            (file,) = (trainings / place).glob(f"logs/csv/tiny/{name}/*/values.csv")
            rows = [line.split(",") for line in file.read_text().splitlines()[1:]]
            named = {(int(step), key): float(value) for step, key, value in rows}
            assert len(named) == len(rows)  # also of the epoch after which the processes were stopped
            tables.append({k: v for k, v in named.items() if not k[1].endswith(("images_per_second", "memory_gb"))})
        assert tables[1] == pytest.approx(tables[0], abs=TOLERANCE, rel=TOLERANCE), name


def test_the_numbers_of_each_image_are_those_of_one_process(trainings: Path) -> None:
    for name in METHODS:
        for world, result in results(trainings / "two", name).items():
            outcomes = []
            for place, one in (("two", result), ("one", results(trainings / "one", name)[world])):
                content = Store(trainings / place).attached(one, "images.npz")
                assert content is not None
                outcomes.append(Outcomes.from_bytes(content))
            found, expected = outcomes
            assert found.images_digest() == expected.images_digest()  # in the same order
            assert np.array_equal(found.attr_right, expected.attr_right)
            assert np.array_equal(found.obj_right, expected.obj_right)
            assert np.allclose(found.true_score, expected.true_score, rtol=1e-3, atol=1e-3), (name, world)


def test_batch_normalisation_has_the_statistics_of_whole_batches(trainings: Path) -> None:
    states = {}
    for place in ("one", "two"):
        (file,) = (trainings / place).glob(f"**/troika/**/{STATE_FILE}")
        states[place] = load_file(file)
    names = [name for name in states["one"] if name.startswith("method.") and "running" in name]
    assert len(names) == 4
    for name in names:
        assert torch.allclose(states["two"][name], states["one"][name], atol=TOLERANCE), name


def test_a_training_of_two_ranks_resumes_with_two_and_with_one(trainings: Path) -> None:
    for log, count in (("1.log", 2), ("2.log", len(METHODS) + len(OWN) - 1)):  # CLIP has no training
        lines = (trainings / log).read_text().splitlines()
        assert sum("resumed after epoch 1" in line for line in lines) == count


@pytest.mark.parametrize(("name", "reason"), [("contrastive", "its loss of 4 images is"), ("remembering", "in last")])
def test_a_loss_that_cannot_be_divided_is_computed_on_whole_batches(trainings: Path, name: str, reason: str) -> None:
    lines = (trainings / "2.log").read_text().splitlines()
    told = [line for line in lines if "every process computes whole batches" in line]
    others = {"ade", "caila"}  # their companions
    assert {line.split("] ")[1].split(" on ")[0] for line in told} == {*OWN, *others}
    assert any(name in line and reason in line for line in told)


def test_the_command_prints_the_table_once(tiny: Path) -> None:
    settings = ["backbone=demo", "train.epochs=2", "train.batch_size=8"]
    where = ["--data", str(tiny), "--runs", str(tiny / "command"), "--device", "cpu"]
    done = run(2, "-m", "czslkit", "bench", "--methods", "csp", "--datasets", "tiny", *where, "--set", *settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\ncsp ") == 1
    assert done.stderr.count("epoch 2/2") == 1


def test_a_killed_process_ends_all_and_the_training_goes_on(tiny: Path) -> None:
    died = run(2, TRAININGS, tiny, "killed")
    assert died.returncode != 0
    assert "epoch 1/2" in died.stdout
    assert not Store(tiny / "killed").results()
    resumed = run(1, TRAININGS, tiny, "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after epoch 1" in resumed.stdout


def test_an_error_of_one_process_ends_all(tiny: Path) -> None:
    failed = run(2, TRAININGS, tiny, "alone")
    assert failed.returncode != 0
    assert "process 1 of 2 failed alone with RuntimeError: only here" in failed.stderr
    assert not Store(tiny / "alone").results()
