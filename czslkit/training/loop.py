"""The training loop: the same for every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch

from .. import distributed
from ..data.batches import Feed
from ..learned_state import learned_state, load_learned
from ..method import Method
from ..training_hooks import TrainingData
from .epoch import Trainer, epoch_seed
from .evaluation_weights import evaluation_weights, finite_validation
from .memory import StepMemory
from .optimizers import make_optimizers
from .options import TrainOptions
from .split import equal_weights, sampled, undivided
from .state import Progress, TrainingState
from .watch import Watch


@dataclass(frozen=True)
class Training:
    """The record of a training; the method itself holds the weights of the kept epoch."""

    epochs: int
    best_epoch: int | None  # the kept epoch, counted from 1; None if nothing was trained
    trainable_parameters: int
    history: tuple[dict[str, float], ...] = field(
        repr=False
    )  # for each epoch: loss, lr, val_auc, val_bias, val_acc and val_loss if computed
    seconds: float = field(default=0.0, compare=False)  # over all sessions of the training
    steps: int = field(default=0, compare=False)  # optimiser steps; 0 in results of earlier versions


def train(
    method: Method,
    feed: Feed,
    options: TrainOptions,
    validate: Callable[[], dict[str, float]],
    state: TrainingState,
    *,
    data: TrainingData,
    seed: int,
    log: Callable[[str], None] = lambda line: None,
    watch: Watch | None = None,
) -> Training:
    """Train a method and leave it with the weights of its best epoch, which ``options.select`` chooses.

    The state is saved after every epoch, and the random numbers of an epoch depend only on the seed and the epoch. So a
    training that was killed resumes after its last finished epoch and ends with the same weights.

    Args:
        method: on the device to train on; changed in place. Its hook ``prepare`` has been called.
        feed: batches of the training split for the same method; its pairs are the candidates.
        validate: called after each epoch; returns ``val_auc``, with ``val_acc`` if the AUC is undefined, and
            ``val_loss`` if epochs are selected by it.
        state: the file to resume from.
        data: the training split as hooks receive it.
        log: called with a line for every epoch.
        watch: receives the values of the training.

    Raises:
        TrainingError: a loss is not finite, a trainable parameter cannot learn, or no recomputation makes a step fit
            into ``options.memory``; the message says what to change.
    """
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    if not method.trains or not options.epochs:
        return Training(0, None, count, ())
    equal_weights(method)
    divides = _divides(method, feed, log)
    images = max(2, -(-options.batch_size // distributed.size())) if divides else options.batch_size
    memory = StepMemory(method, feed, replace(options, batch_size=images), data, log)
    watch = watch or Watch()
    trainer = Trainer(method, feed, options, data, make_optimizers(method, options), seed, memory, divides, watch)
    restored = state.restore(method, trainer.optimizers)
    history, best, trainer.steps = restored.history, restored.best, restored.steps
    if history:
        log(f"resumed after epoch {len(history)}")
    watch.begin(trainer.steps, method.device)
    start = time.monotonic() - restored.seconds
    for epoch in range(len(history), options.epochs):
        torch.manual_seed(epoch_seed(seed, epoch))
        row = trainer.run(epoch)
        with evaluation_weights(method):
            history.append({**row, **finite_validation(validate(), epoch)})
            if best_epoch(history, options.select) == len(history):
                best = {name: value.clone() for name, value in learned_state(method).items()}
        progress = Progress(history, best, time.monotonic() - start, trainer.steps)
        distributed.first(partial(state.save, method, trainer.optimizers, progress))
        watch.after_epoch(epoch + 1, trainer.steps, history[-1], trainer.groups)
        log(f"epoch {epoch + 1}/{options.epochs}: {_epoch_summary(history[-1])}, {time.monotonic() - start:.0f} s")
    load_learned(method, best)
    seconds = time.monotonic() - start
    return Training(len(history), best_epoch(history, options.select), count, tuple(history), seconds, trainer.steps)


def _divides(method: Method, feed: Feed, log: Callable[[str], None]) -> bool:
    """Return whether processes can divide the batches of a training; log why if they cannot."""
    if distributed.size() == 1:
        return True

    def reason() -> str:
        return undivided(method, sampled(feed), feed.split.pairs.to(method.device))

    if found := distributed.first(reason):
        log(f"every process computes whole batches, since {found}")
    return not found


def best_epoch(history: Sequence[Mapping[str, float]], select: Literal["auc", "loss", "last"]) -> int:
    """Return the epoch to keep, counted from 1; the first of equally good ones.

    If the validation AUC is undefined, ``"auc"`` compares the validation accuracy in its place.

    >>> best_epoch([{"val_auc": 0.1}, {"val_auc": 0.2}, {"val_auc": 0.2}], "auc")
    2
    """
    if select == "last":
        return len(history)
    criterion = "val_loss" if select == "loss" else "val_acc" if "val_acc" in history[-1] else "val_auc"
    values = [-row[criterion] if select == "loss" else row[criterion] for row in history]
    return 1 + values.index(max(values))


def _epoch_summary(row: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in row.items() if "loss/" in name)
    name, value = ("accuracy", row["val_acc"]) if "val_acc" in row else ("AUC", row["val_auc"])
    text = f"loss {row['loss']:.3f}{f' ({parts})' if parts else ''}, validation {name} {100 * value:.1f}"
    return f"{text}, validation loss {row['val_loss']:.3f}" if "val_loss" in row else text
