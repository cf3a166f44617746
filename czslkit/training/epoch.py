"""One epoch of a training: its order, its batches, its steps and the hooks of the method."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from .. import distributed
from ..data.batches import Companions, Feed
from ..deferred import deferred_checks, is_host
from ..errors import TrainingError
from ..learned_state import frozen_fingerprint
from ..loss_parts import reported
from ..method import Method
from ..precision import computing_in, tf32
from ..recompute import Recomputation, recompute
from ..shares import Rows, computing
from ..terminal import Progress
from ..training_hooks import TrainingData, TrainingPosition
from ..types import Batch
from .companions import companion_choice, training_images
from .compiled import compiled_loss
from .losses import UNREAD_BATCHES, MeanLosses, loss_parts
from .memory import StepMemory
from .optimizers import check_groups, lr_factor
from .options import TrainOptions
from .split import divided, equal_random_numbers, sum_gradients, sum_losses
from .watch import Watch

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
    step_memory: StepMemory
    divides: bool = True  # several ranks divide every batch; otherwise each computes whole batches
    watch: Watch = field(default_factory=Watch)
    steps: int = 0  # optimiser steps of the training so far

    def __post_init__(self) -> None:
        self.frozen = frozen_fingerprint(self.method)
        self.pairs = self.feed.split.pairs.to(self.method.device)  # [P, 2]
        self.compiled_loss = compiled_loss(self.method) if self.options.compile else None

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
        losses = MeanLosses(1 if is_host(method.device) else UNREAD_BATCHES)
        frozen = _is_frozen(method)
        method.before_epoch(TrainingPosition(epoch, options.epochs, 0, steps))
        if _is_frozen(method) != frozen:  # a frozen backbone is in evaluation mode
            method.backbone.train(mode and frozen)
        check_groups(method, [p for group in self.groups for p in group["params"]])
        how = distributed.first(self.step_memory.recomputation)
        idle = {name: p for name, p in method.named_parameters() if p.requires_grad and not epoch}
        batches = -(-len(order) // feed.batch_size)
        name = f"epoch {epoch + 1}/{options.epochs}, batches"
        with divided(method), Progress(name, batches, show=feed.progress) as progress:
            companions = companion_choice(method, self.data, self._generator("companions", epoch))
            groups = _groups(self._parts(order, epoch, companions), options.accumulation)
            lr = self._steps(groups, TrainingPosition(epoch, options.epochs, 0, steps), losses, idle, progress, how)
        if not losses.images:
            raise TrainingError(
                f"not enough training images: found {len(order)}, and batch normalisation needs 2 in a batch"
            )
        self._check_learning(idle, epoch)
        method.after_epoch(TrainingPosition(epoch, options.epochs, steps, steps))
        return {**losses.means(), "lr": lr, **how.record()}

    def _steps(
        self,
        groups: Iterator[list[tuple[Batch, Rows]]],
        start: TrainingPosition,
        losses: MeanLosses,
        idle: dict[str, nn.Parameter],
        progress: Progress,
        how: Recomputation,
    ) -> float:
        """Make the steps of an epoch, each with the batches of a group; return the learning rate of the last step.

        Args:
            start: the place before the first step.
            losses: receives the losses.
            idle: trainable parameters that have had no gradient; the others are removed.
            how: what the steps recompute.

        Raises:
            TrainingError: a loss is not finite.
        """
        method, lr = self.method, 0.0
        self.watch.before_steps(losses)
        with tf32(self.options.precision == "tf32", method.device), deferred_checks(method.device), losses.all_read():
            for step, group in enumerate(groups):
                position = replace(start, step=step)
                lr = self._set_learning_rate(position)
                method.before_step(position)
                for batch, rows in group:
                    with recompute(how):
                        self._add_gradient(batch, rows, sum(part.total for _, part in group), position, losses)
                    progress.update(note=losses.note())
                sum_gradients(p for group in self.groups for p in group["params"])
                if any(rows.total % distributed.size() for _, rows in group):
                    equal_random_numbers(method.device)
                for name in [name for name, p in idle.items() if p.grad is not None]:
                    del idle[name]
                self._step()
                method.after_step(replace(start, step=step + 1))
                self.steps += 1
                self.watch.after_step(step + 1, self.steps, lr, self.groups)
        self.watch.after_steps()
        return lr

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The groups of parameters of all optimisers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _generator(self, purpose: str, epoch: int) -> Generator:
        """Return a generator of random numbers for one purpose and one epoch."""
        return Generator().manual_seed(epoch_seed(self.seed, epoch, purpose))

    def _set_learning_rate(self, position: TrainingPosition) -> float:
        """Set the learning rate of every group of parameters for a step; return it for ``lr_scale`` 1."""
        shares = position.step / position.steps, (position.step + 1) / position.steps
        factor = lr_factor(self.options, position.epoch, *shares)
        for group in self.groups:
            group["lr"] = group["base_lr"] * factor
        return self.options.lr * factor

    def _parts(self, order: Tensor, epoch: int, companions: Companions | None) -> Iterator[tuple[Batch, Rows]]:
        """Yield the images of each batch that this rank computes, and their place in the batch.

        A last batch of one image is left out, which batch normalisation cannot use.
        """

        def rows(images: int) -> Rows:
            return Rows.of_this_rank(images) if self.divides else Rows(0, images, images)

        sizes = [len(index) for index in order.split(self.feed.batch_size)]
        batches = self.feed.batches(order, epoch, None, companions, lambda images: rows(images).part)
        return ((batch, rows(size)) for batch, size in zip(batches, sizes, strict=True) if size > 1)

    def _add_gradient(
        self, batch: Batch, rows: Rows, images: int, position: TrainingPosition, losses: MeanLosses
    ) -> None:
        """Add the gradient of a part of a batch to those of the step, and the loss of the batch to ``losses``.

        Args:
            rows: the place of the part in the batch.
            images: number of images in all batches of the step.

        Raises:
            TrainingError: a loss is not finite, of this step or of an earlier one; the message names epoch and step.
        """
        options = self.options
        with computing_in(options.precision, self.pairs.device), computing(rows), reported() as named:
            loss = (self.compiled_loss or self.method.loss)(batch, self.pairs)
        parts = loss_parts(self.method, loss, named)
        losses.add(sum_losses(parts, rows.weight), rows.total, position, self.optimizers[0].param_groups[0]["lr"])
        share = rows.total / images if options.rescale_short_groups else 1 / options.accumulation
        (parts["loss"] * (share * rows.weight)).backward()

    def _step(self) -> None:
        """Let the optimisers make a step with the gradients, and delete the gradients."""
        if self.options.clip_norm is not None:
            grouped = (p for group in self.groups for p in group["params"])
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
    return training_images(order, len(data), f"{type(method).__name__}.sample_order() returned", least=1)


def _is_frozen(method: Method) -> bool:
    """Return whether no parameter of the backbone is trainable."""
    return not any(p.requires_grad for p in method.backbone.parameters())


def _groups(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` consecutive items; the last list may be shorter."""
    for first in items:
        rest = (item for _, item in zip(range(size - 1), items, strict=False))
        yield list(chain([first], rest))
