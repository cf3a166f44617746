"""Forecasts of the time and memory of a training.

The memory of a step is counted, and its time is that of a small step that is run, times the work in it that is counted.
A step that cannot be counted is run as a whole if it fits into the memory that may be used. Otherwise steps with fewer
images and pairs are run: the memory and the time of a step grow linearly with the images, with the pairs, and with
their product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from ..data.batches import ENCODER_BATCH, Feed
from ..data.splits import Splits
from ..device_memory import total_memory
from ..errors import PluginError
from ..footprint import Footprint
from ..method import Method
from ..precision import computing_in, tf32
from ..recompute import NOTHING
from ..sizes import MEMORY, format_bytes, format_duration
from ..training.companions import companion_choice
from ..training.losses import loss_parts
from ..training.memory import StepPlan, asked_memory, plan_step, remedy
from ..training.options import TrainOptions
from ..training.step_count import NotCountableError, StepCount, StepCounter, image_bytes, optimizer_numbers
from ..types import Batch, ImageFeatures
from . import forecast

START = (4, 16)  # images and pairs of the first step
FEWEST_IMAGES = 2  # images of the first step whose time is measured; batch normalisation needs 2
GROWTH = 4  # a step has at most so many times as many images or pairs as the one before
FEW_PAIRS = 512  # number of pairs that a step may always have, if the loss of a method needs all pairs
#: Operations that take as long as moving a byte, about; more for bf16, whose matrix products are faster on GPUs.
OPERATIONS_PER_BYTE = {"fp32": 10, "tf32": 30, "bf16": 50}
SLOW = 10**11  # operations of a step that may take a CPU some seconds

Size = tuple[int, int]  # images and pairs of a step


@dataclass(frozen=True)
class TrainingForecast:
    """The expected time and memory of a training."""

    seconds: float
    bytes: int  # largest memory of a step, with the weights of the method
    how: str = ""  # how the step gets on with its memory, or what the numbers were estimated from
    too_large: str = ""  # that the training needs more memory than its device has, and what helps

    def __str__(self) -> str:
        """Return time and memory in words."""
        return f"{format_duration(self.seconds)}, {format_bytes(self.bytes)}{self.how and f', {self.how}'}"


def training(
    method: Method,
    data: Splits,
    options: TrainOptions,
    validation: forecast.Forecast,
    workers: int = 0,
    memory: int = MEMORY,
    log: Callable[[str], None] = lambda line: None,
) -> TrainingForecast:
    """Return the forecast of a training, from its steps and the forecast of a validation.

    Args:
        method: must not be used afterwards, since the steps may change its running statistics.
        validation: forecast of the validation after every epoch; it does not count if it was not measured.
        workers: processes that read images.
        memory: bytes that a step may take here, without the weights of the method. The smallest steps are always run.
        log: called with a line before something that may take longer than some seconds.

    Raises:
        PluginError: see :meth:`Steps.largest_that_fits`.
        TrainingError: no recomputation fits into ``train.memory``.
    """
    if not method.trains:
        return TrainingForecast(0.0, 0)
    feed = Feed(
        method,
        data.train,
        options.batch_size,
        augment=options.augment,
        augment_on=options.augment_on,
        workers=workers,
        precision=options.precision,
    )
    steps = Steps(method, data, options, feed)
    images = min(steps.whole[0], ENCODER_BATCH)
    start, per_image = 0.0, forecast.reading_seconds(feed, images)
    if feed.caches_features:  # features are computed once, before the first epoch
        start, per_image = len(feed.split) * forecast.encoding_seconds(method, feed, images), 0.0
    method.train()
    counter = StepCounter(method, feed, options, data.training_data())
    try:
        plan = plan_step(counter, asked_memory(counter))
        step, needed, how = counted_seconds(steps, counter, plan, memory, log), plan.step.bytes, ""
        if plan.recomputation != NOTHING:
            how = f"recomputing {plan.recomputation}, which are {plan.more_operations:.0%} more operations"
        too_large = remedy(counter)
    except NotCountableError as error:
        log(str(error))
        size = steps.largest_that_fits(memory)
        step, needed = steps.estimated(steps.seconds, size), steps.needed(size)
        whole = steps.whole == size
        sizes = (f"{images:,} images x {pairs:,} pairs" for images, pairs in (size, steps.whole))
        how = "" if whole else f"estimated from steps of {' for '.join(sizes)}"
        too_large = _too_large(method, needed)
    epoch = len(feed) * step + len(feed.split) * per_image + (validation.seconds or 0)
    return TrainingForecast(start + options.epochs * epoch, needed, how, too_large)


def _too_large(method: Method, needed: int) -> str:
    """Return that a training needs more memory than its device has; empty if it does not."""
    most = total_memory(method.device)
    if not most or needed <= most:
        return ""
    return (
        f"TOO LARGE FOR THIS MACHINE: the training needs about {format_bytes(needed)} with the weights of the method, "
        f"and {method.device} has {format_bytes(most)}. A smaller train.batch_size needs less"
    )


def counted_seconds(
    steps: Steps, counter: StepCounter, plan: StepPlan, memory: int, log: Callable[[str], None]
) -> float:
    """Return the seconds of a step: those of a small one that is run, times the work of the step.

    Args:
        plan: what the step takes.
        memory, log: see :func:`training`.

    Raises:
        PluginError: the loss needs all pairs, and a step with them does not fit into the memory.
    """

    def work(count: StepCount) -> float:
        return count.operations + OPERATIONS_PER_BYTE[steps.options.precision] * count.moved

    def counted(size: Size) -> StepCount:
        return counter.count(NOTHING, *steps.part(size))

    size = steps.smallest(counted, FEWEST_IMAGES)
    while True:
        count = counted(size)
        if steps.method.device.type == "cpu" and count.operations > SLOW:
            log(f"a step of {size[0]:,} images and {size[1]:,} pairs is measured")
        taken = steps.seconds(size)
        larger = min(GROWTH * size[0], steps.whole[0]), min(GROWTH * size[1], steps.whole[1])
        if taken >= forecast.MIN_SECONDS or larger == size or GROWTH**2 * (count.bytes - steps.weights) > memory:
            return taken * work(plan.step) / work(count)
        size = larger


class Steps:
    """Training steps of a method with a part of the images of a batch and a part of the training pairs.

    Args:
        method: the method before training.
        data: its dataset.
        options: its training settings.
        feed: the batches of the training.
    """

    def __init__(self, method: Method, data: Splits, options: TrainOptions, feed: Feed) -> None:
        self.method, self.options, self.feed = method, options, feed
        self.pairs = data.train.pairs.to(method.device)
        self.whole = (min(options.batch_size, len(data.train)), len(self.pairs))
        self._companions = companion_choice(method, data.training_data(), torch.Generator().manual_seed(0))
        self._bytes: dict[Size, int] = {}
        self._batches: dict[int, Batch] = {}

    @property
    def weights(self) -> int:
        """The bytes of the weights of the method."""
        return sum(tensor.nbytes for tensor in (*self.method.parameters(), *self.method.buffers()))

    def needed(self, size: Size) -> int:
        """Return the largest memory of a whole step with weights, from steps of a size and of half as many images."""
        trained = sum(p.nbytes for p in self.method.parameters() if p.requires_grad)
        held = optimizer_numbers(self.options) * trained + self.weights + self.feed.feature_bytes
        return round(self.estimated(self.bytes, size)) + held

    def part(self, size: Size) -> tuple[Batch, Tensor]:
        """Return the images and the pairs of a step."""
        return self._batch(size), self._some_pairs(size[1])

    def smallest(self, run: Callable[[Size], object], images: int) -> Size:
        """Return the size of the first step, which is a whole one if the loss needs all pairs.

        Args:
            run: takes the size of a step and raises an error if the loss needs more pairs.
            images: its number of images.

        Raises:
            PluginError: the loss of the method needs all pairs, and they are many.
        """
        size = (min(images, self.whole[0]), min(START[1], self.whole[1]))
        try:
            run(size)
        except Exception as error:
            if self.whole[1] <= FEW_PAIRS:
                return self.whole  # if this raises too, it is the method's own error
            name = type(self.method).__name__
            raise PluginError(
                f"not estimated, since the loss of {name} takes {self.whole[1]:,} training pairs, but not {size[1]} of "
                f"them ({type(error).__name__}: {error}). Compute it from the pairs that it is given"
            ) from error
        return size

    def largest_that_fits(self, memory: int) -> Size:
        """Return the largest size of a step that takes at most ``memory`` bytes; images grow first, then pairs.

        Raises:
            PluginError: see :meth:`smallest`.
        """
        size = self.smallest(self.bytes, START[0])
        for axis in (0, 1):
            while size[axis] < self.whole[axis]:
                half, larger = list(size), list(size)
                half[axis] //= 2
                low, high = self.bytes((half[0], half[1])), self.bytes(size)
                slope = max(high - low, 1) / (size[axis] - half[axis])  # bytes for each image or pair
                room = size[axis] + int((memory - high) / slope)
                larger[axis] = min(room, GROWTH * size[axis], self.whole[axis])
                if larger[axis] <= size[axis]:
                    break
                size = (larger[0], larger[1])
        return size

    def estimated(self, measure: Callable[[Size], float], size: Size) -> float:
        """Return a measure of a whole step from steps of ``size``, and of half as many images and pairs."""
        images, pairs = (_shares(known, target) for known, target in zip(size, self.whole, strict=True))
        total = sum(
            image_share * pair_share * measure((n, k))
            for (n, image_share), (k, pair_share) in product(images.items(), pairs.items())
        )
        return max(total, measure(size))

    def bytes(self, size: Size) -> int:
        """Return the largest number of bytes during a step: its batch, what it computes, and its gradients."""
        if size not in self._bytes:
            batch = self._batch(size)
            with Footprint() as footprint:
                self._run(batch, size[1])
            self._bytes[size] = footprint.peak + image_bytes(batch)
        return self._bytes[size]

    def seconds(self, size: Size) -> float:
        """Return the seconds of a step."""
        batch = self._batch(size)
        return forecast.measured_seconds(lambda _: self._run(batch, size[1]), 1, self.method.device)

    def _run(self, batch: Batch, pairs: int) -> None:
        self.method.train()
        precision, device = self.options.precision, self.method.device
        with tf32(precision == "tf32", device):
            with computing_in(precision, device):
                loss = loss_parts(self.method, self.method.loss(batch, self._some_pairs(pairs)))["loss"]
            loss.backward()
        self.method.zero_grad(set_to_none=True)

    def _some_pairs(self, count: int) -> Tensor:
        """Return training pairs from the whole list, since words differ in length."""
        if count == len(self.pairs):
            return self.pairs
        return self.pairs[torch.linspace(0, len(self.pairs) - 1, count).long()]

    def _batch(self, size: Size) -> Batch:
        """Return the first images of the training; with a part of the pairs, they are said to show these pairs."""
        images, pairs = size
        if images not in self._batches:
            batch = self.feed.sample(images, self._companions)
            self._batches = {images: self._encoded(batch) if self.feed.caches_features else batch}
        batch = self._batches[images]
        return batch if pairs == self.whole[1] else _relabelled(batch, self._some_pairs(pairs))

    @torch.no_grad()
    def _encoded(self, batch: Batch) -> Batch:
        """Return a batch and its companions with features in place of pixels."""
        assert isinstance(batch.images, Tensor)
        companions = {name: self._encoded(companion) for name, companion in batch.companions.items()}
        self.method.eval()
        with computing_in(self.options.precision, self.method.device):
            features = [self.method.encode(pixels).pooled.float() for pixels in batch.images.split(ENCODER_BATCH)]
        return replace(batch, images=ImageFeatures(torch.cat(features)), companions=companions)


def _shares(size: int, target: int) -> Mapping[int, float]:
    """Return the shares of two sizes, one half of the other, in a line through both at ``target``.

    >>> _shares(8, 8), _shares(8, 20)
    ({8: 1.0}, {4: -3.0, 8: 4.0})
    """
    if size == target:
        return {size: 1.0}
    half = size // 2
    share = (target - half) / (size - half)
    return {half: 1 - share, size: share}


def _relabelled(batch: Batch, pairs: Tensor) -> Batch:
    """Return a batch whose images and companions show the given pairs in turn."""
    shown = pairs[torch.arange(len(batch.attr), device=pairs.device) % len(pairs)]
    companions = {name: _relabelled(companion, pairs) for name, companion in batch.companions.items()}
    return replace(batch, attr=shown[:, 0], obj=shown[:, 1], companions=companions)
