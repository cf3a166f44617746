"""What a training keeps on disk: all it takes to go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..method import Method, learned_state, load_learned
from ..weights import _UMASK, write_tensors

os.umask(_UMASK)


class TrainingState:
    """All it takes to go on after the last epoch, in one file, written whole or not at all."""

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(".*.tmp"):  # of a process that was killed
            unfinished.unlink()
        self.key, self._file = key, folder / "last.safetensors"

    def save(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        history: list[dict[str, float]],
        best: Mapping[str, Tensor],
        seconds: float,
    ) -> None:
        """What an epoch ended with: weights, optimiser, history, the best epoch's weights and the time so far."""
        tensors = {f"method.{name}": value for name, value in learned_state(method).items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in values.items()}
        write_tensors(tensors, self._file, {"key": self.key, "history": json.dumps(history), "seconds": str(seconds)})

    def restore(
        self, method: Method, optimizer: torch.optim.Optimizer
    ) -> tuple[list[dict[str, float]], dict[str, Tensor], float]:
        """Bring method and optimiser back to the last epoch on disk.

        Returns:
            History, best epoch's weights and seconds so far; empty and zero if there is nothing to resume.
        """
        if not self._file.exists():
            return [], {}, 0.0
        with safe_open(self._file, "pt") as file:
            metadata = file.metadata()
        if metadata["key"] != self.key:
            return [], {}, 0.0
        parts: dict[str, dict[str, Tensor]] = {"method": {}, "best": {}, "optimizer": {}}
        for name, value in load_file(self._file).items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        load_learned(method, parts["method"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            i, _, moment = name.partition(".")
            moments.setdefault(int(i), {})[moment] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return json.loads(metadata["history"]), parts["best"], float(metadata["seconds"])
