"""The training loop: the same for every method."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from .data.datasets import Splits
from .errors import TrainingError
from .evaluation.evaluator import EvalOptions, sweeps
from .feed import Feed
from .method import Method
from .options import option
from .types import Batch

T = TypeVar("T")


@dataclass(frozen=True)
class TrainOptions:
    """How a method is trained."""

    epochs: int = option(20, "passes over the training images", minimum=0)
    batch_size: int = option(64, "images a batch", minimum=2)
    accumulation: int = option(1, "batches a step", minimum=1)
    optimizer: Literal["adam", "adamw", "sgd"] = option("adam", "adam adds weight decay to the gradient")
    lr: float = option(1e-4, "learning rate", minimum=0)
    weight_decay: float = option(1e-5, "weight decay", minimum=0)
    schedule: Literal["step", "cosine", "constant"] = option("step", "of the learning rate, once an epoch")
    step_size: int = option(5, "epochs between steps of the schedule", minimum=1)
    gamma: float = option(0.5, "factor of each step", minimum=0)
    augment: bool = option(True, "flip, perspective and rotation at random")
    precision: Literal["fp32", "bf16"] = option("fp32", "of the forward pass; weights stay fp32")


@dataclass(frozen=True)
class Training:
    """What a training left behind; the method itself holds the best epoch's weights."""

    epochs: int
    best_epoch: int | None  # counted from 1; None if nothing was trained
    trainable_parameters: int
    history: tuple[dict[str, float], ...] = field(repr=False)  # of each epoch: loss, lr, val_auc
    seconds: float = field(default=0.0, compare=False)  # over all sessions that it took


def train(
    method: Method,
    data: Splits,
    options: TrainOptions,
    evaluation: EvalOptions,
    *,
    seed: int,
    folder: Path,
    key: str,
    workers: int = 0,
    progress: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Training:
    """Train a method and leave it with the weights of its best epoch, by validation AUC in the closed world.

    Every epoch ends with its state on disk, and random numbers are drawn anew for each epoch
    from the seed, so a training that was killed goes on where it was, to the same end.

    Args:
        method: on the device to train on; changed in place.
        folder: gets ``last.safetensors``, the state to resume from, and ``best.safetensors`` at the end.
        key: names what is being trained; a state with another key is not resumed from.
        say: called with a line for every epoch.

    Raises:
        TrainingError: the loss is no longer finite; names epoch and step.
    """
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    validation = Feed(method, data.val, options.batch_size, workers=workers)
    if not method.trains or not options.epochs:
        return Training(0, None, count, ())
    feed = Feed(method, data.train, options.batch_size, augment=options.augment, seed=seed, workers=workers)
    pairs = data.train.pairs.to(method.device)
    optimizer, schedule = _optimizer(method, options)
    state = State(folder, key)
    history, best, seconds = state.restore(method, optimizer)
    start = time.monotonic() - seconds
    if history:
        say(f"resumed after epoch {len(history)}")
    for epoch in range(len(history), options.epochs):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * schedule(epoch)
        torch.manual_seed(_derive(seed, epoch))
        method.train()
        loss = _epoch(method, feed, pairs, optimizer, options, epoch, progress)
        metrics = sweeps(method, data, "val", ["closed"], validation)["closed"].compute_all(evaluation.bins)[0]
        if metrics.auc > max((row["val_auc"] for row in history), default=-math.inf):
            best = {name: value.clone() for name, value in learned(method).items()}
        history.append({"loss": loss, "lr": options.lr * schedule(epoch), "val_auc": metrics.auc})
        state.save(method, optimizer, history, best, time.monotonic() - start)
        say(
            f"epoch {epoch + 1}/{options.epochs}: loss {loss:.3f}, validation AUC {100 * metrics.auc:.1f}, "
            f"{time.monotonic() - start:.0f} s"
        )
    _load(method, best)
    _write(best, folder / "best.safetensors", {"key": key})
    aucs = [row["val_auc"] for row in history]
    return Training(len(history), 1 + aucs.index(max(aucs)), count, tuple(history), time.monotonic() - start)


class State:
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
        tensors = {f"method.{name}": value for name, value in learned(method).items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in values.items()}
        _write(tensors, self._file, {"key": self.key, "history": json.dumps(history), "seconds": str(seconds)})

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
        _load(method, parts["method"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            i, _, moment = name.partition(".")
            moments.setdefault(int(i), {})[moment] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return json.loads(metadata["history"]), parts["best"], float(metadata["seconds"])


def learned(method: Method) -> dict[str, Tensor]:
    """Everything that training changes: trained parameters, and buffers such as running means."""
    frozen = {name for name, p in method.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in method.state_dict().items() if name not in frozen}


def _epoch(
    method: Method,
    feed: Feed,
    pairs: Tensor,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    epoch: int,
    progress: bool,
) -> float:
    """One pass over the training images; the mean loss of an image."""
    device = pairs.device
    order = torch.randperm(len(feed.split))
    total, images = 0.0, 0
    bar = tqdm(
        total=len(feed), desc=f"epoch {epoch + 1}/{options.epochs}", leave=False, disable=None if progress else True
    )
    with bar:
        groups = _groups(_whole(feed.batches(order, epoch)), options.accumulation)
        for step, group in enumerate(groups, 1):
            size = sum(len(batch.attr) for batch in group)
            for batch in group:
                with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                    loss = method.loss(batch, pairs)
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the loss is {value} at epoch {epoch + 1}, "
                        f"step {step} of {-(-len(feed) // options.accumulation)}; "
                        f"the learning rate was {optimizer.param_groups[0]['lr']:g}"
                    )
                (loss * (len(batch.attr) / size)).backward()
                total, images = total + value * len(batch.attr), images + len(batch.attr)
                bar.update()
                bar.set_postfix(loss=f"{total / images:.3f}")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    if not images:
        raise TrainingError(f"{len(feed.split)} training images make no batch of two")
    return total / images


def _whole(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Leave out a last batch of a single image, which batch normalisation cannot use."""
    return (batch for batch in batches if len(batch.attr) > 1)


def _groups(batches: Iterator[T], size: int) -> Iterator[list[T]]:
    for first in batches:
        rest = (batch for _, batch in zip(range(size - 1), batches, strict=False))
        yield list(chain([first], rest))


def _optimizer(method: Method, options: TrainOptions) -> tuple[torch.optim.Optimizer, Any]:
    """The optimiser, and the factor of its learning rate by epoch."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    kinds: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": lambda p, **kw: torch.optim.SGD(p, momentum=0.9, **kw),
    }
    factors = {
        "step": lambda epoch: options.gamma ** (epoch // options.step_size),
        "cosine": lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / options.epochs)),
        "constant": lambda epoch: 1.0,
    }
    optimizer = kinds[options.optimizer](parameters, lr=options.lr, weight_decay=options.weight_decay)
    return optimizer, factors[options.schedule]


def _derive(seed: int, epoch: int) -> int:
    """A seed for an epoch, unrelated to those of neighbouring seeds."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:8], "big") >> 1


def _load(method: Method, values: Mapping[str, Tensor]) -> None:
    method.load_state_dict({**method.state_dict(), **values})


def _write(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """One file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        kept = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
        }
        save_file(kept, unfinished, metadata)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
