"""Forecasts of the time and memory of evaluations, measured with a few images and pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.batches import Feed
from ..evaluation.evaluator import Evaluation
from ..evaluation.memory_budget import IMAGES, Chunks, Costs
from ..method import Method, finite_scores
from ..metrics.sweep import Sweep
from ..precision import computing_in
from ..sizes import format_bytes, format_duration

NEEDS_NO_WARM_UP = 2.0  # seconds of a call whose first one is not much slower than the next ones
MIN_SECONDS = 0.25  # a measurement uses more items until it takes this long


@dataclass(frozen=True)
class Forecast:
    """The expected size, memory and time of an evaluation."""

    images: int
    pairs: tuple[int, ...]  # number of pairs to score in each world
    chunks: Chunks
    bytes: int | None  # largest memory, without the weights of the method; None if it was not measured
    seconds: float | None

    def __str__(self) -> str:
        pairs = " + ".join(f"{n:,}" for n in self.pairs)
        if self.bytes is None or self.seconds is None:
            return f"{self.images:,} images x {pairs} pairs, one image at a time: not measured, since scoring adapts"
        chunk = f"{self.chunks.images:,} x {self.chunks.pairs:,} at a time"
        takes = f"{format_duration(self.seconds)}, {format_bytes(self.bytes)}"
        return f"{self.images:,} images x {pairs} pairs, {chunk}: {takes}"


@torch.no_grad()
def evaluation(planned: Evaluation) -> Forecast:
    """Return the forecast of an evaluation; each part of it is measured for a fraction of a second.

    Args:
        planned: the evaluation; its method is left in evaluation mode. Nothing is measured if it adapts.
    """
    method, feed, chunks = planned.method, planned.feed, planned.chunks
    images, pairs = len(feed.split), tuple(len(task.pairs) for task in planned.tasks.values())
    if planned.streams:
        return Forecast(images, pairs, chunks, None, None)
    with computing_in(feed.precision, method.device):
        costs = Costs(method.eval(), feed, planned.tasks)
        sample, passes = costs.text.pairs, -(-sum(pairs) // chunks.texts)
        one_text, all_texts = (
            measured_seconds(lambda n: method.text_in(costs.setting.world, sample[:n]), n, method.device)
            for n in (1, len(sample))
        )
        per_text = max(all_texts - one_text, 0) / max(len(sample) - 1, 1)  # seconds
        per_image = 0.0 if feed.has_features else encoding_seconds(method, feed, chunks.images)
        per_score = _scoring_seconds(method, costs, chunks, [task.sweep() for task in planned.tasks.values()])
        total = costs.total(chunks.texts, chunks.images, chunks.pairs)
    per_image *= 1 if feed.caches_features else passes
    seconds = images * (per_image + sum(pairs) * per_score) + sum(pairs) * per_text
    return Forecast(images, pairs, chunks, total, seconds)


def encoding_seconds(method: Method, feed: Feed, images: int) -> float:
    """Return the seconds per image for reading and encoding ``images`` images."""
    pixels = feed.sample(images).images
    assert isinstance(pixels, Tensor)
    reading = reading_seconds(feed, images)
    encoding = _seconds_per_item(lambda n: method.encode(pixels[:n]), len(pixels), method.device)
    return max(reading, encoding) if feed.workers else reading + encoding


def reading_seconds(feed: Feed, images: int) -> float:
    """Return the seconds per image for reading ``images`` images; the processes share the work."""
    return _seconds_per_item(feed.sample, images, feed.method.device) / max(feed.workers, 1)


def _scoring_seconds(method: Method, costs: Costs, chunks: Chunks, sweeps: list[Sweep]) -> float:
    """Return the seconds per image and pair for scores and for a sweep like the largest of ``sweeps``."""
    largest = max(sweeps, key=lambda sweep: len(sweep.candidates))
    text, images = costs.sample_texts(chunks.pairs), costs.sample_images(min(chunks.images, IMAGES))
    columns = torch.arange(chunks.pairs)
    thresholds = None if largest.candidates.thresholds is None else largest.candidates.thresholds.tolist()
    spread = torch.linspace(min(thresholds), max(thresholds), chunks.pairs) if thresholds else None
    sweep = Sweep(torch.stack((columns, columns), 1), columns == 0, None, spread, thresholds, keep=largest.keep)

    def score(n: int) -> None:
        zeros = torch.zeros(n, dtype=torch.long)
        scores = finite_scores(method, method.rank(images.take(n), text, costs.setting))
        sweep.update(scores, zeros, zeros)

    return _seconds_per_item(score, len(images.pooled), method.device) / chunks.pairs


def _seconds_per_item(work: Callable[[int], Any], max_items: int, device: torch.device) -> float:
    """Return the seconds per item; ``work(n)`` processes ``n`` items, at most ``max_items``."""
    n = 1
    while (taken := measured_seconds(work, n, device)) < MIN_SECONDS and n < max_items:
        n = min(4 * n, max_items)
    return taken / n


def measured_seconds(work: Callable[[int], Any], n: int, device: torch.device) -> float:
    """Return the seconds of the second call of ``work(n)``; the first call is a warm-up, unless it takes long."""
    taken = 0.0
    for _ in range(2):
        if taken > NEEDS_NO_WARM_UP:
            break
        start = time.perf_counter()
        work(n)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        taken = time.perf_counter() - start
    return taken
