"""What a Slurm job runs: one training of a benchmark, if the job sees the same folders as its submitter."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import distributed
from ..data.dataset_folders import ensure_folder
from ..errors import CzslkitError
from ..result_store import Result, differences, relative_path
from ..terminal import log_to_stderr
from ..torchrun import process_rank
from .job import Job
from .request import Request
from .run_jobs import run_jobs

TOKEN_FILE = "token"  # file of an array of jobs, which only its submitter can have written


@dataclass(frozen=True)
class Training:
    """A training that submitit sends to a job, with what its submitter sees of the folders.

    Attributes:
        request: the benchmark, with absolute paths.
        names: folders of its cells below the folder of results; several with other evaluation settings.
        folder: the folder of the array of jobs, below the folder of results.
        token: content of the token file in it.
        home: the folder in which the benchmark was started.
        digests: of the files of the dataset.
        distributed: the tasks of the job share the training.
    """

    request: Request
    names: tuple[str, ...]
    folder: Path
    token: str
    home: Path
    digests: Mapping[str, str]
    distributed: bool

    def __call__(self) -> list[Result] | str:
        """Return the results of the training, or why it could not be run."""
        os.register_at_fork(after_in_child=_leave_signals_to_parent)
        if cores := os.environ.get("SLURM_CPUS_PER_TASK"):
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cores))
        if self.distributed:
            from submitit.helpers import TorchDistributedEnvironment

            TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
            distributed.connect()
        try:
            self.check_folders()
            with distributed.together(), distributed.agreed():
                jobs = self._jobs()
        except CzslkitError as error:
            log_to_stderr(f"{error}")
            return str(error)
        return list(run_jobs(jobs))

    def checkpoint(self) -> Any:
        """Return what submitit runs after a time limit or a preemption: the training goes on after its last epoch."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def check_folders(self) -> None:
        """Compare what this node sees of the folders of the benchmark with what the submitter sees.

        Nothing is written, apart from files of a dataset that can be made, as ``demo`` can.

        Raises:
            CzslkitError: a folder is missing or another one.
        """
        host, store = socket.gethostname(), self.request.store
        try:
            token = (self.folder / TOKEN_FILE).read_text(encoding="utf-8")
        except OSError as error:
            token = f"{error.strerror}"
        if token != self.token:
            raise CzslkitError(
                f"{host} does not see the folder of results {store.root} of the submitter ({TOKEN_FILE}: {token!r}, "
                f"expected {self.token!r}): put --runs on a file system that all nodes share"
            )
        if not os.access(store.root, os.W_OK):
            raise CzslkitError(f"{host} cannot write to the folder of results {store.root}")
        try:
            os.chdir(self.home)
        except OSError as error:
            raise CzslkitError(
                f"{host} cannot use the folder {self.home}, in which the command was run ({error.strerror}): run it in "
                "a folder that all nodes share"
            ) from error
        data = Path(self.request.data or "")
        if not data.is_dir():
            raise CzslkitError(
                f"{host} has no folder of datasets {data}: put --data (or $CZSLKIT_DATA) on a file system that all "
                "nodes share, or copy the datasets to the same path on every node"
            )

    def _jobs(self) -> list[Job]:
        """Return the cells of the training, planned anew here.

        Raises:
            CzslkitError: the plan does not have them any more, or the dataset is another one here.
        """
        planned = {cell_folder(job): job for job in self.request.jobs(_drop if process_rank() else log_to_stderr)}
        if missing := [name for name in self.names if name not in planned]:
            raise CzslkitError(
                f"the benchmark has no training {', '.join(missing)} any more: its recipe or its code has changed "
                "since it was submitted. Run the same command again"
            )
        jobs = [planned[name] for name in self.names]
        dataset = jobs[0].spec.dataset
        if changes := differences(self.digests, jobs[0].source.digests(dataset)):
            raise CzslkitError(
                f"{socket.gethostname()} has other files of {dataset} than the submitter in "
                f"{ensure_folder(dataset, self.request.data)}: {changes}. All nodes must have the same data"
            )
        return jobs


def cell_folder(job: Job) -> str:
    """Return the folder of a cell below the folder of results, such as ``demo/csp/seed0-3f``."""
    return Path(relative_path(job.spec.cell("closed"))).parent.as_posix()


def _drop(line: str) -> None:
    """Drop a line of the log, which the first process of a training writes."""


def _leave_signals_to_parent() -> None:
    """Let a forked process, such as one that reads images, neither requeue the job nor outlive SIGTERM.

    Slurm signals all processes of a job, and forked ones have inherited the handlers of submitit.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
