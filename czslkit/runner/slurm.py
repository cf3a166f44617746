"""A benchmark on a Slurm cluster: its trainings are submitted as an array of jobs, and followed to their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.dataset_folders import data_root
from ..errors import CzslkitError, LockedError
from ..files import file_lock
from ..options import user_path
from ..result_store import Result
from ..terminal import Progress
from .job import Job
from .record import failure
from .request import Request
from .run_job import failed_results, record_failure, run_job, store_results, usable_results
from .slurm_array import SlurmJob, known_jobs, new_array, submit
from .slurm_job import Training, cell_folder
from .slurm_parameters import Parameters
from .slurm_queue import JobState, job_states

ARRAYS = "slurm"  # folder of all arrays, below the folder of results
_LONGEST_PAUSE = 30.0  # seconds between two looks at the queue
_GRACE = 2.0  # seconds for which a job must have been over, as one that is requeued ends for a moment
_LONG_GRACE = 15.0  # the same for a job without an error, whose results may come late over the network


def run_on_slurm(
    request: Request, jobs: Sequence[Job], parameters: Parameters, detach: bool, log: Callable[[str], None]
) -> list[Result]:
    """Run the jobs of a benchmark in Slurm, and return the results of all their worlds in the order of the jobs.

    Jobs that an earlier call submitted are followed, and not submitted again. A Slurm job that ends without results is
    a failure of its training.

    Args:
        request: the benchmark.
        jobs: its trainings.
        parameters: of the Slurm jobs.
        detach: return at once, with the results that are there.
        log: called with a line for every step.

    Raises:
        ConfigError: Slurm does not take the array of jobs.
    """
    root = (jobs[0].store.root / ARRAYS).absolute()
    results: dict[int, list[Result]] = {}
    followed: dict[int, SlurmJob] = {}
    with file_lock(root / ".lock", log):  # the same command may run elsewhere
        earlier: dict[str, SlurmJob] = {}
        for known in known_jobs(root):
            if earlier.setdefault(known.name, known) is not known:  # it was submitted once more
                known.mark_collected()
        for number, job in enumerate(jobs):
            known_job = earlier.get(cell_folder(job))
            if found := _finished(job):
                results[number] = found
            elif known_job and _covers(known_job, job):
                followed[number] = known_job
                known_job.skip_log()
                job.log(f"submitted before as Slurm job {known_job.id}")
                continue
            if known_job and (found is None or known_job.outcome() is not None):  # it may run for another world
                known_job.mark_collected()
        missing = [number for number in range(len(jobs)) if number not in results and number not in followed]
        submitted = _submit(root, request, [jobs[number] for number in missing], parameters, log)
    new = dict(zip(missing, submitted, strict=True))
    collected, left = _follow(jobs, followed if detach else followed | new, len(results), detach, log)
    if detach and (waiting := left | new):
        log(
            f"in Slurm: {_trainings(len(waiting))} (job {_ids(waiting)}); the same command without --detach follows "
            "the jobs, and prints the whole table"
        )
    results |= collected
    return [result for number in sorted(results) for result in results[number]]


def _trainings(count: int) -> str:
    """Return a number of trainings in words."""
    return "1 training" if count == 1 else f"{count} trainings"


def _ids(jobs: Mapping[int, SlurmJob]) -> str:
    """Return the ids of arrays, as ``scancel`` takes them."""
    return " ".join(dict.fromkeys(job.id.partition("_")[0] for job in jobs.values()))


def _finished(job: Job) -> list[Result] | None:
    """Return the results of a training that need not run, also those of one that cannot run; None if it must run."""
    try:
        usable = usable_results(job).usable
        if not usable.keys() >= {*job.spec.worlds}:
            return None
        try:
            return list(run_job(job))
        except LockedError:  # a process runs it for other worlds
            return [usable[world] for world in job.spec.worlds]
    except Exception as error:
        return list(record_failure(job, error))


def _covers(known: SlurmJob, job: Job) -> bool:
    """Return whether a Slurm job makes the results that a training lacks, or has failed to."""
    outcome = known.outcome()
    is_stale = isinstance(outcome, list) and all(result["status"] == "done" for result in outcome)
    return {*job.spec.worlds} <= {*known.worlds} and not is_stale


def _submit(
    root: Path, request: Request, jobs: Sequence[Job], parameters: Parameters, log: Callable[[str], None]
) -> list[SlurmJob]:
    """Submit cells as one array with a job for each training, and return the Slurm job of each."""
    if not jobs:
        return []
    cache = request.cache if request.cache in (None, "off") else user_path(request.cache).absolute()
    data = data_root(request.data).absolute()
    sent = replace(request, runs=request.store.root.absolute(), data=data, cache=cache)
    folder, token = new_array(root)
    same: dict[str, list[Job]] = {}  # cells of one training: the first one trains, and the others use it
    for job in jobs:
        spec = job.spec
        same.setdefault(repr((spec.dataset, spec.method, spec.seed, spec.training_config)), []).append(job)
    trainings = []
    for cells in same.values():
        names, digests = tuple(map(cell_folder, cells)), cells[0].source.digests(cells[0].spec.dataset)
        training = Training(sent, names, folder, token, Path.cwd(), digests, parameters.distributed)
        trainings.append((training, [job.spec.worlds for job in cells]))
    submitted = {job.name: job for job in submit(trainings, parameters)}
    number = next(iter(submitted.values())).id.partition("_")[0]
    log(
        f"submitted {_trainings(len(trainings))} as Slurm job {number}, with a time limit of {parameters.minutes} "
        f"minutes (timeout_min); logs are in {folder}"
    )
    return [submitted[cell_folder(job)] for job in jobs]


def _follow(
    jobs: Sequence[Job], followed: Mapping[int, SlurmJob], done: int, once: bool, log: Callable[[str], None]
) -> tuple[dict[int, list[Result]], dict[int, SlurmJob]]:
    """Wait for Slurm jobs; return the results of those that ended, and the others.

    Args:
        jobs: all trainings.
        followed: Slurm jobs by the number of their training.
        done: number of trainings that have results.
        once: only collect what has ended.
        log: called with a line for every step.
    """
    left, results = dict(followed), {}
    ended: dict[int, float] = {}  # when a job was first seen to be over
    shown: dict[int, str] = {}
    start = time.monotonic()
    show = any(job.machine.progress for job in jobs) and not once
    try:
        with Progress("trainings in Slurm", len(jobs), show=show, done=done) as progress:
            while left:
                states = _states(left, log)
                for number, state in states.items():
                    job, slurm_job = jobs[number], left[number]
                    outcome = slurm_job.outcome()
                    for line in slurm_job.new_lines(f"[{number + 1}/"):
                        log(line)
                    if outcome is None and not _is_over(number, state, ended):
                        _log_change(job, slurm_job, state, shown, number)
                        continue
                    results[number] = _collect(job, slurm_job, outcome, state)
                    del left[number]
                    progress.update()
                running = sum(state.runs for number, state in states.items() if number in left)
                progress.update(0, f"{running} running, {len(left) - running} waiting")
                if once and not ended.keys() & left.keys():
                    break
                if left:
                    time.sleep(min(_LONGEST_PAUSE, 1 + (time.monotonic() - start) / 20))
    except KeyboardInterrupt:
        log(
            f"{_trainings(len(left))} left in Slurm: the same command follows the jobs again, and scancel {_ids(left)} "
            "ends them"
        )
        raise
    return results, left


def _states(left: Mapping[int, SlurmJob], log: Callable[[str], None]) -> dict[int, JobState]:
    """Return the states of Slurm jobs by the numbers of their trainings; none while Slurm does not answer."""
    try:
        states = job_states([job.id for job in left.values()])
    except CzslkitError as error:
        log(f"{error}; asking again")
        return {}
    return {number: states[job.id] for number, job in left.items()}


def _is_over(number: int, state: JobState, ended: dict[int, float]) -> bool:
    """Return whether a job without results has been over for long enough; ``ended`` keeps since when."""
    if state.is_active:
        ended.pop(number, None)
        return False
    since = ended.setdefault(number, time.monotonic())
    return time.monotonic() - since >= (_LONG_GRACE if state.name in ("", "COMPLETED") else _GRACE)


def _log_change(job: Job, slurm_job: SlurmJob, state: JobState, shown: dict[int, str], number: int) -> None:
    """Log that a job runs, waits for an unusual reason, or waits once more; ``shown`` keeps what was logged last."""
    if state.runs:
        text = f"Slurm job {slurm_job.id} runs on {state.node}"
    elif shown.get(number, "").startswith("requeued") or "runs" in shown.get(number, ""):
        text = f"requeued by Slurm as job {slurm_job.id}"
    else:
        text = f"Slurm job {slurm_job.id} waits: {state.reason}" if state.reason else ""
    if text and text != shown.get(number):
        shown[number] = text
        job.log(text)


def _collect(job: Job, slurm_job: SlurmJob, outcome: list[Result] | str | None, state: JobState) -> list[Result]:
    """Return the results of a Slurm job that is over; failures that it could not store itself are stored."""
    slurm_job.mark_collected()
    if isinstance(outcome, list):
        return outcome
    error = slurm_job.failure(state, outcome or "")
    try:
        with file_lock(job.store.folder(job.spec.cell("closed")) / ".lock", job.log, wait=False):
            usable = usable_results(job).usable
            missing = [world for world in job.spec.worlds if world not in usable]
            job.log(f"failed: {error}")
            results = {**usable, **store_results(job, {world: failure(error) for world in missing})}
            return [results[world] for world in job.spec.worlds]
    except CzslkitError:  # the lock of a lost node, or a dataset that is gone
        return list(failed_results(job, error))
