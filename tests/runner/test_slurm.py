"""Benchmarks on Slurm: what is submitted, followed and collected, with commands that stand for those of Slurm."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from submitit.core.utils import DelayedSubmission, cloudpickle_dump

import czslkit
from czslkit.errors import ConfigError, CzslkitError
from czslkit.runner import slurm
from czslkit.runner.slurm_job import Training

SBATCH = 'echo "$@" >> {folder}/submitted; echo "Submitted batch job $(wc -l < {folder}/submitted)"'


class Cluster:
    """Commands that stand for those of Slurm, and the jobs that they were given."""

    def __init__(self, folder: Path, runs: Path) -> None:
        self.folder, self.runs = folder, runs
        self.command("srun", "")
        self.command("sacct", "exit 1")
        self.command("sbatch", SBATCH.format(folder=folder))
        self.command("squeue", f"cat {folder}/queue")
        self.queue({})

    def command(self, name: str, script: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)

    def queue(self, states: dict[str, str]) -> None:
        lines = [f"{job}|{state}|None|0|node7\n" for job, state in states.items()]
        (self.folder / "queue").write_text("".join(lines))

    @property
    def arrays(self) -> int:
        """Number of arrays that were submitted."""
        file = self.folder / "submitted"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def training(self, job: str) -> Training:
        (file,) = self.runs.glob(f"slurm/*/{job}_submitted.pkl")
        training: Training = DelayedSubmission.load(file).function
        return training

    def end(self, job: str, outcome: Any) -> None:
        """Let a job end with an outcome, as submitit writes it."""
        (file,) = self.runs.glob(f"slurm/*/{job}_submitted.pkl")
        cloudpickle_dump(outcome, file.with_name(f"{job}_0_result.pkl"))

    def run(self, job: str) -> None:
        """Run a job here."""
        self.end(job, ("success", self.training(job)()))

    def log(self, job: str, text: str) -> None:
        (file,) = self.runs.glob(f"slurm/*/{job}_submitted.pkl")
        file.with_name(f"{job}_0_log.out").write_text(text)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    folder = tmp_path / "commands"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(slurm, "_GRACE", 0.0)
    monkeypatch.setattr(slurm, "_LONG_GRACE", 0.0)
    monkeypatch.setattr(slurm, "_LONGEST_PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)
    return Cluster(folder, tmp_path / "runs")


@pytest.fixture
def go(bench_toys: Any) -> Callable[..., Any]:
    """Return the benchmark of one epoch with ``slurm``; its lines are in ``bench_toys.log_lines``."""
    return lambda *methods, **more: bench_toys(
        *methods, **({"slurm": {"timeout_min": 5}, "settings": {"train.epochs": 1}} | more)
    )


def messages(result: Any) -> list[str]:
    return [cell["error"]["message"] for cell in result.results]


def test_jobs_are_submitted_once_followed_and_collected(cluster: Cluster, go: Any, bench_toys: Any) -> None:
    assert go("csp,clip", detach=True).results == ()
    assert "submitted 2 trainings as Slurm job 1, with a time limit of 5 minutes" in bench_toys.log_lines[0]
    assert (
        "in Slurm: 2 trainings (job 1); the same command without --detach follows the jobs" in bench_toys.log_lines[-1]
    )
    cluster.queue({"1_0": "RUNNING", "1_1": "PENDING"})
    assert go("csp,clip", detach=True).results == ()
    assert "[1/2] csp on toys, seed 0: Slurm job 1_0 runs on node7" in bench_toys.log_lines
    cluster.run("1_1")
    assert [cell["cell"]["method"] for cell in go("csp,clip", detach=True).results] == ["clip"]
    cluster.run("1_0")
    result = go("csp,clip")
    assert [(cell["cell"]["method"], cell["status"]) for cell in result.results] == [("csp", "done"), ("clip", "done")]
    assert cluster.arrays == 1
    assert (cluster.training("1_0").checkpoint()).function == cluster.training("1_0")


def test_the_lines_of_a_job_are_shown_while_it_runs(cluster: Cluster, go: Any, bench_toys: Any) -> None:
    go(detach=True)
    cluster.log("1", "submitit INFO\n[1/1] csp on toys, seed 0: running\n")
    cluster.queue({"1": "RUNNING"})
    go(detach=True)
    assert "[1/1] csp on toys, seed 0: running" not in bench_toys.log_lines  # it was there before
    cluster.command(
        "squeue", f"echo '[1/1] csp on toys, seed 0: epoch 1/1' >> {log_of(cluster)}; cat {cluster.folder}/queue"
    )
    go(detach=True)
    assert "[1/1] csp on toys, seed 0: epoch 1/1" in bench_toys.log_lines


def log_of(cluster: Cluster) -> Path:
    (log,) = cluster.runs.glob("slurm/*/*_log.out")
    return log


def test_a_job_without_results_is_a_failed_cell_once_and_then_submitted_again(cluster: Cluster, go: Any) -> None:
    go(detach=True)
    cluster.log("1", "some line\nslurmstepd: error: *** JOB 1 CANCELLED ***\n\n")
    cluster.queue({"1": "CANCELLED"})
    (message,) = messages(go())
    assert message.startswith("Slurm job 1 ended as CANCELLED on node7. Its log ")
    assert message.endswith("1_0_log.out ends with: slurmstepd: error: *** JOB 1 CANCELLED ***")
    assert (go(detach=True).results, cluster.arrays) == ((), 2)


def test_a_job_that_wrote_no_log_may_not_see_the_folder_of_results(cluster: Cluster, go: Any) -> None:
    go(detach=True)
    cluster.queue({"1": "FAILED"})
    (message,) = messages(go())
    assert (
        f"Does the node see {cluster.runs}? The folder of results must be on a file system that all nodes share"
        in message
    )
    go(detach=True)
    cluster.queue({"2": "CANCELLED"})
    assert "Does the node see" not in messages(go())[0]


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (("success", "node7 has no folder of datasets"), "node7 has no folder of datasets (Slurm job 1; its log: "),
        (("error", "Traceback\nImportError: no torch\n"), "ImportError: no torch (Slurm job 1; its log: "),
    ],
)
def test_what_a_job_says_is_the_reason_of_its_cell(outcome: Any, message: str, cluster: Cluster, go: Any) -> None:
    go(detach=True)
    cluster.end("1", outcome)
    assert messages(go())[0].startswith(message)


def test_results_that_are_stale_again_are_made_anew(cluster: Cluster, go: Any) -> None:
    go(detach=True)
    cluster.run("1")
    next(cluster.runs.glob("toys/csp/*/closed.json")).unlink()
    assert (go(detach=True).results, cluster.arrays) == ((), 2)
    cluster.queue({"2": "PENDING"})
    assert (go(detach=True).results, cluster.arrays) == ((), 2)


def test_cells_of_the_same_training_are_in_one_job(cluster: Cluster, go: Any) -> None:
    settings = {"train.epochs": 1, "eval.threshold": czslkit.Grid([None, 0.2])}
    go(settings=settings, detach=True)
    assert len(cluster.training("1").names) == 2
    cluster.queue({"1": "PENDING"})
    assert (go(settings=settings, detach=True).results, cluster.arrays) == ((), 1)
    cluster.run("1")
    result = go(settings=settings)
    assert [cell["config"]["eval"]["threshold"] for cell in result.results] == [None, 0.2]
    assert (result.failed, cluster.arrays) == (0, 1)


def test_a_world_that_no_job_evaluates_in_is_submitted(cluster: Cluster, go: Any) -> None:
    go(detach=True)
    cluster.queue({"1": "PENDING"})
    go(worlds="closed,open", detach=True)
    cluster.queue({"1": "PENDING", "2": "PENDING"})
    go(worlds="open", detach=True)
    assert cluster.arrays == 2


def test_an_array_that_slurm_did_not_get_is_submitted(cluster: Cluster, go: Any) -> None:
    go(detach=True)
    next(cluster.runs.glob("slurm/*/*_submission.sh")).unlink()
    go(detach=True)
    assert cluster.arrays == 2


def test_an_array_with_a_damaged_record_is_named(cluster: Cluster, go: Any) -> None:
    go(detach=True)
    record = next(cluster.runs.glob("slurm/*/cells.json"))
    record.write_text(json.dumps({"tasks": 1}))
    with pytest.raises(CzslkitError, match=r"cells\.json cannot be read: KeyError\('cells'\)"):
        go()


def test_what_sbatch_refuses_is_told_and_leaves_nothing(cluster: Cluster, go: Any) -> None:
    cluster.command("sbatch", "echo 'invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(ConfigError, match="sbatch refuses the jobs: invalid partition specified: gpu"):
        go(slurm={"partition": "gpu"})
    assert not [*cluster.runs.glob("slurm/*-*")]


def test_slurm_that_does_not_answer_is_asked_again(cluster: Cluster, go: Any, bench_toys: Any) -> None:
    go(detach=True)
    again = f"rm {cluster.folder}/squeue; mv {cluster.folder}/next {cluster.folder}/squeue"
    cluster.queue({"1": "FAILED"})
    cluster.command("next", f"cat {cluster.folder}/queue")
    cluster.command("squeue", f"echo 'no controller' >&2; {again}; exit 1")
    assert go().failed == 1
    assert "squeue failed: no controller; asking again" in bench_toys.log_lines


def test_an_interruption_leaves_the_jobs_in_slurm(
    cluster: Cluster, go: Any, bench_toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    cluster.queue({"1": "RUNNING"})
    monkeypatch.setattr(slurm, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
    with pytest.raises(KeyboardInterrupt):
        go()
    assert (
        "1 training left in Slurm: the same command follows the jobs again, and scancel 1 ends them"
        in bench_toys.log_lines
    )


def test_a_requeued_job_and_an_unusual_wait_are_told(cluster: Cluster, go: Any, bench_toys: Any) -> None:
    go(detach=True)
    job, state = object.__new__(slurm.SlurmJob), slurm.JobState
    job.id = "1"
    lines: list[str] = []
    training = type("Logging", (), {"log": staticmethod(lines.append)})()
    shown: dict[int, str] = {}
    for now in (
        state("PENDING"),
        state("PENDING", "QOSLimit"),
        state("RUNNING", node="n1"),
        state("PENDING"),
        state("PENDING"),
    ):
        slurm._log_change(training, job, now, shown, 0)
    assert lines == ["Slurm job 1 waits: QOSLimit", "Slurm job 1 runs on n1", "requeued by Slurm as job 1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"slurm": None, "detach": True}, "detach needs slurm"),
        ({"device": "gpu"}, "device 'gpu' cannot be used"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: Any, message: str, cluster: Cluster, go: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        go(**arguments)
    assert cluster.arrays == 0


def test_torchrun_does_not_start_benchmarks_on_slurm(
    go: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="slurm cannot be used under torchrun"):
        go()


def test_a_job_that_sees_other_folders_says_which(
    cluster: Cluster, go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(detach=True)
    training = cluster.training("1")
    training.check_folders()
    assert "has no folder of datasets" in str(
        replace(training, request=replace(training.request, data=tmp_path / "no"))()
    )
    changes: dict[str, Any] = {
        r"does not see the folder of results .* \(token: 'No such file or directory', expected": {"folder": tmp_path},
        r"cannot use the folder .*/gone, in which the command was run \(No such file": {"home": tmp_path / "gone"},
        r"does not see the folder of results .* expected 'other'": {"token": "other"},
    }
    for message, change in changes.items():
        with pytest.raises(CzslkitError, match=message):
            replace(training, **change).check_folders()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CzslkitError, match="cannot write to the folder of results"):
        training.check_folders()


def test_a_job_whose_plan_or_data_differ_says_so(cluster: Cluster, go: Any) -> None:
    go(detach=True)
    training = cluster.training("1")
    digests = {**training.digests, "images": "40 files, 3f"}
    assert "has other files of toys than the submitter" in str(replace(training, digests=digests)())
    assert "the benchmark has no training toys/csp/seed7-3f any more" in str(
        replace(training, names=("toys/csp/seed7-3f",))()
    )
