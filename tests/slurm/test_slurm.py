"""Benchmarks on a real Slurm of one node, such as the one that ``start.sh`` runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import czslkit
from czslkit.data.make.mini import write_mini
from czslkit.registry import load_unpackaged
from czslkit.result_store import Store

if not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True).returncode:
    pytest.skip("no Slurm answers to sinfo; tests/slurm/start.sh FOLDER starts one", allow_module_level=True)
pytestmark = pytest.mark.slurm

#: CSP with long epochs until its job is requeued, and a method whose process ends.
METHODS = """
import os
import time

import czslkit
from czslkit_plugins.csp import Csp


@czslkit.METHODS.register("slow")
class Slow(Csp):
    def loss(self, batch, pairs):
        if "SLURM_JOB_ID" in os.environ and not os.environ.get("SLURM_RESTART_COUNT"):
            time.sleep(0.4)
        return super().loss(batch, pairs)


@czslkit.METHODS.register("dying")
class Dying(Csp):
    def loss(self, batch, pairs):
        print("no more", flush=True)
        os._exit(3)
"""


#: Epochs of the trainings of ``limited``; that of key 0 must not end in the 90 s until Slurm looks at its limit.
EPOCHS = {3: 60, 0: 300}


@pytest.fixture(scope="module")
def start(toys: Path, clip_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a benchmark on the toys: ``start(runs, "slow", {"timeout_min": 2})``; its lines are in ``.log``."""
    file = tmp_path_factory.mktemp("plugin") / "slow_methods.py"
    file.write_text(METHODS)
    load_unpackaged(str(file))

    def go(runs: Path, methods: str, slurm: Any, epochs: int = 2, **arguments: Any) -> Any:
        go.log = []  # type: ignore[attr-defined]
        settings = {"backbone": str(clip_file), "train.epochs": epochs, "train.batch_size": 8, "train.lr": 1e-2}
        where = {"data": toys, "runs": runs, "log": go.log.append, "progress": False}  # type: ignore[attr-defined]
        arguments = {"worlds": "closed", "settings": settings} | where | arguments
        parameters = None if slurm is None else {"timeout_min": 5, "cpus_per_task": 1, **slurm}
        return czslkit.bench(methods, "toys", slurm=parameters, **arguments)

    return go


@pytest.fixture(scope="module", autouse=True)
def limited(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Start trainings that reach their time limit of a minute, before all tests; the folders of their results.

    Slurm looks at time limits every half minute. The keys are the numbers of limits that a training may reach.
    """
    folders = {most: tmp_path_factory.mktemp(f"limit-{most}") for most in (3, 0)}
    for most, runs in folders.items():
        limits = {"timeout_min": 1, "signal_delay_s": 5, "max_num_timeout": most}
        assert start(runs, "slow", limits, epochs=EPOCHS[most], detach=True).results == ()
    return folders


def numbers(results: Any) -> Any:
    """Return what two runs of the same trainings have in common."""
    volatile = {"finished", "timing", "training", "versions", "digest"}
    return [
        {**{key: value for key, value in result.items() if key not in volatile}, "history": history(result)}
        for result in results
    ]


def history(result: Any) -> Any:
    return [{key: epoch[key] for key in epoch if "second" not in key} for epoch in result["training"]["history"]]


def trained_epochs(runs: Path, count: int) -> None:
    """Wait until a training in a folder of results has written its state after some epochs."""
    for _ in range(600):
        if sum(f": epoch {count}/" in log.read_text() for log in runs.glob("slurm/*/*_log.out")):
            return
        time.sleep(0.1)
    raise AssertionError(f"no training has finished {count} epochs")


def job_ids(runs: Path) -> list[str]:
    return [script.name.partition("_")[0] for script in sorted(runs.glob("slurm/*/*_submission.sh"))]


def test_the_grid_of_the_replicas_has_the_numbers_of_a_local_run(tmp_path: Path) -> None:
    for name in ("mit-states", "ut-zappos", "cgqa"):
        write_mini(name, tmp_path / "data")
    log: list[str] = []
    grid: dict[str, Any] = {"settings": {"backbone": "demo", "train.epochs": 1}, "progress": False, "log": log.append}
    grid |= {"data": tmp_path / "data", "device": "cpu", "preset": "demo", "worlds": "closed"}
    here = czslkit.bench("csp", "all", runs=tmp_path / "here", **grid)
    slurm = {"timeout_min": 5, "cpus_per_task": 1, "array_parallelism": 2}
    there = czslkit.bench("csp", "all", runs=tmp_path / "there", slurm=slurm, **grid)
    assert (there.failed, len(there.results)) == (0, 3)
    assert numbers(there.results) == numbers(here.results)
    assert there.to_csv() == here.to_csv()
    assert "[3/3] csp on cgqa, seed 0: running" in log
    script = next((tmp_path / "there").glob("slurm/*/*_submission.sh")).read_text()
    assert "#SBATCH --array=0-2%2" in script and "#SBATCH --requeue" in script


def test_a_training_that_is_requeued_goes_on_and_is_submitted_once(start: Any, tmp_path: Path) -> None:
    assert start(tmp_path / "there", "slow", {}, epochs=6, detach=True).results == ()
    assert "in Slurm: 1 training (job " in start.log[-1]
    trained_epochs(tmp_path / "there", 2)
    (number,) = job_ids(tmp_path / "there")
    subprocess.run(["scontrol", "requeue", number], check=True)
    there = start(tmp_path / "there", "slow", {}, epochs=6)
    assert f"submitted before as Slurm job {number}" in start.log[0]
    assert any("resumed after epoch" in line for line in start.log)
    assert job_ids(tmp_path / "there") == [number]
    here = start(tmp_path / "here", "slow", None, epochs=6)
    assert numbers(there.results) == numbers(here.results)


def test_cancelled_and_dying_jobs_are_failed_cells_with_reason_and_log(start: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert start(runs, "slow,dying,csp", {}, epochs=30, detach=True).results == ()
    trained_epochs(runs, 2)
    (number,) = job_ids(runs)
    subprocess.run(["scancel", f"{number}_0"], check=True)
    result = start(runs, "slow,dying,csp", {}, epochs=30)
    slow, dying, csp = (result["error"] and result["error"]["message"] for result in result.results)
    logs = next(runs.glob("slurm/*/cells.json")).parent
    assert (
        f"Slurm job {number}_0 ended as CANCELLED" in slow and f"Its log {logs}/{number}_0_0_log.out ends with:" in slow
    )
    assert f"Slurm job {number}_1 ended as FAILED (NonZeroExitCode, exit code 3)" in dying
    assert csp is None
    assert "CANCELLED" in result.to_markdown()
    assert [stored["status"] for stored in Store(runs).results()] == ["done", "failed", "failed"]
    again = start(runs, "slow", {}, epochs=30, detach=True)
    assert (again.results, len(job_ids(runs))) == ((), 2)
    subprocess.run(["scancel", job_ids(runs)[1]], check=True)


def test_two_tasks_share_one_training(start: Any, tmp_path: Path) -> None:
    both = start(tmp_path / "both", "csp", {"tasks_per_node": 2, "distributed": True})
    one = start(tmp_path / "one", "csp", None)
    (there, here) = (result.results[0] for result in (both, one))
    assert (both.failed, there["error"]) == (0, None)
    assert there["metrics"] == pytest.approx(here["metrics"], abs=1e-4)
    losses = [[epoch["loss"] for epoch in result["training"]["history"]] for result in (there, here)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    log = next((tmp_path / "both").glob("slurm/*/*_0_log.out")).read_text()
    assert "global_rank=0(2)" in log


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ("data", "has no folder of datasets {folder}: put --data"),
        ("runs", "has not written its log {folder}/slurm/"),
    ],
)
def test_a_folder_that_is_not_shared_is_named(
    hidden: str, message: str, toys: Path, clip_file: Path, tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no folder can be hidden from Slurm: unshare --mount is not allowed")
    folders = {"data": toys, "runs": tmp_path / "runs", hidden: tmp_path / "hidden"}
    (tmp_path / "hidden").mkdir()
    copy = f"cp -r {toys}/toys {tmp_path}/hidden" if hidden == "data" else "true"
    if hidden == "data":
        (tmp_path / "hidden").rmdir()
        copy = f"mkdir {tmp_path}/mounted/hidden && cp -r {toys}/toys {tmp_path}/mounted/hidden"
        (tmp_path / "mounted").mkdir()
        folders["data"] = tmp_path / "mounted" / "hidden"
    mounted = folders[hidden] if hidden == "runs" else tmp_path / "mounted"
    bench = [sys.executable, "-m", "czslkit", "bench", "--methods", "csp", "--datasets", "toys", "--worlds", "closed"]
    bench += ["--set", f"backbone={clip_file}", "train.epochs=1", "--slurm", "timeout_min=5", "cpus_per_task=1"]
    bench += ["--data", str(folders["data"]), "--runs", str(folders["runs"])]
    script = f"mount -t tmpfs none {mounted} && {copy} && exec " + " ".join(bench)
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert message.format(folder=folders[hidden]) in done.stderr + done.stdout


def test_the_commands_of_the_page_run_as_written(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    commands = dict(re.findall(r"<!-- (\w+) -->\n```sh\n(.*?)```", page, flags=re.DOTALL))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CZSLKIT_DATA": str(tmp_path / "data")}

    def run(name: str) -> tuple[str, str]:
        done = subprocess.run(
            ["bash", "-euc", commands[name]], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    assert run("run")[0].startswith("demo ")
    out, err = run("detach")
    assert "asked for, but without a result: csp on demo (2 of 2 cells)" in out
    assert "in Slurm: 1 training (job " in err
    out, err = run("attach")
    assert "submitted before as Slurm job" in err and "without a result" not in out


def test_a_training_that_reaches_its_time_limit_goes_on(start: Any, limited: dict[int, Path]) -> None:
    result = start(limited[3], "slow", {}, epochs=60)
    assert (result.failed, len(job_ids(limited[3]))) == (0, 1)
    log = next(limited[3].glob("slurm/*/*_log.out")).read_text()
    assert "Caught signal SIGUSR2" in log and "resumed after epoch" in log
    assert len(result.results[0]["training"]["history"]) == 60


def test_a_training_that_reaches_its_time_limit_too_often_is_a_failed_cell(
    start: Any, limited: dict[int, Path]
) -> None:
    result = start(limited[0], "slow", {}, epochs=EPOCHS[0])
    assert "timed-out too many times" in result.results[0]["error"]["message"]
    resumed = start(limited[0], "slow", {"timeout_min": 5}, epochs=EPOCHS[0], detach=True)
    assert (resumed.results, len(job_ids(limited[0]))) == ((), 2)
    subprocess.run(["scancel", job_ids(limited[0])[1]], check=True)
