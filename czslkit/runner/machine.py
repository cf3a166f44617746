"""TODO."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..data.cache import Cache
from ..errors import ConfigError
from ..sizes import MEMORY


@dataclass(frozen=True)
class Machine:
    """Where and how visibly things run; no number depends on it, rounding aside."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    workers: int = 0  # processes that read images
    progress: bool = True
    cache: Cache | None = None  # what was decoded and encoded before
    memory: int = MEMORY  # bytes that an evaluation may take, the method's own weights aside

    def torch_device(self) -> torch.device:
        """The device, found if it is ``auto``.

        Raises:
            ConfigError: torch knows no such device, or has none here.
        """
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return torch.zeros((), device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ConfigError([f"device {name!r} cannot be used: {reason}"]) from None
