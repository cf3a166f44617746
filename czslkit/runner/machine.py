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
    """Where a benchmark runs and what it may use; no number depends on it, rounding aside."""

    device: str = "auto"  # auto, or as torch names it: cpu, cuda, cuda:1, mps
    workers: int = 0  # processes that read images
    memory: int = MEMORY  # bytes that an evaluation may take, without the weights of the method
    progress: bool = True  # show bars on a terminal
    cache: Cache | None = None  # decoded images and features from earlier runs

    def torch_device(self) -> torch.device:
        """Return the device, chosen if it is ``auto``.

        Raises:
            ConfigError: torch knows no such device, or has none here.
        """
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return torch.zeros((), device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigError([f"device {name!r} cannot be used: {reason}"]) from None

    def feed(self, method: Method, split: Split, batch_size: int, **augmentation: Any) -> Feed:
        """Return batches of a split, read with this machine's processes and caches."""
        return Feed(method, split, batch_size, workers=self.workers, cache=self.cache, **augmentation)
