"""Benchmarks that are killed at their file operations, and run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

#: Run a benchmark in the folder ``whole`` and count its file operations. Then, for every step-th operation, run it in a
#: folder of its own, once in a process that is killed at this operation, and once more. The exit codes are printed.
PROGRAM = """
import os, signal, sys
from pathlib import Path
import safetensors.torch
import torch
torch.set_num_threads(1)
import czslkit.weights
from czslkit.cli import main
from czslkit.registry import load_plugins
load_plugins()

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

def child(runs, last, command):
    count = 0

    def operation(half_written=None):
        nonlocal count
        count += 1
        if count == last:
            if half_written:
                half_written.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event, arguments):
        changes = event in ("os.rename", "os.remove", "os.mkdir") or (event == "open" and arguments[2] & WRITES)
        if changes and isinstance(arguments[0], (str, os.PathLike)) and str(arguments[0]).startswith(runs):
            operation()

    save_file = czslkit.weights.save_file

    def save(tensors, path, metadata):  # safetensors writes .tmpXXXXXX and renames it, which Python does not see
        operation(path.with_name(".tmpAb12Cd"))
        save_file(tensors, path, metadata)

    czslkit.weights.save_file = save
    sys.addaudithook(watch)
    code = main([*command, "--runs", runs])
    if not last:
        (folder / "count").write_text(str(count))
    return code

def run(runs, last, command):
    if (pid := os.fork()) == 0:
        code = 99
        try:
            code = child(runs, last, command)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

folder, step, command = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
run(str(folder / "whole"), 0, command)
for last in range(2, int((folder / "count").read_text()) + 1, step):
    runs = str(folder / f"killed-{last}")
    print("codes", run(runs, last, command), run(runs, 0, command), flush=True)
"""


def contents(runs: Path) -> dict[str, Any]:
    """Return the content of each file without its times."""
    found: dict[str, Any] = {}
    for path in sorted(file for file in runs.rglob("*") if file.is_file() and file.name != ".lock"):
        name = path.relative_to(runs).as_posix()
        if path.name == "closed.json":
            result = json.loads(path.read_text())
            found[name] = {key: result[key] for key in result.keys() - {"digest", "finished", "timing", "training"}}
            found[name] |= {key: result["training"][key] for key in ("history", "best_epoch")}
        elif path.suffix == ".safetensors":
            found[name] = {key: value.tolist() for key, value in load_file(path).items()}
        else:
            found[name] = path.read_bytes()
    return found


def check_kills(data: Path, clip_file: Path, folder: Path, step: int) -> None:
    command = ["bench", "--methods", "csp", "--datasets", "toys", "--worlds", "closed", "--data", str(data)]
    command += ["--set", f"backbone={clip_file}", "train.epochs=2", "train.batch_size=8", "train.lr=0.01"]
    program = [sys.executable, "-c", PROGRAM, str(folder), str(step), *command]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    codes = [line for line in done.stdout.splitlines() if line.startswith("codes")]
    killed = sorted(folder.glob("killed-*"))
    assert codes == ["codes -9 0"] * len(killed)
    assert len(killed) >= 3
    whole = contents(folder / "whole")
    for runs in killed:
        assert contents(runs) == whole, runs


def test_a_benchmark_that_is_killed_and_run_again_ends_as_an_undisturbed_one(
    toys: Path, clip_file: Path, tmp_path: Path
) -> None:
    check_kills(toys, clip_file, tmp_path, step=23)


@pytest.mark.slow
def test_a_benchmark_may_be_killed_at_every_file_operation(toys: Path, clip_file: Path, tmp_path: Path) -> None:
    check_kills(toys, clip_file, tmp_path, step=1)
