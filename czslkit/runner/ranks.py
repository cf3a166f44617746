"""Jobs that several processes run together: the first one runs them as ever, and the others help with each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .. import distributed
from ..torchrun import process_count, process_rank
from .evaluate import evaluate
from .job import Job
from .prepare import prepare
from .train import train_method

_Results = list[dict[str, Any]]


def run_on_ranks(jobs: Sequence[Job], run: Callable[[Sequence[Job]], _Results]) -> _Results:
    """Return ``run(jobs)``, which the first process calls; the others train and evaluate with it. All return the same.

    If one of the processes fails alone, all end.
    """
    if process_count() == 1:
        return run(jobs)
    distributed.connect()
    if process_rank() > 0:
        return _follow(jobs)
    results = run(jobs)
    distributed.broadcast((None, results))
    return results


@contextmanager
def leading(job: Job, worlds: Sequence[str]) -> Iterator[None]:
    """Let all processes run a job within the ``with`` block, in which the first one calls what :func:`_help` calls.

    Args:
        worlds: the worlds that have no usable result.
    """
    distributed.broadcast((job.spec.cell("closed"), worlds))
    with distributed.together(), distributed.agreed():
        yield


def _follow(jobs: Sequence[Job]) -> _Results:
    """Help with jobs until the first process has run all of them; return its results."""
    by_cell = {str(job.spec.cell("closed")): replace(job, log=_silent) for job in jobs}
    while True:
        cell, content = distributed.broadcast((None, None))
        if cell is None:
            results: _Results = content  # type: ignore[assignment]
            return results
        try:
            with distributed.together(), distributed.agreed():
                _help(by_cell[str(cell)], content)
        except Exception:  # all processes have failed alike, and the first one has recorded it
            continue


def _help(job: Job, worlds: Sequence[str]) -> None:
    """Do the part of a job that all processes do; the first one also reads, writes and logs."""
    prepared = prepare(job, worlds)
    if prepared.worlds:
        train_method(job, prepared, "", {})
        evaluate(job, prepared)


def _silent(line: str) -> None:
    """Drop a line of the log, which the first process writes."""
