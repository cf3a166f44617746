"""The device, the memory and the caches that a benchmark uses."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.batches import Feed
from ..data.cache import Cache
from ..data.splits import Split
from ..errors import ConfigError
from ..method import Method
from ..sizes import MEMORY
from ..torchrun import local_count, local_rank, process_count
from ..training.options import TrainOptions

MOST_WORKERS = 8  # of one job, if their number is automatic
CONTAINER_CORES = Path("/sys/fs/cgroup/cpu.max")  # file with the microseconds of cores in a period, or "max"


@dataclass(frozen=True)
class Machine:
    """The device and the resources of a benchmark; they change no number, except by rounding."""

    device: str = "auto"  # auto, or a device name of torch: cpu, cuda, cuda:1, mps
    workers: int = 0  # processes that read images for each job
    jobs: int = 1  # jobs that run at a time on the cores of this process
    memory: int = MEMORY  # bytes that an evaluation may take, without the weights of the method
    progress: bool = True  # show progress; see czslkit.terminal.Progress
    cache: Cache | None = None  # features and decoded images on disk; None without a cache

    def torch_device(self) -> torch.device:
        """Return the torch device; ``auto`` is CUDA or else MPS if it is available, and the CPU otherwise.

        Each of the processes that torchrun started on a node has a GPU of its own.

        Raises:
            ConfigError: torch does not know the device, or the device is not available.
        """
        name = _automatic() if self.device == "auto" else self.device
        if process_count() > 1:
            own = f"cuda:{local_rank()}"
            name = own if name == "cuda" else name
            if name not in ("cpu", own):
                raise ConfigError(
                    [f"device is {name!r}, expected cuda or cpu for processes of torchrun; with cuda, each has its GPU"]
                )
        try:
            return torch.zeros((), device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigError([f"device {name!r} cannot be used: {reason}"]) from None

    def automatic_workers(self) -> int:
        """Return the number of processes that read images for each job: one for each core but one, at most 8.

        Processes of torchrun on one node share the cores.

        On two cores or fewer it is 0, and where new processes import the program again, which not every program allows.
        """
        start = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
        cores = available_cores()
        return 0 if cores <= 2 or start != "fork" else min((cores - 1) // (self.jobs * local_count()), MOST_WORKERS)

    def training_feed(self, method: Method, split: Split, options: TrainOptions, seed: int = 0) -> Feed:
        """Return the batches of a training with these options and this seed."""
        return self.feed(
            method,
            split,
            options.batch_size,
            augment=options.augment,
            augment_on=options.augment_on,
            seed=seed,
            precision=options.precision,
        )

    def feed(self, method: Method, split: Split, batch_size: int, **options: Any) -> Feed:
        """Return batches of a split, read with this machine's processes and caches; see ``Feed`` for ``options``."""
        return Feed(
            method,
            split,
            batch_size,
            workers=self.workers,
            cache=self.cache,
            progress=self.progress,
            **options,
        )


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    It is bounded by the cores that the process is bound to, and by the processor time of the container.
    """
    bound = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    try:
        quota, period = CONTAINER_CORES.read_text().split()
        return max(min(len(bound), int(quota) // int(period)), 1)
    except (OSError, ValueError, ZeroDivisionError):  # no container, or no limit
        return len(bound)


def _automatic() -> str:
    """Return the device that ``auto`` stands for."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
