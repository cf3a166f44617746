"""Measure training steps and open-world scoring on a GPU against the authors' way.

    python benchmarks/gpu_speed.py --out benchmarks/gpu_speed.md     # at most 8 minutes on one GPU
    python benchmarks/gpu_speed.py --tiny                            # shows on a CPU that the program runs

The weights are random, of the size of CLIP ViT-L/14. The authors' way (``authors_way.py``) is a plain loop in fp32
without TF32: it reads the loss after every step, projects all visual layers, and copies all scores to the host. Ours is
what a user gets: an epoch of ``Trainer``, and ``Evaluation`` with its sweep, in fp32, tf32 and bf16. The images are
random and on the device already, so no file is read.

Before the measurement, both ways must give the same losses and gradients, or the same best scores; a way with other
numbers is named and not measured. Then they take turns, and the smallest time of each counts. Both files are written
again after every run. The most important work comes first; once the time is over, no run starts.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch
from gpu_speed_work import Run, Task, Way, Work, matmul_rate, tiny_works, works
from tabulate import tabulate
from torch import Tensor

from czslkit.files import write_text
from czslkit.precision import PRECISIONS, Precision

AUTHORS = Way("authors", "fp32")
#: The ways in the order of a turn. Each must agree with the authors' way within its tolerance.
TOLERANCES = {AUTHORS: 0.0, Way("ours", "bf16"): 0.1, Way("ours", "tf32"): 0.02, Way("ours", "fp32"): 1e-3}
EXPLANATION = """\
The time is that of a training step with its optimiser, without the reading of images, or that of scoring an image once
the texts are encoded. Memory is the peak of the device, weights included. The share is the rate of operations, divided
by the rate of a large matrix product in the same precision. The difference from the authors' way is relative: of loss
and gradient for a few images without dropout, or of the best scores."""


@dataclass
class Row:
    """The measurements of a work in one way."""

    work: str
    whose: str
    precision: str
    seconds: float | None = None  # for a training step or an image; None if there is a problem
    problem: str | None = None  # "out of memory", or "other numbers" than the authors'
    text_seconds: float | None = None  # for the texts of all pairs
    peak_bytes: int | None = None  # largest memory of the device, weights included
    operations: float | None = None  # floating-point operations of a step or an image
    rate_share: float | None = None  # the rate of these, as a share of the rate of a large product in this precision
    difference: float | None = None  # relative difference of losses and gradients, or scores, from the authors' way
    images_at_a_time: int | None = None
    runs: int = 0  # runs whose smallest time counts; 0: only the run in which operations were counted


class Report:
    """The rows, which are written to two files again whenever one of them changes.

    Args:
        file: the Markdown page; the rows are also written to a file of JSON lines next to it. None writes no file.
        rates: floating-point operations per second of a large product, by precision.
    """

    def __init__(self, file: Path | None, header: str, rates: Mapping[Precision, float]) -> None:
        self.file, self.header, self.rates = file, header, rates
        self.rows: dict[tuple[Work, Way], Row] = {}

    def set(self, work: Work, way: Way, row: Row) -> None:
        """Add or replace a row, print it and write the files."""
        self.rows[work, way] = row
        cells = self._cells(work, way)
        print(", ".join(f"{name} {cell}".strip() for name, cell in cells.items() if cell), flush=True)
        if self.file:
            write_text(self.file, self.page())
            lines = [json.dumps(asdict(row)) for row in self.rows.values()]
            write_text(self.file.with_suffix(".jsonl"), "".join(f"{line}\n" for line in lines))

    def page(self) -> str:
        """Return the Markdown page."""
        rates = ", ".join(f"{rate / 1e12:.3g} in {precision}" for precision, rate in self.rates.items())
        table = tabulate([self._cells(*key) for key in self.rows], headers="keys", tablefmt="github")
        products = f"Large matrix products: {rates} (TFLOP/s)."
        return "\n\n".join(("# Speed on a GPU", self.header, products, table, EXPLANATION)) + "\n"

    def _cells(self, work: Work, way: Way) -> dict[str, str]:
        row, authors = self.rows[work, way], self.rows.get((work, AUTHORS))
        base = authors.seconds if authors else None
        few = row.images_at_a_time not in (None, work.images)
        return {
            "work": row.work,
            "way": ("authors'" if way == AUTHORS else f"ours, {way.precision}")
            + (f", {row.images_at_a_time} images at a time" if few else ""),
            "ms": row.problem or f"{1000 * (row.seconds or 0):.3g}",
            "times as fast": f"{base / row.seconds:.2f}" if base and row.seconds else "",
            "texts, s": "" if row.text_seconds is None else f"{row.text_seconds:.3g}",
            "memory, GB": "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.1f}",
            "share of rate": "" if row.rate_share is None else f"{row.rate_share:.0%}",
            "runs": str(row.runs),
            "difference": "" if row.difference is None else f"{row.difference:.0e}",
        }


def measure(task: Task, report: Report, rounds: int, deadline: float) -> None:
    """Measure a work in all ways, in turns, as long as there is time.

    A way that gives other numbers than the authors' is not measured.
    """
    work, longest = task.work, 0.0
    reference: Tensor | None = None
    rows = {way: Row(str(work), *way, images_at_a_time=work.images) for way in TOLERANCES}
    for turn in range(1 + rounds):
        for way, row in rows.items():
            if row.problem or time.monotonic() + longest > deadline:
                continue
            start = time.monotonic()
            run, peak = _run_that_fits(task, way, row, first=not turn)
            if not turn and (run or way == AUTHORS):
                scores = run.result if run else None
                found = task.loss_and_gradient(way) if work.kind == "train step" else scores
                reference = found if way == AUTHORS else reference
                row.difference = relative_difference(found, reference)
            _add(row, run, peak, report.rates[way.precision], first=not turn)
            if (row.difference or 0) > TOLERANCES[way]:
                row.problem, row.seconds = "other numbers", None
            report.set(work, way, row)
            longest = max(longest, time.monotonic() - start)


def _run_that_fits(task: Task, way: Way, row: Row, *, first: bool) -> tuple[Run | None, int | None]:
    """Return a run and its peak memory; None if the memory is too little.

    The authors' way then scores half as many images at a time, as its users do.
    """
    assert row.images_at_a_time is not None
    run, peak = _attempt(lambda size: task.run(way, size, count=first), row.images_at_a_time)
    while run is None and way == AUTHORS and task.work.kind != "train step" and row.images_at_a_time > 1:
        row.images_at_a_time //= 2
        run, peak = _attempt(lambda size: task.run(way, size, count=first), row.images_at_a_time)
    return run, peak


def _attempt(run: Callable[[int], Run], size: int) -> tuple[Run | None, int | None]:
    """Return ``run(size)`` and the peak memory of the device in bytes, if it is a GPU; None without enough memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        found = run(size)
    except torch.OutOfMemoryError:
        return None, None
    return found, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def relative_difference(found: Tensor | None, reference: Tensor | None) -> float | None:
    """Return the norm of the difference of two vectors over that of ``reference``; None if one of them is lacking."""
    if found is None or reference is None:
        return None
    return float((found.double() - reference.double()).norm() / reference.double().norm())


def _add(row: Row, run: Run | None, peak: int | None, rate: float, *, first: bool) -> None:
    """Add a run to a row; the time of the first run, which counts operations, is replaced by that of the second."""
    if run is None:
        row.problem, row.seconds = "out of memory", None
        return
    row.runs += not first
    replaced = row.seconds is None or row.runs == 1
    if first:
        row.operations = run.operations
    if replaced or run.seconds < (row.seconds or 0):
        row.seconds, row.text_seconds = run.seconds, run.text_seconds
    if peak is not None:
        row.peak_bytes = max(row.peak_bytes or 0, peak)
    if row.operations and row.seconds:
        row.rate_share = row.operations / row.seconds / rate


def header(device: torch.device, command: str) -> str:
    """Return what was measured where."""
    if device.type == "cpu":
        return "**This is a proof that the program runs, with tiny sizes on a CPU. It is no measurement.**"
    name, today = torch.cuda.get_device_name(device), date.today()
    return f"`{command}` on one {name}, torch {torch.__version__}, {today}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the rows and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown page to write, and JSON lines next to it")
    parser.add_argument("--minutes", type=float, default=8, help="start no run that would take longer (default: 8)")
    parser.add_argument("--rounds", type=int, help="measured turns of each way (default: 2, or 1 with --tiny)")
    parser.add_argument("--rows", default="", help="measure only work whose name contains this text (default: all)")
    parser.add_argument("--tiny", action="store_true", help="show on a CPU that the program runs")
    args = parser.parse_args(arguments)
    if not args.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU; --tiny shows on a CPU that the program runs")
    deadline = time.monotonic() + 60 * args.minutes
    device = torch.device("cpu" if args.tiny else "cuda")
    side = 256 if args.tiny else 8_192
    rates = {precision: matmul_rate(precision, side, device) for precision in PRECISIONS}
    command = " ".join(["python benchmarks/gpu_speed.py", *(sys.argv[1:] if arguments is None else arguments)])
    report, task = Report(args.out, header(device, command), rates), None
    for work in tiny_works() if args.tiny else works():
        if args.rows not in str(work) or time.monotonic() > deadline:
            continue
        shared = task.method if task and task.work.shares_method(work) else None
        task = None  # frees the memory of the last method
        task = Task(work, device, shared)
        del shared
        measure(task, report, args.rounds or (1 if args.tiny else 2), deadline)
    print(f"\n{report.page()}")
    if wrong := [row for row in report.rows.values() if row.problem == "other numbers"]:
        named = "; ".join(f"{row.work}, ours in {row.precision}: {row.difference:.0e}" for row in wrong)
        sys.exit(f"losses, gradients or scores differ too much from the authors' way: {named}")


if __name__ == "__main__":
    main()
