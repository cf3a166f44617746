"""Benchmarks beside other processes that run the same cells."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from czslkit.locks import Holder, try_lock
from czslkit.runner import run_jobs as module

TOOK = rf"process {os.getpid()} on \S+ took it \d+ s ago"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    monkeypatch.setattr(module, "_GLANCE", 0.01)


def lock_cell(runs: Path, method: str) -> Callable[[], None]:
    """Lock the cell of a method as another process would, before or after it was run."""
    (folder,) = (runs / "toys" / method).iterdir()
    release = try_lock(folder / ".lock", print)
    assert not isinstance(release, Holder)
    return release


def test_a_cell_of_another_process_is_taken_up_after_the_others(bench_toys: Any, tmp_path: Path) -> None:
    bench_toys("clip,csp")
    for file in tmp_path.glob("runs/toys/*/*/closed.json"):
        file.unlink()
    release = lock_cell(tmp_path / "runs", "clip")
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line.partition("] ")[2])
        if line.startswith("[2/2] csp on toys, seed 0: running"):
            release()

    result = bench_toys("clip,csp", log=log)
    assert [cell["cell"]["method"] for cell in result.results] == ["clip", "csp"]
    assert not result.failed
    assert re.fullmatch(
        rf"clip on toys, seed 0: locked by another process, so it is taken up after the other jobs: {TOOK}", lines[0]
    )
    assert lines.index("csp on toys, seed 0: running") < lines.index("clip on toys, seed 0: running")


def test_a_cell_that_another_process_only_looks_at_is_not_put_off(
    bench_toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench_toys("clip")
    release = lock_cell(tmp_path / "runs", "clip")
    monkeypatch.setattr(module.time, "sleep", lambda seconds: release())
    lines: list[str] = []
    bench_toys("clip", log=lines.append)
    assert [line.partition("] ")[2] for line in lines] == ["clip on toys, seed 0: done before"]


@pytest.mark.parametrize("methods", ["clip", "clip,csp"])
def test_what_another_process_finishes_meanwhile_is_done_before(bench_toys: Any, tmp_path: Path, methods: str) -> None:
    first = bench_toys(methods)
    releases = [lock_cell(tmp_path / "runs", method) for method in methods.split(",")]
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if "waiting" in line:
            releases.pop(0)()

    assert bench_toys(methods, log=log).results == first.results
    count = len(methods.split(","))
    (clip, *_) = [line for line in lines if "clip" in line and "waiting" in line]
    assert re.fullmatch(rf"\[1/{count}\] clip on toys, seed 0: waiting for another process: {TOOK}", clip)
    assert [line.rpartition(": ")[2] for line in lines[-count:]] == ["done before"] * count
    assert sum("after the other jobs" in line for line in lines) == (0 if count == 1 else 2)


def test_a_folder_of_results_that_cannot_be_locked_fails_its_cells_with_one_line(
    bench_toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    result = bench_toys("clip")
    assert result.failed == 1
    (folder,) = (tmp_path / "runs" / "toys" / "clip").iterdir()
    message = (
        f"{folder / '.lock'} cannot be locked, which needs a folder that can be written: OSError: Input/output error"
    )
    assert result.results[0]["error"]["message"] == message
    assert f"[1/1] clip on toys, seed 0: {message}" in bench_toys.log_lines


def test_a_cell_runs_without_a_lock_service(bench_toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not bench_toys("clip").failed
    (folder,) = (tmp_path / "runs" / "toys" / "clip").iterdir()
    assert (folder / ".lock-1-free").exists()
