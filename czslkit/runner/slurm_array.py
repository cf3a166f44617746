"""Arrays of Slurm jobs on disk: a folder of submitit for each, below ``slurm`` in the folder of results."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, pickle_load
from submitit.helpers import clean_env

from ..errors import ConfigError, CzslkitError
from ..files import write_text
from ..foreign_files import parse_json, read_regular
from ..result_store import Result, relative_path
from .slurm_job import TOKEN_FILE, Training
from .slurm_parameters import Parameters
from .slurm_queue import JobState

_RECORD = "cells.json"  # file of an array with the cells of its jobs
_MOST_BYTES = 8 << 20  # of the record
_TAIL_BYTES = 4096  # of a log, which have its last line


@dataclass
class SlurmJob:
    """A cell of a benchmark in the queue of Slurm. The cells of one training are in one job.

    Attributes:
        folder: of the array.
        number: of the cell in the array, from 0.
        id: of its job in Slurm, such as ``12_3``.
        name: folder of the cell below the folder of results, such as ``demo/csp/seed0-3f``.
        worlds: worlds that it evaluates in.
        tasks: processes of the job.
    """

    folder: Path
    number: int
    id: str
    name: str
    worlds: tuple[str, ...]
    tasks: int
    _bytes_read: int = field(default=0, repr=False)  # of the log

    @property
    def log_file(self) -> Path:
        """The file with the output of its first process."""
        paths = submitit.SlurmJob(self.folder, self.id).paths
        return paths.stderr if paths.stderr.is_file() else paths.stdout

    @property
    def is_collected(self) -> bool:
        """True if a command has taken up its outcome."""
        return self._mark.exists()

    def mark_collected(self) -> None:
        """Record that its outcome has been taken up."""
        self._mark.touch()

    @property
    def _mark(self) -> Path:
        return self.folder / f"{self.number}.collected"

    def outcome(self) -> list[Result] | str | None:
        """Return the results of the cell, or why there are none; None if its job has left neither so far."""
        results: list[Result] | None = None
        for task in range(self.tasks):
            file = submitit.SlurmJob(self.folder, self.id, (task,)).paths.result_pickle
            if file.exists():
                kind, found = pickle_load(file)
                if kind != "success" or isinstance(found, str):
                    return _last_line(str(found))
                if task == 0:
                    start = f"{self.name}/"
                    results = [result for result in found if relative_path(result["cell"]).startswith(start)]
        return results

    def skip_log(self) -> None:
        """Let :meth:`new_lines` leave out what is in the log now."""
        if self.log_file.exists():
            self._bytes_read = self.log_file.stat().st_size

    def new_lines(self, start: str) -> list[str]:
        """Return the lines of the log with a certain start that were written since the last call."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(self._bytes_read)
                text = file.read()
        except OSError:  # it has not started
            return []
        text = text[: text.rfind(b"\n") + 1]
        self._bytes_read += len(text)
        return [line for line in text.decode(errors="replace").splitlines() if line.startswith(start)]

    def failure(self, state: JobState, reason: str = "") -> CzslkitError:
        """Return the error of a job that left no results.

        Args:
            state: of the job in Slurm.
            reason: what the job itself said; empty if it said nothing.
        """
        log = self.log_file
        if reason:
            return CzslkitError(f"{reason} (Slurm job {self.id}; its log: {log})")
        if not log.exists():
            runs = self.folder.parents[1]
            remedy = f"Does the node see {runs}? The folder of results must be on a file system that all nodes share"
            hint = "" if state.name == "CANCELLED" else f". {remedy}"
            return CzslkitError(f"Slurm job {self.id} {state}, and has not written its log {log}{hint}")
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            line = _last_line(file.read().decode(errors="replace"))
        return CzslkitError(f"Slurm job {self.id} {state}. Its log {log} ends with: {line}")


def submit(trainings: Sequence[tuple[Training, Sequence[Sequence[str]]]], parameters: Parameters) -> list[SlurmJob]:
    """Submit trainings as one array and return its jobs.

    What is on disk before Slurm has the array lets :func:`known_jobs` find it, wherever this process is killed.

    Args:
        trainings: trainings, and the worlds of each of their cells.
        parameters: of the jobs.

    Raises:
        ConfigError: Slurm does not take the array; nothing is submitted.
    """
    folder = trainings[0][0].folder
    record = [
        {"job": number, "name": name, "worlds": [*worlds]}
        for number, (training, of_cells) in enumerate(trainings)
        for name, worlds in zip(training.names, of_cells, strict=True)
    ]
    write_text(folder / TOKEN_FILE, trainings[0][0].token)
    write_text(folder / _RECORD, json.dumps({"tasks": parameters.tasks, "cells": record}))
    executor = submitit.AutoExecutor(folder, cluster="slurm", **parameters.executor)
    executor.update_parameters(**parameters.jobs)
    try:
        with _outside_of_jobs():
            executor.submit_array([training for training, _ in trainings])
    except FailedJobError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError([f"slurm: sbatch refuses the jobs: {str(error).strip()}"]) from None
    return jobs_of(folder)


def new_array(root: Path) -> tuple[Path, str]:
    """Return the folder of a new array, which is not made yet, and the content of its token file."""
    token = secrets.token_hex(4)
    return root / f"{time.strftime('%Y%m%d-%H%M%S')}-{token}", token


def jobs_of(folder: Path) -> list[SlurmJob]:
    """Return the jobs of an array; none if Slurm did not get it.

    Raises:
        CzslkitError: the record of its cells was changed.
    """
    scripts = sorted(folder.glob("*_submission.sh"))  # submitit names it by the id that Slurm gave
    if not scripts:
        return []
    try:
        record: Mapping[str, Any] = parse_json(read_regular(folder / _RECORD, _MOST_BYTES))
        entries = [(int(e["job"]), str(e["name"]), tuple(map(str, e["worlds"]))) for e in record["cells"]]
        tasks = int(record["tasks"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CzslkitError(
            f"{folder / _RECORD} cannot be read: {error!r}. If none of its jobs is in the queue, remove {folder}"
        ) from error
    number = scripts[0].name.partition("_")[0]
    is_array = any(job for job, _, _ in entries)
    return [
        SlurmJob(folder, i, f"{number}_{job}" if is_array else number, name, worlds, tasks)
        for i, (job, name, worlds) in enumerate(entries)
    ]


def known_jobs(root: Path) -> Iterator[SlurmJob]:
    """Yield all jobs whose outcome was not taken up, those of the last array first."""
    for folder in sorted(root.glob("*-*-*"), reverse=True):
        yield from (job for job in jobs_of(folder) if not job.is_collected)


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of a Slurm job that this process runs in, which sbatch would hand on."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    configuration = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env():
        os.environ.update(configuration)
        yield


def _last_line(text: str) -> str:
    """Return the last line of a text that is not empty.

    >>> _last_line("Traceback\\nKeyError: 3\\n\\n")
    'KeyError: 3'
    """
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
