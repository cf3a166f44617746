"""The training loop: the same for every method."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ..data.batches import Feed
from ..data.cache import Cache
from ..data.splits import Splits
from ..errors import TrainingError
from ..evaluation.budget import fit_chunks
from ..evaluation.evaluator import EvalOptions, Task, sweeps
from ..method import Method, learned_state, load_learned
from ..options import option
from ..sizes import MEMORY
from ..types import Batch
from .optimizers import AdamWBert
from .state import TrainingState

T = TypeVar("T")


@dataclass(frozen=True)
class TrainOptions:
    """How a method is trained."""

    epochs: int = option(20, "passes over the training images", minimum=0)
    batch_size: int = option(64, "images a batch", minimum=2)
    accumulation: int = option(1, "batches a step", minimum=1)
    rescale_short_groups: bool = option(
        True, "each image of a step weighs the same; if false, a batch's mean loss is divided by accumulation"
    )
    optimizer: Literal["adam", "adamw", "adamw_bert", "sgd"] = option(
        "adam", "adam adds weight decay to the gradient; adamw_bert is AdamW as in BERT's first PyTorch port"
    )
    lr: float = option(1e-4, "learning rate", minimum=0)
    weight_decay: float = option(1e-5, "weight decay", minimum=0)
    schedule: Literal["step", "cosine", "constant"] = option("step", "of the learning rate, once an epoch")
    step_size: int = option(5, "epochs between steps of the schedule", minimum=1)
    gamma: float = option(0.5, "factor of each step", minimum=0)
    augment: bool = option(True, "flip, perspective and rotation at random")
    precision: Literal["fp32", "bf16"] = option("fp32", "of the forward pass; weights stay fp32")
    eval_mode_after_first_epoch: bool = option(
        False, "from the second epoch on no dropout, and batch normalisation with the statistics of the first"
    )
    select: Literal["auc", "loss", "last"] = option(
        "auc", "epoch to keep: highest validation AUC, lowest validation loss, or the last"
    )
    fused_validation_loss: bool = option(
        False, "the validation loss takes the fused scores that pairs are ranked by for their logits"
    )

    def __post_init__(self) -> None:
        if self.fused_validation_loss and self.select != "loss":
            raise ValueError(
                f"fused_validation_loss is true, but no validation loss is computed while select is {self.select!r}; "
                "set select to 'loss' or fused_validation_loss to false"
            )


@dataclass(frozen=True)
class Training:
    """What a training left behind; the method itself holds the best epoch's weights."""

    epochs: int
    best_epoch: int | None  # the one kept, counted from 1; None if nothing was trained
    trainable_parameters: int
    history: tuple[dict[str, float], ...] = field(repr=False)  # of each epoch: loss, lr, val_auc, val_loss if computed
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
    cache: Cache | None = None,
    memory: int = MEMORY,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> Training:
    """Train a method and leave it with the weights of its best epoch, as ``options.select`` has it.

    Every epoch ends with its state on disk, and random numbers are drawn anew for each epoch
    from the seed, so a training that was killed goes on where it was, to the same end.

    Args:
        method: on the device to train on; changed in place.
        folder: gets ``last.safetensors``, the state to resume from.
        key: names what is being trained; a state with another key is not resumed from.
        memory: bytes that scoring the validation split may take; training and a validation loss take what they take.
        log: called with a line for every epoch.

    Raises:
        ConfigError: ``memory`` is too little.
        TrainingError: a loss is no longer finite; names the epoch, and in training the step.
    """
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    validation = Feed(method, data.val, evaluation.batch_size or options.batch_size, workers=workers, cache=cache)
    if not method.trains or not options.epochs:
        return Training(0, None, count, ())
    fit_chunks(
        Task.of(method, data, "val", ["closed"]).costs(method, validation), memory
    )  # raises before the first epoch
    feed = Feed(
        method, data.train, options.batch_size, augment=options.augment, seed=seed, workers=workers, cache=cache
    )
    pairs = data.train.pairs.to(method.device)
    optimizer, schedule = _optimizer(method, options)
    state = TrainingState(folder, key)
    history, best, seconds = state.restore(method, optimizer)
    start = time.monotonic() - seconds
    if history:
        log(f"resumed after epoch {len(history)}")
    for epoch in range(len(history), options.epochs):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * schedule(epoch)
        torch.manual_seed(_derive(seed, epoch))
        method.train(epoch == 0 or not options.eval_mode_after_first_epoch)
        loss = _epoch(method, feed, pairs, optimizer, options, epoch, progress)
        validated = _validate(method, data, validation, options, evaluation, epoch, memory)
        history.append({"loss": loss, "lr": options.lr * schedule(epoch), **validated})
        if best_epoch(history, options.select) == len(history):
            best = {name: value.clone() for name, value in learned_state(method).items()}
        state.save(method, optimizer, history, best, time.monotonic() - start)
        log(f"epoch {epoch + 1}/{options.epochs}: {_told(history[-1])}, {time.monotonic() - start:.0f} s")
    load_learned(method, best)
    chosen = best_epoch(history, options.select)
    return Training(len(history), chosen, count, tuple(history), time.monotonic() - start)


def best_epoch(history: Sequence[Mapping[str, float]], select: Literal["auc", "loss", "last"]) -> int:
    """Which epoch to keep, counted from 1; the first of equals.

    >>> best_epoch([{"val_auc": 0.1}, {"val_auc": 0.2}, {"val_auc": 0.2}], "auc")
    2
    """
    if select == "last":
        return len(history)
    values = [row["val_auc"] if select == "auc" else -row["val_loss"] for row in history]
    return 1 + values.index(max(values))


@torch.no_grad()
def validation_loss(method: Method, feed: Feed, pairs: Tensor, *, fused: bool = False) -> float:
    """Loss of a split against the candidates ``pairs`` ``[P, 2]``, in evaluation mode.

    The mean of the batches' means, as in the authors' programs: the images of a short last batch weigh more.

    Args:
        method: left in evaluation mode; its head makes the loss.
        fused: take what the head ranks by for the pair logits, as Troika's and MSCI's programs do by writing in place.
    """
    method.eval()
    text, losses = method.text(pairs), []
    for batch in feed.batches():
        scores = method(batch.images, text)
        if fused:
            scores = replace(scores, pair=method.head.rank(scores, pairs))
        losses.append(method.head.loss(scores, batch, pairs).item())
    return fmean(losses)


def _validate(
    method: Method,
    data: Splits,
    feed: Feed,
    options: TrainOptions,
    evaluation: EvalOptions,
    epoch: int,
    memory: int,
) -> dict[str, float]:
    """AUC in the closed world, and the loss if epochs are selected by it."""
    (sweep,) = sweeps(method, data, "val", ["closed"], feed, memory=memory).values()
    metrics = sweep.compute_all(evaluation.bins)[0]
    if options.select != "loss":
        return {"val_auc": metrics.auc}
    loss = validation_loss(method, feed, data.space.pairs.to(method.device), fused=options.fused_validation_loss)
    if not math.isfinite(loss):
        raise TrainingError(f"the validation loss is {loss} after epoch {epoch + 1}")
    return {"val_auc": metrics.auc, "val_loss": loss}


def _told(row: Mapping[str, float]) -> str:
    """An epoch of the history in words."""
    told = f"loss {row['loss']:.3f}, validation AUC {100 * row['val_auc']:.1f}"
    return f"{told}, validation loss {row['val_loss']:.3f}" if "val_loss" in row else told


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
                share = len(batch.attr) / size if options.rescale_short_groups else 1 / options.accumulation
                (loss * share).backward()
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
        "adamw_bert": AdamWBert,
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
