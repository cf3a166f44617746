"""One epoch of a training: its order, its batches, its steps and the hooks of the method."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor

from ..data.batches import Companions, Feed
from ..errors import TrainingError
from ..learned_state import frozen_fingerprint
from ..method import Method
from ..terminal import Progress
from ..training_hooks import TrainingData, TrainingHooks, TrainingPosition
from ..types import Batch
from .optimizers import check_groups, lr_factor
from .options import TrainOptions

T = TypeVar("T")


@dataclass(eq=False)
class Trainer:
    """The parts of a training, which runs one epoch at a time."""

    method: Method
    feed: Feed
    options: TrainOptions
    data: TrainingData
    optimizers: list[torch.optim.Optimizer]
    seed: int

    def __post_init__(self) -> None:
        self.frozen = frozen_fingerprint(self.method)

    def run(self, epoch: int) -> dict[str, float]:
        """Train for an epoch, counted from 0; return its mean loss per image, parts of the loss and learning rate.

        Raises:
            TrainingError: a loss is not finite, there are too few images, or a trainable parameter cannot learn.
        """
        method, options, feed = self.method, self.options, self.feed
        mode = epoch == 0 or not options.eval_mode_after_first_epoch
        method.train(mode)
        order = epoch_order(method, self.data, epoch, self._generator("order", epoch))
        steps = step_count(len(order), feed.batch_size, options.accumulation)
        losses, lr = MeanLosses(), 0.0
        frozen = _is_frozen(method)
        method.before_epoch(TrainingPosition(epoch, options.epochs, 0, steps))
        if _is_frozen(method) != frozen:  # a frozen backbone is in evaluation mode
            method.backbone.train(mode and frozen)
        check_groups(method, [p for optimizer in self.optimizers for g in optimizer.param_groups for p in g["params"]])
        idle = {name: p for name, p in method.named_parameters() if p.requires_grad and not epoch}
        batches = -(-len(order) // feed.batch_size)
        with Progress(f"epoch {epoch + 1}/{options.epochs}, batches", batches, show=feed.progress) as progress:
            companions = companion_choice(method, self.data, self._generator("companions", epoch))
            groups = _groups(_without_single_images(feed.batches(order, epoch, None, companions)), options.accumulation)
            for step, group in enumerate(groups):
                position = TrainingPosition(epoch, options.epochs, step, steps)
                lr = self._set_learning_rate(position)
                method.before_step(position)
                for batch in group:
                    self._add_gradient(batch, sum(len(b.attr) for b in group), position, losses)
                    progress.update(note=f"loss {losses.mean('loss'):.3f}")
                idle = {name: p for name, p in idle.items() if p.grad is None}
                self._step()
                method.after_step(TrainingPosition(epoch, options.epochs, step + 1, steps))
        if not losses.images:
            raise TrainingError(
                f"not enough training images: found {len(order)}, and batch normalisation needs 2 in a batch"
            )
        self._check_learning(idle, epoch)
        method.after_epoch(TrainingPosition(epoch, options.epochs, steps, steps))
        return {**losses.means(), "lr": lr}

    def _generator(self, purpose: str, epoch: int) -> Generator:
        """Return a generator of random numbers for one purpose and one epoch."""
        return Generator().manual_seed(epoch_seed(self.seed, epoch, purpose))

    def _set_learning_rate(self, position: TrainingPosition) -> float:
        """Set the learning rate of every group of parameters for a step; return it for ``lr_scale`` 1."""
        shares = position.step / position.steps, (position.step + 1) / position.steps
        factor = lr_factor(self.options, position.epoch, *shares)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        return self.options.lr * factor

    def _add_gradient(self, batch: Batch, images: int, position: TrainingPosition, losses: MeanLosses) -> None:
        """Add the gradient of a batch to those of the step, and its loss to ``losses``.

        Args:
            images: number of images in all batches of the step.

        Raises:
            TrainingError: the loss is not finite; the message names epoch and step.
        """
        options, pairs = self.options, self.feed.split.pairs.to(self.method.device)
        with torch.autocast(pairs.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            parts = loss_parts(self.method, self.method.loss(batch, pairs))
        values = {name: value.item() for name, value in parts.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"the {name.replace('loss/', 'part of the loss ')} is {value} at epoch {position.epoch + 1}, "
                    f"step {position.step + 1} of {position.steps}; "
                    f"the learning rate was {self.optimizers[0].param_groups[0]['lr']:g}"
                )
        share = len(batch.attr) / images if options.rescale_short_groups else 1 / options.accumulation
        (parts["loss"] * share).backward()
        losses.add(values, len(batch.attr))

    def _step(self) -> None:
        """Let the optimisers make a step with the gradients, and delete the gradients."""
        if self.options.clip_norm is not None:
            grouped = (p for optimizer in self.optimizers for g in optimizer.param_groups for p in g["params"])
            torch.nn.utils.clip_grad_norm_([p for p in grouped if p.grad is not None], self.options.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _check_learning(self, idle: Iterable[str], epoch: int) -> None:
        """Check that the epoch trained what it should.

        Args:
            idle: names of trainable parameters that had no gradient in the first epoch.

        Raises:
            TrainingError: one of them may not lack its gradient, a tensor that is not saved has changed, or cached
                features are not those of the images.
        """
        method = self.method
        kind = type(method).__name__
        now = frozen_fingerprint(method)
        if changed := [name for name, value in self.frozen.items() if now.get(name, value) != value]:
            raise TrainingError(
                f"frozen parameters of {kind} changed in epoch {epoch + 1}, but they are not saved: "
                f"{', '.join(changed)}. Register such tensors as buffers, or list them in parameter_groups()"
            )
        if lacking := [name for name in idle if not any(fnmatch(name, p) for p in method.may_lack_gradient)]:
            raise TrainingError(
                f"trainable parameters of {kind} had no gradient in the first epoch, so they never learn: "
                f"{', '.join(lacking)}. Use them in the loss without torch.no_grad() or detach(), freeze them with "
                f"requires_grad_(False), or list them in {kind}.may_lack_gradient"
            )
        if self.feed.features_have_changed():
            raise TrainingError(
                f"the image features of {kind} changed in epoch {epoch + 1}, though no gradient reaches them, so they "
                f"were computed once: set caches_features = False on {kind}"
            )


@dataclass
class MeanLosses:
    """The mean of a loss and its parts over the images of an epoch."""

    images: int = 0
    totals: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, float], images: int) -> None:
        """Add the mean losses of a batch."""
        self.images += images
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value * images

    def mean(self, name: str) -> float:
        """Return the mean of one value over the images so far."""
        return self.totals[name] / self.images

    def means(self) -> dict[str, float]:
        """Return the mean of every value over the images so far."""
        return {name: self.mean(name) for name in self.totals}


def epoch_seed(seed: int, epoch: int, purpose: str = "") -> int:
    """Return the seed of an epoch, unrelated to those of other epochs, purposes and values of ``seed``."""
    text = f"{seed}/{epoch}" + (f"/{purpose}" if purpose else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def step_count(images: int, batch_size: int, accumulation: int) -> int:
    """Return the number of optimiser steps of an epoch; a last batch of a single image is left out.

    >>> step_count(17, 8, 1), step_count(18, 8, 2), step_count(40, 8, 2)
    (2, 2, 3)
    """
    batches = -(-images // batch_size) - (images % batch_size == 1)
    return -(-batches // accumulation)


def epoch_order(method: Method, data: TrainingData, epoch: int, generator: Generator) -> Tensor:
    """Return the images of an epoch in their order, ``[n]`` long: that of the method, else a random permutation.

    Raises:
        TrainingError: the order of the method is not a list of training images.
    """
    order = method.sample_order(data, epoch, generator)
    if order is None:
        return torch.randperm(len(data))
    return _training_images(order, len(data), f"{type(method).__name__}.sample_order() returned", least=1)


def companion_choice(method: Method, data: TrainingData, generator: Generator) -> Companions | None:
    """Return the function that chooses the companions of a batch; None if the method has no companions.

    The function raises a TrainingError if the method returns other values than indices of training images.
    """
    if type(method).companions is TrainingHooks.companions:
        return None

    def choose(index: Tensor) -> Mapping[str, Tensor]:
        chosen = method.companions(data, index, generator).items()
        where = f"{type(method).__name__}.companions() returned for"
        return {name: _training_images(found, len(data), f"{where} {name!r}", first=-1) for name, found in chosen}

    return choose


def loss_parts(method: Method, loss: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a loss as ``loss``, with each of its named parts as ``loss/NAME``.

    Raises:
        TrainingError: the method returned something else than a scalar, or several scalars by name.

    >>> method = type("Mine", (), {})()
    >>> {name: value.item() for name, value in loss_parts(method, {"a": torch.tensor(1), "b": torch.tensor(2)}).items()}
    {'loss': 3, 'loss/a': 1, 'loss/b': 2}
    """
    parts = loss if isinstance(loss, Mapping) else {"": loss}
    wrong = [value for value in parts.values() if not (isinstance(value, Tensor) and value.numel() == 1)]
    if wrong or not parts:
        found = f"shape {list(wrong[0].shape)}" if wrong and isinstance(wrong[0], Tensor) else repr(loss)
        raise TrainingError(
            f"the loss of {type(method).__name__} is {found}, expected a tensor with one number, or a dict of them"
        )
    if not isinstance(loss, Mapping):
        return {"loss": loss}
    return {"loss": torch.stack([*loss.values()]).sum()} | {f"loss/{name}": value for name, value in loss.items()}


def _is_frozen(method: Method) -> bool:
    """Return whether no parameter of the backbone is trainable."""
    return not any(p.requires_grad for p in method.backbone.parameters())


def _training_images(found: Any, count: int, where: str, *, least: int = 0, first: int = 0) -> Tensor:
    """Return indices of training images on the CPU, after a check.

    Args:
        count: number of training images.
        where: start of the message.
        least: smallest number of indices.
        first: smallest index; -1 if an index may stand for no image.

    Raises:
        TrainingError: they are not indices of training images.
    """
    is_list = isinstance(found, Tensor) and found.dtype == torch.long and found.ndim == 1 and len(found) >= least
    if is_list and (not len(found) or (found.min() >= first and found.max() < count)):
        return found.cpu()
    shown = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else repr(found)
    if is_list:
        shown += f" with values from {int(found.min())} to {int(found.max())}"
    none = ", or -1 for no image" if first else ""
    raise TrainingError(f"{where} {shown}, expected indices of training images, [n] long, from 0 to {count - 1}{none}")


def _without_single_images(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Leave out a last batch of one image, which batch normalisation cannot use."""
    return (batch for batch in batches if len(batch.attr) > 1)


def _groups(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` consecutive items; the last list may be shorter."""
    for first in items:
        rest = (item for _, item in zip(range(size - 1), items, strict=False))
        yield list(chain([first], rest))
