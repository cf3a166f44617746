"""Run the jobs of a benchmark, beside other processes that run the same ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from typing import Any, TypeAlias

from ..errors import LockedError
from .job import Job
from .ranks import run_on_ranks
from .run_job import record_failure, run_job

#: The results of a job, or the error if another process runs it.
Outcome: TypeAlias = "list[dict[str, Any]] | LockedError"
_GLANCE = 0.3  # seconds in which a process that only looks at a stored result is done
_PAUSE = 1.0  # seconds between two looks at jobs that other processes run
_PUT_OFF = "locked by another process, so it is taken up after the other jobs"
_WAITING = "waiting for another process"


def run_jobs(
    jobs: Sequence[Job], attempt: Callable[[Sequence[int]], Iterable[Outcome]] | None = None
) -> list[dict[str, Any]]:
    """Run jobs and return the results of all their worlds, in the order of the jobs.

    A job that another process runs is put off until after the other jobs. Once that process has finished it, its
    stored results are returned; if that process ends without results, the job is run here. So processes that run the
    same jobs, also on several hosts, share them. Processes that torchrun started run each job together.

    Args:
        attempt: runs the jobs with some numbers, and returns the outcome of each; in this process if None.
    """
    if attempt:
        return _run_jobs(jobs, attempt)
    return run_on_ranks(jobs, lambda jobs: _run_jobs(jobs, lambda numbers: (_outcome(jobs[n]) for n in numbers)))


def _run_jobs(jobs: Sequence[Job], attempt: Callable[[Sequence[int]], Iterable[Outcome]]) -> list[dict[str, Any]]:
    """Run jobs, with the help of the others that torchrun started; see :func:`run_jobs`."""
    results: dict[int, list[dict[str, Any]]] = {}
    put_off = list(range(len(jobs)))
    for line in chain([_PUT_OFF] * (len(jobs) > 1), [_WAITING], repeat("")):
        if not put_off:
            break
        numbers, put_off = put_off, []
        for number, outcome in zip(numbers, attempt(numbers), strict=True):
            if not isinstance(outcome, LockedError):
                results[number] = outcome
                continue
            put_off.append(number)
            if line:
                jobs[number].log(f"{line}: {outcome.holder}")
        if put_off == numbers:
            time.sleep(_PAUSE)
    return [result for number in range(len(jobs)) for result in results[number]]


def _outcome(job: Job) -> Outcome:
    try:
        return run_or_failures(job)
    except LockedError as error:
        return error


def run_or_failures(job: Job) -> list[dict[str, Any]]:
    """Run a job; an error such as a missing weight file is recorded for this job, and the other jobs run.

    Raises:
        LockedError: another process runs the job.
    """
    try:
        try:
            return run_job(job)
        except LockedError:
            time.sleep(_GLANCE)
            return run_job(job)
    except LockedError:
        raise
    except Exception as error:
        return record_failure(job, error)
