"""Several trainings at a time on one machine, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.trained import is_intact
from ..device_memory import SHARING
from ..errors import ConfigError, CzslkitError, LockedError, ProcessError
from ..files import file_lock
from ..training_files import LOG_FILE
from . import child
from .job import Job
from .machine import available_cores
from .process_lines import ProcessLines
from .record import failure
from .request import Request
from .run_job import store_results, usable_results
from .run_jobs import Outcome, run_jobs, run_or_failures
from .train import training_folder

_END_SECONDS = 5.0  # time for a process to end by itself after it was asked to
_LAST_LINES, _LAST_BYTES = 8, 4000  # of a log, in the error of a training whose process died
_GUARD = """\
bench(jobs=...) starts processes that import your script, and your script calls bench when it is imported. Put the call
under
    if __name__ == "__main__":
or leave out jobs"""
_SPAWN = multiprocessing.get_context("spawn")


def trainings_at_a_time(jobs: int | str, device: str) -> int:
    """Return the number of trainings to run at a time: ``jobs``, or one for each GPU if it is ``auto``, at least 1.

    Raises:
        ConfigError: ``jobs`` is neither ``auto`` nor a whole number above 0.
    """
    if jobs == "auto":
        return max(1, len(visible_gpus(device)))
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ConfigError([f"jobs is {jobs!r}, expected a whole number above 0, or auto for one per GPU"])
    return jobs


def visible_gpus(device: str) -> list[str]:
    """Return the values of ``CUDA_VISIBLE_DEVICES`` that show one GPU each; none if the device is a certain one."""
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ([name.strip() for name in names.split(",")] if names else [str(n) for n in range(count)])[:count]


def threads_of_each(processes: int) -> int:
    """Return the threads of each of several trainings: the cores that this process may use, divided by their number.

    ``OMP_NUM_THREADS`` replaces this number, and ``torch.set_num_threads`` is an upper bound.
    """
    own = torch.get_num_threads()
    if os.environ.get("OMP_NUM_THREADS"):
        return own
    return min(own, max(1, available_cores() // processes))


def planned_here(request: Request, log: Callable[[str], None], *, elsewhere: bool = False) -> list[Job]:
    """Return the jobs of a request as this process needs them; the GPUs are left to the processes of the jobs.

    Args:
        elsewhere: the jobs run on other machines, which may have a GPU where this one has none.
    """
    elsewhere |= request.processes > 1 and not request.estimate and bool(visible_gpus(request.device))
    return (replace(request, device="cpu") if elsewhere else request).jobs(log)


def run_several(request: Request, jobs: Sequence[Job], log: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run the jobs of a request, some at a time, as :func:`czslkit.runner.run_jobs.run_jobs` does one by one."""
    if request.processes == 1:
        return run_jobs(jobs)
    with JobProcesses(request, jobs, min(request.processes, len(jobs)), log) as processes:
        return run_jobs(jobs, processes.attempt)


class JobProcesses:
    """Processes that run the jobs of a request, some at a time, within a ``with`` block.

    All processes end with the block, and with this process, however it ends.

    Args:
        request: what the jobs were planned from.
        jobs: the jobs of the request, as they are in this process.
        count: largest number of processes at a time; each gets one of the GPUs if there are some.
        log: called with a line for every step.
    """

    def __init__(self, request: Request, jobs: Sequence[Job], count: int, log: Callable[[str], None]) -> None:
        self._request, self._jobs = pickle.dumps(request), jobs
        self._gpus, self._threads = visible_gpus(request.device), threads_of_each(count)
        self._pool = ThreadPoolExecutor(count, "training", initializer=_block_interrupts)
        self._count, self._slots = count, [*range(count)]
        self._lines = ProcessLines(len(jobs), count, log, show=request.progress)
        self._lock, self._stopped = threading.Lock(), False
        self._running: dict[Any, Connection] = {}

    def __enter__(self) -> JobProcesses:
        resource_tracker.ensure_running()  # here, since it changes which signals the calling thread receives
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            if kind:
                self._stop()
        finally:
            self._lines.close()
            self._pool.shutdown(cancel_futures=True)

    def attempt(self, numbers: Sequence[int]) -> Iterator[Outcome]:
        """Return the outcome of each of some jobs. A job that is done before is read in this process."""
        found = {number: outcome for number in numbers if (outcome := self._without_process(number)) is not None}
        if len(found) < len(numbers):
            self._lines.begin(len(self._jobs) - len(numbers) + sum(isinstance(one, list) for one in found.values()))
        same: dict[str, list[int]] = {}  # cells of the same training: the first one trains, and the others use it
        for number in numbers:
            if number not in found:
                spec = self._jobs[number].spec
                same.setdefault(repr((spec.dataset, spec.method, spec.seed, spec.training_config)), []).append(number)
        for outcomes in self._pool.map(self._run_same, same.values()):
            found |= outcomes
        return (found[number] for number in numbers)

    def _without_process(self, number: int) -> Outcome | None:
        """Return the outcome of a job that needs no training: it is done, locked, or its data cannot be read."""
        job = self._jobs[number]
        try:
            with file_lock(_lock_file(job), job.log, wait=False):
                needed = not _is_done(job)
            outcome = None if needed else run_or_failures(job)
        except LockedError as error:
            return error
        except CzslkitError:  # the folder cannot be locked
            outcome = run_or_failures(job)
        return outcome

    def _run_same(self, numbers: Sequence[int]) -> dict[int, Outcome]:
        """Run jobs of the same training one after the other; if one is locked, the others are put off with it."""
        found: dict[int, Outcome] = {}
        for number in numbers:
            try:
                found[number] = self._run(number)
            except LockedError as error:
                return {**found, **{other: error for other in numbers if other not in found}}
        return found

    def _run(self, number: int) -> list[dict[str, Any]]:
        """Run a job in a process and return its results; a process that dies gives failed results.

        Raises:
            LockedError: another process runs the job.
            CzslkitError: no process of this script can start.
        """
        job = self._jobs[number]
        log_file = job.store.folder(job.spec.cell("closed")) / LOG_FILE
        slot = self._slots.pop()
        try:
            process, connection = self._start(number, slot, log_file)
        except OSError as error:  # no memory or no process number is left
            self._slots.append(slot)
            return self._fail(job, ProcessError(f"the process of this training cannot be started: {error}"))
        try:
            last, content = self._follow(connection, number, slot)
            process.join()
        finally:
            self._lines.leave(slot)
            self._slots.append(slot)
        with self._lock:
            del self._running[process]
            connection.close()
            if self._stopped:
                raise CancelledError
        if last == "locked":
            raise LockedError(_lock_file(job), content)
        if last is None and process.exitcode > 0:
            raise _no_start(process.exitcode)
        if last != "results":
            content = self._fail(job, ProcessError(f"{_end_in_words(process.exitcode)}{_last_lines(log_file)}"))
        self._lines.count()
        return content

    def _start(self, number: int, slot: int, log_file: Path) -> tuple[Any, Connection]:
        """Start the process of a job; return it and the connection to it."""
        sharing = -(-self._count // max(len(self._gpus), 1))
        variables = {"OMP_NUM_THREADS": str(self._threads), SHARING: str(sharing)}
        if self._gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        with self._lock:
            if self._stopped:
                raise CancelledError
            here, there = _SPAWN.Pipe()
            process = _SPAWN.Process(target=child.run, args=(self._request, number, there, log_file))
            with there, _environment(variables):  # before the process imports the script, which may use the GPU
                process.start()
            self._running[process] = here
        return process, here

    def _follow(self, connection: Connection, number: int, slot: int) -> tuple[str | None, Any]:
        """Show what a process sends until it ends; return its last message that is neither a line nor progress."""
        last: tuple[str | None, Any] = (None, None)
        while True:
            try:
                kind, content = connection.recv()
            except (EOFError, OSError):  # OSError: it died while it sent a message
                return last
            if kind == "line":
                self._lines.line(content, slot)
            elif kind == "progress":
                self._lines.progress(self._jobs[number].name, *content, slot=slot)
            else:
                last = kind, content

    def _fail(self, job: Job, error: ProcessError) -> list[dict[str, Any]]:
        """Store an error for the worlds of a job that have no usable result, and return the results of all worlds."""
        job = replace(job, log=lambda line: self._lines.line(f"{job.name}: {line}", None))
        job.log(f"failed: {error}")
        with file_lock(_lock_file(job), job.log, wait=False):
            results = _usable(job)
            missing = [world for world in job.spec.worlds if world not in results]
            results |= store_results(job, {world: failure(error) for world in missing})
        return [results[world] for world in job.spec.worlds]

    def _stop(self) -> None:
        """Ask all processes to end, and kill those that do not."""
        with self._lock:
            self._stopped = True
            for connection in self._running.values():
                with suppress(OSError):
                    connection.send(None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        ended = threading.Thread(target=self._pool.shutdown, daemon=True)
        ended.start()
        ended.join(_END_SECONDS)
        with self._lock:
            for process in self._running:
                process.kill()


def exit_if_imported_as_script() -> None:
    """End this process if it only imports a script that calls ``bench`` without the usual guard."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(child.UNGUARDED)


def _no_start(code: int) -> CzslkitError:
    """Return the error of a process that ended with an exit status before czslkit ran in it."""
    if code == child.UNGUARDED:
        return ConfigError([_GUARD])
    return ProcessError(
        f"the process of a training ended with exit status {code} before it began; its error is above. It imports the "
        "script that calls bench(jobs=...), which must be a file: with jobs=1, no process is started"
    )


def _is_done(job: Job) -> bool:
    """Return whether a job needs no training: its results and its trained method are there, or its data are not."""
    try:
        usable = usable_results(replace(job, log=_silent)).usable
    except CzslkitError:
        return True
    return set(usable) >= set(job.spec.worlds) and (job.spec.checkpoint is not None or is_intact(training_folder(job)))


def _usable(job: Job) -> dict[str, Any]:
    """Return the usable results of a job by world; none if that cannot be found out."""
    with suppress(CzslkitError, OSError):
        return dict(usable_results(replace(job, log=_silent)).usable)
    return {}


def _lock_file(job: Job) -> Path:
    return job.store.folder(job.spec.cell("closed")) / ".lock"


def _silent(line: str) -> None:
    """Log nothing."""


def _end_in_words(code: int) -> str:
    """Return how a process ended.

    >>> _end_in_words(3), _end_in_words(-11)
    ('the process of this training ended with exit status 3', 'the process of this training was ended by SIGSEGV')
    """
    if code >= 0:
        return f"the process of this training ended with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"the process of this training was ended by {name}{memory}"


def _last_lines(log_file: Path) -> str:
    """Return the path and the last lines of a log, as the end of a message."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - _LAST_BYTES))
            text = file.read().decode(errors="backslashreplace")
    except OSError as error:
        return f"; its log {log_file} cannot be read: {error.strerror}"
    lines = [line for line in text.splitlines() if line.strip()][-_LAST_LINES:]
    return f"; {log_file} ends with" + "".join(f"\n  {line}" for line in lines) if lines else f"; {log_file} is empty"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment within the ``with`` block, for a process that starts in it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _block_interrupts() -> None:
    """Let no process that this thread starts receive an interruption from the keyboard: their parent ends them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
