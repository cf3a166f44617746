"""The time and memory that trainings and evaluations will take, measured with a few images and pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..data.batches import Feed
from ..data.splits import Splits
from ..evaluation.evaluator import Evaluation
from ..evaluation.memory_budget import IMAGES, Chunks, Costs
from ..method import Method
from ..metrics.sweep import Sweep
from ..sizes import format_bytes, format_duration
from ..training.options import TrainOptions

ENOUGH = 0.25  # seconds after which one measurement is long enough


@dataclass(frozen=True)
class Forecast:
    """What an evaluation will take."""

    images: int
    pairs: tuple[int, ...]  # to be scored in each world
    chunks: Chunks
    bytes: int  # at most, without the weights of the method
    seconds: float

    def __str__(self) -> str:
        pairs = " + ".join(f"{n:,}" for n in self.pairs)
        chunk = f"{self.chunks.images:,} x {self.chunks.pairs:,} at a time"
        takes = f"{format_duration(self.seconds)}, {format_bytes(self.bytes)}"
        return f"{self.images:,} images x {pairs} pairs, {chunk}: {takes}"


@torch.no_grad()
def evaluation(planned: Evaluation) -> Forecast:
    """Forecast an evaluation; each part of it is measured for a fraction of a second.

    Args:
        planned: its method is left in evaluation mode.
    """
    method, feed, chunks = planned.method, planned.feed, planned.chunks
    costs = Costs(method.eval(), feed, planned.tasks)
    images, pairs = len(feed.split), tuple(len(task.pairs) for task in planned.tasks.values())
    sample, passes = costs.text.pairs, -(-sum(pairs) // chunks.kept)
    one, every = (_seconds(lambda n: method.text(sample[:n]), n, method.device) for n in (1, len(sample)))
    text = max(every - one, 0) / max(len(sample) - 1, 1)  # seconds for each pair
    image = 0.0 if feed.has_features else _encoding(method, feed, chunks.images)
    score = _scoring(method, costs, chunks, [task.sweep() for task in planned.tasks.values()])
    seconds = images * (image * (1 if feed.caches_features else passes) + sum(pairs) * score) + sum(pairs) * text
    return Forecast(images, pairs, chunks, costs.total(chunks.kept, chunks.images, chunks.pairs), seconds)


def training(method: Method, data: Splits, options: TrainOptions, validation: Forecast, workers: int = 0) -> float:
    """Return the seconds that a training takes, from one step of it and the forecast of a validation.

    Args:
        method: not to be used afterwards, since the step may change its running statistics.
        validation: in the closed world, at the end of every epoch.
        workers: processes that read images.
    """
    if not method.trains:
        return 0.0
    feed = Feed(method, data.train, options.batch_size, augment=options.augment, workers=workers)
    pairs, batch = data.train.pairs.to(method.device), feed.first_images(options.batch_size)
    once, image = 0.0, _reading(feed, options.batch_size)
    if feed.caches_features:  # features are made once and kept
        assert isinstance(batch.images, Tensor)
        with torch.no_grad():
            once, image = len(feed.split) * _encoding(method, feed, options.batch_size), 0.0
            batch = replace(batch, images=method.encode(batch.images))

    def step(_: int) -> None:
        method.train()
        with torch.autocast(method.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            loss = method.loss(batch, pairs)
        loss.backward()
        method.zero_grad(set_to_none=True)

    epoch = len(feed) * _seconds(step, 1, method.device) + len(feed.split) * image + validation.seconds
    return once + options.epochs * epoch


def _encoding(method: Method, feed: Feed, images: int) -> float:
    """Return the seconds that reading and encoding take for each image."""
    pixels = feed.first_images(images).images
    assert isinstance(pixels, Tensor)
    reading, encoding = (
        _reading(feed, images),
        _seconds_each(lambda n: method.encode(pixels[:n]), len(pixels), method.device),
    )
    return max(reading, encoding) if feed.workers else reading + encoding


def _reading(feed: Feed, images: int) -> float:
    """Return the seconds that reading takes for each image; the work is shared between processes."""
    return _seconds_each(feed.first_images, images, feed.method.device) / max(feed.workers, 1)


def _scoring(method: Method, costs: Costs, chunks: Chunks, sweeps: list[Sweep]) -> float:
    """Return the seconds for each image and pair, from features to a sweep like the largest of ``sweeps``."""
    largest = max(sweeps, key=lambda sweep: len(sweep.candidates))
    text, images = costs.sample_texts(chunks.pairs), costs.sample_images(min(chunks.images, IMAGES))
    columns = torch.arange(chunks.pairs)
    thresholds = None if largest.candidates.thresholds is None else largest.candidates.thresholds.tolist()
    spread = torch.linspace(min(thresholds), max(thresholds), chunks.pairs) if thresholds else None
    sweep = Sweep(torch.stack((columns, columns), 1), columns == 0, None, spread, thresholds, keep=largest.keep)

    def score(n: int) -> None:
        zeros = torch.zeros(n, dtype=torch.long)
        sweep.update(method.rank(images.take(n), text, costs.setting).float().cpu(), zeros, zeros)

    return _seconds_each(score, len(images.pooled), method.device) / chunks.pairs


def _seconds_each(do: Callable[[int], Any], most: int, device: torch.device) -> float:
    """Return the seconds for each item when ``do`` works on at most ``most`` items at a time."""
    n = 1
    while (taken := _seconds(do, n, device)) < ENOUGH and n < most:
        n = min(4 * n, most)
    return taken / n


def _seconds(do: Callable[[int], Any], n: int, device: torch.device) -> float:
    """Return the seconds of the second call of ``do(n)``, when everything is warm."""
    for _ in range(2):
        start = time.perf_counter()
        do(n)
        if device.type != "cpu":
            torch.accelerator.synchronize()
    return time.perf_counter() - start
