"""The device, the memory and the caches that a benchmark uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..data.batches import Feed
from ..data.cache import Cache
from ..data.splits import Split
from ..errors import ConfigError
from ..method import Method
from ..sizes import MEMORY


@dataclass(frozen=True)
class Machine:
    """The device and the resources of a benchmark; they change no number, except by rounding."""

    device: str = "auto"  # auto, or a device name of torch: cpu, cuda, cuda:1, mps
    workers: int = 0  # processes that read images
    memory: int = MEMORY  # bytes that an evaluation may take, without the weights of the method
    progress: bool = True  # show progress; see czslkit.terminal.Progress
    cache: Cache | None = None  # features and decoded images on disk; None without a cache

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


def _automatic() -> str:
    """Return the device that ``auto`` stands for."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
