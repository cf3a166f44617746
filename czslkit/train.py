"""The training loop: the same for every method."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
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
) -> Training:
    """Train a method and leave it with the weights of its best epoch, by validation AUC in the closed world.

    Every epoch ends with its state on disk, and random numbers are drawn anew for each epoch
    from the seed, so a training that was killed goes on where it was, to the same end.

    Args:
        method: on the device to train on; changed in place.
        folder: holds ``best.safetensors`` and the state to resume from.
        key: names what is being trained; a state with another key is not resumed from.

    Raises:
        TrainingError: the loss is no longer finite; names epoch and batch.
    """
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    validation = Feed(method, data.val, options.batch_size, workers=workers)
    if not method.trains or not options.epochs:
        return Training(0, None, count, ())
    feed = Feed(method, data.train, options.batch_size, augment=options.augment, seed=seed, workers=workers)
    pairs = data.train.pairs.to(method.backbone.scale.device)
    optimizer, schedule = _optimizer(method, options)
    state = State(folder, key)
    history = state.restore(method, optimizer)
    best = max((row["val_auc"] for row in history), default=-math.inf)
    for epoch in range(len(history), options.epochs):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * schedule(epoch)
        torch.manual_seed(_derive(seed, epoch))
        method.train()
        loss = _epoch(method, feed, pairs, optimizer, options, epoch, progress)
        metrics = sweeps(method, data, "val", ["closed"], validation)["closed"].compute_all(evaluation.bins)[0]
        history.append({"loss": loss, "lr": options.lr * schedule(epoch), "val_auc": metrics.auc})
        if metrics.auc > best:
            best = metrics.auc
            state.save_best(method)
        state.save(method, optimizer, history)
    state.load_best(method)
    scores = [row["val_auc"] for row in history]
    return Training(len(history), 1 + scores.index(best), count, tuple(history))


class State:
    """The files of one training: weights of the best epoch, and all it takes to go on after the last one."""

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self._last, self._best = key, folder / "last.safetensors", folder / "best.safetensors"

    def save(self, method: Method, optimizer: torch.optim.Optimizer, history: list[dict[str, float]]) -> None:
        """Weights, optimiser and history after an epoch."""
        tensors = {f"method.{name}": value for name, value in learned(method).items()}
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in values.items()}
        _write(tensors, self._last, {"key": self.key, "history": json.dumps(history)})

    def restore(self, method: Method, optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
        """Bring method and optimiser back to the last epoch on disk; its history, empty if there is none."""
        if not self._last.exists():
            return []
        with safe_open(self._last, "pt") as file:
            metadata = file.metadata()
        if metadata["key"] != self.key:
            return []
        tensors = load_file(self._last)
        _load(method, {k.removeprefix("method."): v for k, v in tensors.items() if k.startswith("method.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, i, moment = name.split(".")
                moments.setdefault(int(i), {})[moment] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        history: list[dict[str, float]] = json.loads(metadata["history"])
        return history

    def save_best(self, method: Method) -> None:
        _write(learned(method), self._best, {"key": self.key})

    def load_best(self, method: Method) -> None:
        _load(method, load_file(self._best))


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
        for group in _groups(_whole(enumerate(feed.batches(order, epoch), 1)), options.accumulation):
            size = sum(len(batch.attr) for _, batch in group)
            for number, batch in group:
                with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                    loss = method.loss(batch, pairs)
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the loss is {value} at epoch {epoch + 1}, batch {number} of {len(feed)}; "
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


def _whole(batches: Iterable[tuple[int, Batch]]) -> Iterator[tuple[int, Batch]]:
    """Leave out a last batch of a single image, which batch normalisation cannot use."""
    return ((number, batch) for number, batch in batches if len(batch.attr) > 1)


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


def _load(method: Method, values: dict[str, Tensor]) -> None:
    method.load_state_dict({**method.state_dict(), **values})


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """One file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, unfinished, metadata)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
