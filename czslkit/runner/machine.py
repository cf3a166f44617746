"""The device, the memory and the caches that a benchmark uses."""

from __future__ import annotations

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

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # file with the bytes that a container may use, or "max"


@dataclass(frozen=True)
class Machine:
    """The device and the resources of a benchmark; they change no number, except by rounding."""

    device: str = "auto"  # auto, or a device name of torch: cpu, cuda, cuda:1, mps
    workers: int = 0  # processes that read images
    memory: int = MEMORY  # bytes that an evaluation may take, without the weights of the method
    progress: bool = True  # show progress; see czslkit.terminal.Progress
    cache: Cache | None = None  # features and decoded images on disk; None without a cache
    processes: int = 1  # trainings that run at the same time and share the processors

    def torch_device(self) -> torch.device:
        """Return the torch device; ``auto`` is CUDA or else MPS if it is available, and the CPU otherwise.

        Raises:
            ConfigError: torch does not know the device, or the device is not available.
        """
        name = _automatic() if self.device == "auto" else self.device
        try:
            return torch.zeros((), device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigError([f"device {name!r} cannot be used: {reason}"]) from None

    def feed(self, method: Method, split: Split, batch_size: int, **augmentation: Any) -> Feed:
        """Return batches of a split, read with this machine's processes and caches."""
        return Feed(
            method,
            split,
            batch_size,
            workers=self.workers,
            cache=self.cache,
            progress=self.progress,
            **augmentation,
        )


def total_memory(device: torch.device) -> int | None:
    """Return the bytes of memory of a device, None if they are not known.

    The memory of a CPU is that of the machine, or the limit of the container if it is lower.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a system with POSIX names
        return None
    try:
        return min(found, int(CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or no limit
        return found


def _automatic() -> str:
    """Return the device that ``auto`` stands for."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
