"""Measure how trainings share the processors: several at a time, and one over several processes.

    python benchmarks/scaling.py            # prints two tables after some minutes; the machine should do nothing else

Every command is a process of its own with one thread for each training or rank, on the demo dataset with the demo CLIP,
and its results start in an empty folder. The first table has the cells per hour of a grid of trainings with ``--jobs``;
the time has the start of all processes in it. The second one has the images per second of one training whose batches
are split among ranks with ``torchrun``; its time is that of the epochs, without the start.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

import czslkit

CZSLKIT = ["-m", "czslkit", "bench", "--datasets", "demo", "--worlds", "closed", "--set", "backbone=demo"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def seconds(*arguments: str) -> float:
    """Run Python with some arguments and return the seconds that it took.

    Raises:
        RuntimeError: the command failed; the message ends with its last lines.
    """
    start = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], env=ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return time.monotonic() - start


def cells_per_hour(jobs: int, methods: str, seeds: int, epochs: int) -> float:
    """Return the cells per hour of a grid of trainings, ``jobs`` at a time."""
    with tempfile.TemporaryDirectory() as runs:
        grid = [*CZSLKIT, f"train.epochs={epochs}", "--methods", methods, "--seeds", f"0-{seeds - 1}", "--runs", runs]
        taken = seconds(*grid, "--jobs", str(jobs), "--device", "cpu")
        return 3600 * len(methods.split(",")) * seeds / taken


def images_per_second(ranks: int, method: str, epochs: int) -> float:
    """Return the images per second of the epochs of one training over ``ranks`` processes."""
    with tempfile.TemporaryDirectory() as runs:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        one = [*CZSLKIT, f"train.epochs={epochs}", "train.select=last", "--methods", method, "--runs", runs]
        seconds(*start, *one, "--device", "cpu")
        (result,) = (json.loads(path.read_text()) for path in Path(runs).glob("demo/*/*/closed.json"))
        return epochs * len(czslkit.load_dataset("demo").train) / float(result["timing"]["train_s"])


def main() -> None:
    """Measure with the numbers of processes that are asked for, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 2], help="trainings at a time (default: 1 2)")
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2], help="processes of a training (default: 1 2)")
    parser.add_argument("--seeds", type=int, default=4, help="seeds of the grid (default: 4)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each training (default: 4)")
    args = parser.parse_args()
    czslkit.load_dataset("demo")  # is made now if it is absent
    cells = {jobs: cells_per_hour(jobs, "csp,msci", args.seeds, args.epochs) for jobs in args.jobs}
    images = {ranks: images_per_second(ranks, "msci", args.epochs) for ranks in args.ranks}
    for title, found in (("cells per hour", cells), ("images per second", images)):
        rows = [(count, rate, rate / next(iter(found.values()))) for count, rate in found.items()]
        first = "trainings at a time" if found is cells else "ranks of one training"
        print(tabulate(rows, [first, title, "times the first row"], "github", floatfmt=".2f"), end="\n\n")


if __name__ == "__main__":
    main()
