"""What training and evaluation are going to take, from a few images and pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..data.batches import Feed
from ..data.splits import Splits
from ..evaluation.budget import IMAGES, Chunks, Costs, fit_chunks
from ..evaluation.evaluator import Task
from ..method import Method
from ..metrics.sweep import Sweep
from ..sizes import MEMORY, format_bytes, format_duration
from ..training.loop import TrainOptions

ENOUGH = 0.25  # seconds after which one measurement is long enough


@dataclass(frozen=True)
class Forecast:
    """What an evaluation is going to take."""

    images: int
    pairs: tuple[int, ...]  # to be scored in each world
    chunks: Chunks
    bytes: int  # at the most; the method's own weights do not count
    seconds: float

    def __str__(self) -> str:
        pairs = " + ".join(f"{n:,}" for n in self.pairs)
        at_a_time = f"{self.chunks.images:,} x {self.chunks.pairs:,} at a time"
        takes = f"{format_duration(self.seconds)}, {format_bytes(self.bytes)}"
        return f"{self.images:,} images x {pairs} pairs, {at_a_time}: {takes}"


@torch.no_grad()
def evaluation(method: Method, feed: Feed, task: Task, memory: int = MEMORY) -> Forecast:
    """What scoring the images of ``feed`` for ``task`` takes; each part is measured for a fraction of a second.

    Args:
        method: left in evaluation mode.
        memory: bytes that the evaluation may take.

    Raises:
        ConfigError: ``memory`` is too little.
    """
    costs = task.costs(method, feed)
    chunks = fit_chunks(costs, memory)
    images, pairs = len(feed.split), tuple(map(len, task.columns.values()))
    sample, passes = costs.text.pairs, -(-sum(pairs) // chunks.kept)
    alone, together = (_seconds(lambda n: method.text(sample[:n]), n, method.device) for n in (1, len(sample)))
    text = max(together - alone, 0) / max(len(sample) - 1, 1)
    image = 0.0 if feed.has_features else _encoding(method, feed, chunks.images)
    score = _scoring(method, costs, chunks, max(task.sweeps.values(), key=lambda sweep: len(sweep.candidates)))
    seconds = images * (image * (1 if feed.caches_features else passes) + sum(pairs) * score) + sum(pairs) * text
    return Forecast(images, pairs, chunks, costs.needed(chunks.kept, chunks.images, chunks.pairs), seconds)


def training(method: Method, data: Splits, options: TrainOptions, validation: Forecast, workers: int = 0) -> float:
    """Seconds that a training takes, from one step of it and the forecast of a validation.

    Args:
        method: not to be used afterwards: a step may have changed statistics of it.
        validation: in the closed world, at the end of every epoch.
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
    """Seconds that an image takes, until there are features of it."""
    pixels = feed.first_images(images).images
    assert isinstance(pixels, Tensor)
    reading, each = _reading(feed, images), _each(lambda n: method.encode(pixels[:n]), len(pixels), method.device)
    return max(reading, each) if feed.workers else reading + each


def _reading(feed: Feed, images: int) -> float:
    """Seconds that an image takes to be read; workers share it."""
    return _each(feed.first_images, images, feed.method.device) / max(feed.workers, 1)


def _scoring(method: Method, costs: Costs, chunks: Chunks, like: Sweep) -> float:
    """Seconds that an image and a pair take, until the score is in a sweep as ``like``."""
    text, images = costs.some_texts(chunks.pairs), costs.some_images(min(chunks.images, IMAGES))
    columns = torch.arange(chunks.pairs)
    thresholds = None if like.candidates.thresholds is None else like.candidates.thresholds.tolist()
    spread = torch.linspace(min(thresholds), max(thresholds), chunks.pairs) if thresholds else None
    sweep = Sweep(torch.stack((columns, columns), 1), columns == 0, None, spread, thresholds, keep=like.keep)

    def score(n: int) -> None:
        zeros = torch.zeros(n, dtype=torch.long)
        sweep.update(method.rank(images.first(n), text, costs.setting).float().cpu(), zeros, zeros)

    return _each(score, len(images.pooled), method.device) / chunks.pairs


def _each(do: Callable[[int], Any], most: int, device: torch.device) -> float:
    """Seconds for each of some items, of which there are at most so many at a time."""
    n = 1
    while (taken := _seconds(do, n, device)) < ENOUGH and n < most:
        n = min(4 * n, most)
    return taken / n


def _seconds(do: Callable[[int], Any], n: int, device: torch.device) -> float:
    """Of ``do(n)`` once it is warm."""
    for _ in range(2):
        start = time.perf_counter()
        do(n)
        if device.type != "cpu":
            torch.accelerator.synchronize()
    return time.perf_counter() - start
