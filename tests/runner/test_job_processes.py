"""Several trainings at a time: the same results as one by one, also if processes are killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import czslkit
from czslkit.cli import main
from czslkit.data.make.mini import write_mini
from czslkit.device_memory import SHARING
from czslkit.errors import ConfigError, ProcessError
from czslkit.metrics.names import WORLDS
from czslkit.runner import job_processes
from czslkit.runner.request import Request

MARK = "CZSLKIT_TEST_MARK"  # variable in the environment of every process that a command starts
SLOW = pytest.mark.slow
TIMES = ("digest", "finished", "timing")


def results(runs: Path) -> dict[str, Any]:
    """Return the content of each result without its times."""
    found = {}
    for path in sorted(path for world in WORLDS for path in runs.glob(f"*/*/*/{world}.json")):
        content = json.loads(path.read_text())
        kept = {key: value for key, value in content.items() if key not in TIMES}
        if kept["training"]:
            kept["training"] = {key: value for key, value in kept["training"].items() if key != "seconds"}
        found[path.relative_to(runs).as_posix()] = kept
    return found


@pytest.fixture(autouse=True)
def no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no process import the script that runs pytest, which in some environments would run pytest."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


class Command:
    """A benchmark of two seeds in a process of its own, which starts two more."""

    def __init__(self, runs: Path, data: Path, clip_file: Path, *options: str) -> None:
        self.runs, self._log = runs, runs.with_name(f"{runs.name}.log")
        command = [sys.executable, "-m", "czslkit", "bench", "--methods", "csp", "--datasets", "toys", "--seeds", "0-1"]
        command += ["--worlds", "closed", "--data", str(data), "--runs", str(runs), "--jobs", "2", *options]
        command += ["--set", f"backbone={clip_file}", "train.epochs=3", "train.batch_size=2", "train.lr=0.01"]
        self._mark = f"{MARK}={uuid.uuid4()}"
        name, value = self._mark.split("=")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, name: value},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell may ignore it
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until the command has printed a text."""
        end = time.monotonic() + 120
        while text not in self.log and self._process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert text in self.log

    def processes(self) -> dict[int, str]:
        """Return the command lines of the command and of what it has started, by their process numbers."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended
                continue
        return found

    def trainings(self) -> list[int]:
        """Return the numbers of the processes that run a training."""
        return sorted(pid for pid, line in self.processes().items() if "spawn_main" in line)

    def kill_parent(self) -> None:
        self._process.kill()

    def interrupt(self, group: bool) -> None:
        """Send the signal of Ctrl-C to the command, or to all its processes as a terminal does."""
        (os.killpg if group else os.kill)(self._process.pid, signal.SIGINT)

    def status(self) -> int:
        """Return the exit status of the command; none of its processes is left."""
        code = self._process.wait(240)
        end = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left
        return code


@pytest.fixture
def start(tmp_path: Path, toys: Path, clip_file: Path) -> Iterator[Callable[..., Command]]:
    """Start a benchmark with some options in the folder ``runs``; at the end, nothing of it is left."""
    started: list[Command] = []

    def go(*options: str, runs: str = "runs") -> Command:
        started.append(Command(tmp_path / runs, toys, clip_file, *options))
        return started[-1]

    yield go
    for command in started:
        for pid in command.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, toys: Path, clip_file: Path) -> tuple[str, dict[str, Any]]:
    """The table and the results of the same benchmark in one process."""
    runs = tmp_path_factory.mktemp("undisturbed")
    settings = {"backbone": str(clip_file), "train.epochs": 3, "train.batch_size": 2, "train.lr": 0.01}
    where = {"data": toys, "runs": runs, "log": lambda line: None, "progress": False}
    result = czslkit.bench("csp", "toys", "closed", (0, 1), settings=settings, **where)
    return result.to_csv(), results(runs)


@pytest.mark.parametrize(
    ("methods", "worlds", "thresholds"),
    [("csp", "closed", [None]), pytest.param("clip,csp,msci", "closed,open", [None, 0.1], marks=SLOW)],
)
def test_replicas_give_the_same_results_at_a_time_and_one_by_one(
    methods: str, worlds: str, thresholds: list[float | None], tmp_path: Path
) -> None:
    for name in ("mit-states", "ut-zappos", "cgqa"):
        write_mini(name, tmp_path / "data")
    lines: list[str] = []

    def go(jobs: int, runs: str) -> str:
        settings = {"backbone": "demo", "train.epochs": 1, "csp.eval.threshold": czslkit.Grid(thresholds)}
        where = {"data": tmp_path / "data", "runs": tmp_path / runs, "log": lines.append, "device": "cpu"}
        result = czslkit.bench(methods, "all", worlds, preset="demo", settings=settings, jobs=jobs, **where)
        assert not result.failed, [one["error"] for one in result.results]
        return result.to_csv()

    assert go(1, "one") == go(2, "two")
    assert results(tmp_path / "one") == results(tmp_path / "two")
    del lines[:]
    go(2, "two")
    assert all(line.endswith("done before") for line in lines)
    assert len(lines) == 3 * (len(methods.split(",")) + len(thresholds) - 1)


def test_a_training_whose_process_is_killed_fails_with_its_log_and_the_others_go_on(
    start: Callable[..., Command], undisturbed: tuple[str, dict[str, Any]]
) -> None:
    first = start()
    first.wait_for("seed 0: running")
    (victim, *_) = [pid for pid in first.trainings() if is_running(first, pid, 0)]
    os.kill(victim, signal.SIGKILL)
    assert first.status() == 1
    (failed,) = (result for result in results(first.runs).values() if result["status"] == "failed")
    assert failed["cell"]["seed"] == 0
    log_file = next(first.runs.glob("toys/csp/seed0-*")) / "log.txt"
    start_of_message = "the process of this training was ended by SIGKILL, perhaps because memory ran out; "
    assert failed["error"]["message"].startswith(f"{start_of_message}{log_file} ends with\n  [1/2] csp on toys, seed 0")
    assert f"[1/2] csp on toys, seed 0: failed: {start_of_message}{log_file}" in first.log
    again = start()
    assert again.status() == 0
    assert "[2/2] csp on toys, seed 1: done before" in again.log
    assert ((again.runs / "table.csv").read_text(), results(again.runs)) == undisturbed


def is_running(command: Command, pid: int, seed: int) -> bool:
    """Return whether a process runs the training of a seed: its output goes to the log of this training."""
    return f"/seed{seed}-" in os.readlink(f"/proc/{pid}/fd/1")


@pytest.mark.parametrize(
    "end",
    ["killed", "interrupted with its group", *(pytest.param(e, marks=SLOW) for e in ("terminated", "interrupted"))],
)
def test_all_processes_end_with_the_command_and_the_same_command_resumes(
    end: str, start: Callable[..., Command], undisturbed: tuple[str, dict[str, Any]]
) -> None:
    first = start("--workers", "1")
    first.wait_for("running")
    assert first.trainings()
    if end == "killed":
        first.kill_parent()
    elif end == "terminated":
        first._process.terminate()
    else:
        first.interrupt(group="group" in end)
    expected = {"killed": -signal.SIGKILL, "terminated": -signal.SIGTERM}.get(end, 130)
    assert first.status() == expected
    assert "Traceback" not in first.log
    assert ("run the same command again to continue" in first.log) == (expected == 130)
    again = start()
    assert again.status() == 0
    assert ((again.runs / "table.csv").read_text(), results(again.runs)) == undisturbed


@SLOW
@pytest.mark.parametrize("victim", ["a training", "the command"])
def test_killed_at_any_moment_the_same_command_ends_with_the_same_table(
    victim: str, start: Callable[..., Command], undisturbed: tuple[str, dict[str, Any]]
) -> None:
    moments, began = random.Random(victim), time.monotonic()
    assert start(runs="measured").status() == 0
    whole = time.monotonic() - began
    for number in range(20):
        moment = moments.uniform(0.0, whole)
        first = start(runs=f"runs{number}")
        time.sleep(moment)
        killed = first._process.poll() is None
        if victim == "the command":
            first.kill_parent()
        elif killed := bool(trainings := first.trainings()):
            os.kill(moments.choice(trainings), signal.SIGKILL)
        status = first.status()
        print(f"{victim} after {moment:.1f} of {whole:.1f} s: killed {killed}, status {status}", flush=True)
        again = start(runs=f"runs{number}")
        assert again.status() == 0
        assert ((again.runs / "table.csv").read_text(), results(again.runs)) == undisturbed


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script with ``WHERE``, the arguments of ``bench`` for a quick benchmark."""
    file = folder / "script.py"
    where = {"datasets": "toys", "worlds": "closed", "data": str(folder / "data"), "runs": str(folder / "runs")}
    file.write_text(f"WHERE = {where!r}\n{text}", encoding="utf-8")
    return subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=240)


OWN_METHOD = """
import czslkit
from czslkit_plugins.clip import Clip

@czslkit.METHODS.register("mine")
class Mine(Clip):
    pass

def go():
    result = czslkit.bench("mine", seeds=(0, 1), jobs=2, settings={"backbone": "demo"}, progress=False, **WHERE)
    print([found["status"] for found in result.results])

"""


def test_methods_of_a_script_are_known_in_the_processes(tmp_path: Path, toys: Path) -> None:
    (tmp_path / "data").symlink_to(toys)
    done = script(tmp_path, f"{OWN_METHOD}if __name__ == '__main__':\n    go()\n")
    assert (done.returncode, done.stdout) == (0, "['done', 'done']\n"), done.stderr[-2000:]


def test_a_script_without_the_usual_guard_gets_one_error(tmp_path: Path, toys: Path) -> None:
    (tmp_path / "data").symlink_to(toys)
    done = script(tmp_path, f"{OWN_METHOD}go()\n")
    assert done.returncode == 1
    assert done.stderr.count("ConfigError") == done.stderr.count("Traceback") == 1
    assert (
        'your script calls bench when it is imported. Put the call\nunder\n    if __name__ == "__main__":'
        in done.stderr
    )
    assert not [*tmp_path.glob("runs/toys/*/*/*.json")]


def test_a_script_that_cannot_be_imported_stops_the_benchmark(bench_toys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "<stdin>", raising=False)
    with pytest.raises(ProcessError, match="ended with exit status 1 before it began; its error is above"):
        bench_toys("csp", jobs=2)


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "two", True])
def test_a_wrong_number_of_jobs_is_named(jobs: Any, bench_toys: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"jobs is {jobs!r}, expected a whole number above 0, or auto")):
        bench_toys("csp", jobs=jobs)


def test_the_command_line_refuses_a_wrong_number_of_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--methods", "csp", "--jobs", "some"])
    assert "argument --jobs: 'some' is not a whole number above 0, nor auto" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "variable", "device", "gpus"),
    [
        (0, None, "auto", []),
        (2, None, "auto", ["0", "1"]),
        (2, None, "cuda", ["0", "1"]),
        (2, "3, 5", "auto", ["3", "5"]),
        (1, "GPU-8932f937-d72c", "auto", ["GPU-8932f937-d72c"]),
        (1, "1,-1,2", "auto", ["1"]),  # CUDA reads up to the first number that is none of a GPU
        (0, "", "auto", []),
        (2, None, "cpu", []),
        (2, None, "cuda:1", []),
    ],
)
def test_each_visible_gpu_gets_a_training(
    count: int, variable: str | None, device: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert job_processes.visible_gpus(device) == gpus
    assert job_processes.trainings_at_a_time("auto", device) == max(1, len(gpus))


@pytest.mark.parametrize(
    ("own", "variable", "processors", "processes", "threads"),
    [(8, "", 8, 2, 4), (8, "", 8, 3, 2), (8, "", 8, 9, 1), (1, "", 8, 2, 1), (4, "", 8, 4, 2), (6, "6", 8, 2, 6)],
)
def test_trainings_share_the_processors(
    own: int, variable: str, processors: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: own)
    monkeypatch.setattr(job_processes, "available_cores", lambda: processors)  # a container may have fewer
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert job_processes.threads_of_each(processes) == threads


def test_a_variable_of_the_environment_is_set_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with job_processes._environment({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "3"}):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]) == ("1", "3")
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize(("gpus", "sharing"), [([], "3"), (["0", "1"], "2"), (["0", "1", "2", "3"], "1")])
def test_the_processes_know_how_many_share_their_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[str], sharing: str
) -> None:
    started: list[str] = []

    class Started:
        def __init__(self, **arguments: object) -> None: ...

        def start(self) -> None:
            started.append(os.environ[SHARING])

    monkeypatch.setattr(job_processes, "visible_gpus", lambda device: gpus)
    monkeypatch.setattr(job_processes._SPAWN, "Process", Started)
    processes = job_processes.JobProcesses(Request("clip", runs=tmp_path), [], 3, lambda line: None)
    processes._start(0, 0, tmp_path / "log.txt")[1].close()
    assert started == [sharing]
    assert SHARING not in os.environ
