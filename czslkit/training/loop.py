"""The training loop: the same for every method."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from ..data.batches import Feed
from ..errors import TrainingError
from ..method import Method, learned_state, load_learned
from ..types import Batch
from .optimizers import lr_factor, make_optimizer
from .options import TrainOptions
from .state import Progress, TrainingState

T = TypeVar("T")


@dataclass(frozen=True)
class Training:
    """The record of a training; the method itself holds the weights of the kept epoch."""

    epochs: int
    best_epoch: int | None  # the kept epoch, counted from 1; None if nothing was trained
    trainable_parameters: int
    history: tuple[dict[str, float], ...] = field(repr=False)  # for each epoch: loss, lr, val_auc, val_loss if computed
    seconds: float = field(default=0.0, compare=False)  # over all sessions of the training


def train(
    method: Method,
    feed: Feed,
    options: TrainOptions,
    validate: Callable[[], dict[str, float]],
    state: TrainingState,
    *,
    seed: int,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> Training:
    """Train a method and leave it with the weights of its best epoch, which ``options.select`` chooses.

    The state is saved after every epoch, and the random numbers of an epoch depend only on the seed and the epoch. So a
    training that was killed resumes after its last finished epoch and ends with the same weights.

    Args:
        method: on the device to train on; changed in place.
        feed: batches of the training split for the same method; its pairs are the candidates.
        validate: called after each epoch; returns ``val_auc``, and ``val_loss`` if epochs are selected by it.
        state: the file to resume from.
        progress: show a progress bar on a terminal.
        log: called with a line for every epoch.

    Raises:
        TrainingError: a loss is not finite; the message names the epoch and, for a training loss, the step.
    """
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    if not method.trains or not options.epochs:
        return Training(0, None, count, ())
    optimizer = make_optimizer([p for p in method.parameters() if p.requires_grad], options)
    restored = state.restore(method, optimizer)
    history, best = restored.history, restored.best
    start = time.monotonic() - restored.seconds
    if history:
        log(f"resumed after epoch {len(history)}")
    for epoch in range(len(history), options.epochs):
        lr = options.lr * lr_factor(options, epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(epoch_seed(seed, epoch))
        method.train(epoch == 0 or not options.eval_mode_after_first_epoch)
        loss = _train_epoch(method, feed, optimizer, options, epoch, progress)
        history.append({"loss": loss, "lr": lr, **_finite_validation(validate(), epoch)})
        if best_epoch(history, options.select) == len(history):
            best = {name: value.clone() for name, value in learned_state(method).items()}
        state.save(method, optimizer, Progress(history, best, time.monotonic() - start))
        log(f"epoch {epoch + 1}/{options.epochs}: {_epoch_summary(history[-1])}, {time.monotonic() - start:.0f} s")
    load_learned(method, best)
    return Training(len(history), best_epoch(history, options.select), count, tuple(history), time.monotonic() - start)


def best_epoch(history: Sequence[Mapping[str, float]], select: Literal["auc", "loss", "last"]) -> int:
    """Return the epoch to keep, counted from 1; the first of equally good ones.

    >>> best_epoch([{"val_auc": 0.1}, {"val_auc": 0.2}, {"val_auc": 0.2}], "auc")
    2
    """
    if select == "last":
        return len(history)
    values = [row["val_auc"] if select == "auc" else -row["val_loss"] for row in history]
    return 1 + values.index(max(values))


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch, unrelated to the seeds of other epochs and of other values of ``seed``."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:8], "big") >> 1


def _train_epoch(
    method: Method,
    feed: Feed,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    epoch: int,
    progress: bool,
) -> float:
    """Train for one epoch and return the mean loss per image."""
    pairs = feed.split.pairs.to(method.device)
    order = torch.randperm(len(feed.split))
    total, images = 0.0, 0
    bar = tqdm(
        total=len(feed), desc=f"epoch {epoch + 1}/{options.epochs}", leave=False, disable=None if progress else True
    )
    with bar:
        groups = _groups(_without_single_images(feed.batches(order, epoch)), options.accumulation)
        for step, group in enumerate(groups, 1):
            size = sum(len(batch.attr) for batch in group)
            for batch in group:
                loss = _loss(method, batch, pairs, options)
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
        raise TrainingError(
            f"not enough training images: found {len(feed.split)}, and batch normalisation needs 2 in a batch"
        )
    return total / images


def _loss(method: Method, batch: Batch, pairs: Tensor, options: TrainOptions) -> Tensor:
    with torch.autocast(pairs.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
        return method.loss(batch, pairs)


def _finite_validation(validated: dict[str, float], epoch: int) -> dict[str, float]:
    """Return the numbers of a validation after a check of its loss.

    Raises:
        TrainingError: the validation loss is not finite.
    """
    loss = validated.get("val_loss", 0.0)
    if not math.isfinite(loss):
        raise TrainingError(f"the validation loss is {loss} after epoch {epoch + 1}")
    return validated


def _epoch_summary(row: Mapping[str, float]) -> str:
    text = f"loss {row['loss']:.3f}, validation AUC {100 * row['val_auc']:.1f}"
    return f"{text}, validation loss {row['val_loss']:.3f}" if "val_loss" in row else text


def _without_single_images(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Leave out a last batch of one image, which batch normalisation cannot use."""
    return (batch for batch in batches if len(batch.attr) > 1)


def _groups(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` consecutive items; the last list may be shorter."""
    for first in items:
        rest = (item for _, item in zip(range(size - 1), items, strict=False))
        yield list(chain([first], rest))
