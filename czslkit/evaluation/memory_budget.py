"""The number of images and pairs that are scored at a time, chosen so that an evaluation fits into a given memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batches import Feed
from ..errors import ConfigError
from ..footprint import Footprint
from ..method import Method
from ..metrics.sweep import Sweep
from ..sizes import format_bytes
from ..types import ImageFeatures, Setting, TextFeatures

#: Number of pairs whose texts are encoded to measure the memory of texts.
SAMPLE = 512
#: Share of a given memory that is planned; the rest is for small tensors that are not counted.
COUNTED = 0.99
_COLUMN_BYTES = 32  # of the numbers of a pair's column in a chunk
#: Largest share of the memory for the texts of candidates. If the texts of all candidates need more, the evaluation
#: passes over the images several times, each time with another part of the texts.
TEXT_SHARE = 0.5
#: Targets for one chunk, in the order in which memory is given to them. Every chunk of pairs repeats some work, such as
#: the scores of attributes and objects, and a few images at a time are slow to encode. Larger chunks gain little.
PAIRS, IMAGES, MOST_PAIRS = 2048, 8, 16384


@dataclass(frozen=True, eq=False)
class WorldTask:
    """The pairs of one world that a method has to score, and the sweep that takes the scores."""

    sweep: Callable[[], Sweep]  # returns an empty sweep of this world
    columns: Tensor  # [k], rows of the world's pairs that are scored
    pairs: Tensor  # [k, 2] long, attribute and object of each of these rows
    setting: Setting


@dataclass(frozen=True)
class Chunks:
    """The numbers of images and pairs that are processed at a time."""

    images: int  # images per chunk of scores
    pairs: int  # pairs per chunk of scores
    texts: int  # pairs whose texts are in memory during one pass over the images


class Costs:
    """The memory in bytes of each part of an evaluation, measured with a few images and pairs.

    Args:
        method: the method in evaluation mode.
        feed: batches of the split that will be scored, for the same method.
        tasks: the pairs that will be scored, by world.
    """

    def __init__(self, method: Method, feed: Feed, tasks: Mapping[str, WorldTask]) -> None:
        self.method, self.feed = method, feed
        self.setting = next(iter(tasks.values())).setting
        self.counts = {world: len(task.pairs) for world, task in tasks.items()}
        self._sweeps = {world: task.sweep() for world, task in tasks.items()}
        pairs = torch.cat([task.pairs for task in tasks.values()])
        spread = torch.linspace(0, len(pairs) - 1, min(SAMPLE, len(pairs))).long()  # words differ in length
        self._sample = pairs[spread].to(method.device)
        differ = (
            type(method).text_in is not Method.text_in
        )  # the texts of one world may take more than those of another
        with torch.no_grad(), Footprint() as footprint:
            for world in list(tasks)[:: 1 if differ else len(tasks)]:
                self.text = method.text_in(world, self._sample)
        self.text_peak = footprint.peak  # bytes while texts are encoded, in addition to text_bytes
        shared = _bytes_of_tensors(self.text.rows(slice(0)))  # attributes and objects
        self._shared = len(tasks) * shared
        self._per_pair = _COLUMN_BYTES + (_bytes_of_tensors(self.text) - shared) / len(self._sample)

    def text_bytes(self, pairs: int) -> int:
        """Return the bytes of the text features of ``pairs`` pairs."""
        return self._shared + round(pairs * self._per_pair)

    def texts_that_fit(self, memory: float) -> int:
        """Return the number of pairs whose text features fit into ``memory`` bytes, at least 1."""
        return max(int((memory - self._shared) // max(self._per_pair, 1)), 1)

    def image_bytes(self, pairs: int) -> int:
        """Return the bytes of cached features and sweep state when ``pairs`` pairs are scored per chunk."""
        images = len(self.feed.split)
        chunks = {world: -(-count // pairs) for world, count in self.counts.items()}
        return self.feed.feature_bytes + sum(sweep.footprint(images, chunks[w]) for w, sweep in self._sweeps.items())

    def scoring(self, images: int, pairs: int) -> int:
        """Return the largest number of bytes that scoring one chunk of ``images`` x ``pairs`` takes."""
        text = self.sample_texts(pairs)
        with torch.no_grad(), Footprint() as footprint:
            # The pixels of a batch stay in memory while the batch is scored.
            pixels = None if self.feed.has_features else self._black_images(images)
            self.method.rank(self.sample_images(images, pixels), text, self.setting)
        return footprint.peak + self.feed.prefetch_bytes(images)

    def total(self, texts: int, images: int, pairs: int) -> int:
        """Return the bytes of the whole evaluation with these :class:`Chunks`."""
        return self.text_bytes(texts) + self.image_bytes(pairs) + max(self.scoring(images, pairs), self.text_peak)

    def sample_texts(self, pairs: int) -> TextFeatures:
        """Return text features of ``pairs`` pairs, by repeating the text features of the sample."""
        return self.text.rows(torch.arange(pairs, device=self.method.device) % len(self._sample))

    def sample_images(self, images: int, pixels: Tensor | None = None) -> ImageFeatures:
        """Return features of ``images`` black images, or zeros if the features of the split already exist."""
        if self.feed.has_features:
            return ImageFeatures(torch.zeros(images, self.method.backbone.dim, device=self.method.device))
        return self.method.encode(self._black_images(images) if pixels is None else pixels)

    def _black_images(self, images: int) -> Tensor:
        side = self.method.backbone.image_size
        return torch.zeros(images, 3, side, side, device=self.method.device)


def fit_chunks(costs: Costs, memory: int) -> Chunks:
    """Choose chunks that take at most ``memory`` bytes, without the weights of the method.

    A method that is not ``chunkable`` gets all pairs of a world at a time; a method that is not ``independent`` gets
    whole batches.

    Raises:
        ConfigError: even the smallest chunks take more; the message lists the memory of each part.
    """
    method, largest, given, memory = costs.method, max(costs.counts.values()), memory, int(COUNTED * memory)
    texts, batch = sum(costs.counts.values()), min(costs.feed.batch_size, len(costs.feed.split))
    if costs.text_bytes(texts) > (share := TEXT_SHARE * (memory - costs.image_bytes(largest))):
        texts = costs.texts_that_fit(share) if method.chunkable else largest
    most = min(texts, largest)
    size = [1 if method.independent else batch, min(most, SAMPLE) if method.chunkable else most]  # images, pairs
    if costs.text_bytes(texts) + costs.image_bytes(size[1]) + costs.text_peak > memory:
        raise _memory_error(costs, given, texts, size[1])
    while costs.total(texts, *size) > memory:
        if size[1] == 1 or not method.chunkable:
            raise _memory_error(costs, given, texts, size[1], size[0])
        size[1] //= 2
    for axis, target in ((1, min(PAIRS, most)), (0, min(IMAGES, batch)), (1, min(MOST_PAIRS, most)), (0, batch)):
        size = _grown(costs, memory, texts, size, axis, target)
    return Chunks(size[0], size[1], texts)


def _grown(costs: Costs, memory: int, texts: int, size: list[int], axis: int, target: int) -> list[int]:
    """Return ``size`` with up to ``target`` images (axis 0) or pairs (axis 1), as many as fit into ``memory``."""
    while size[axis] < target:
        room = memory - costs.text_bytes(texts) - costs.image_bytes(size[1])
        # With n times as many images or pairs, scoring usually takes at most n times the bytes.
        times = min(room // max(costs.scoring(*size), 1), -(-target // size[axis]))
        larger = next((s for s in _larger(size, axis, target, times) if costs.total(texts, *s) <= memory), None)
        if larger is None:
            break
        size = larger
    return size


def _larger(size: list[int], axis: int, target: int, times: int) -> Iterator[list[int]]:
    """Yield sizes ``times``, ``times / 2``, ... as large along an axis, at most ``target``; the largest comes first."""
    while times > 1:
        larger = [*size]
        larger[axis] = min(times * size[axis], target)
        yield larger
        times //= 2


def _memory_error(costs: Costs, memory: int, texts: int, pairs: int, images: int = 0) -> ConfigError:
    """Return the error that lists the memory of each part; the last is scoring with ``images``, else encoding texts."""
    parts = {
        f"for the texts of {texts:,} pairs": costs.text_bytes(texts),
        "for cached features and the best scores of all images": costs.image_bytes(pairs),
    }
    if images:
        parts[f"to score {images:,} x {pairs:,} images x pairs at a time"] = costs.scoring(images, pairs)
    else:
        parts["to encode texts"] = costs.text_peak
    needs = ", ".join(f"{format_bytes(size)} {purpose}" for purpose, size in parts.items())
    whole = format_bytes(round(sum(parts.values()) / COUNTED))
    return ConfigError([f"memory is {format_bytes(memory)}, but {whole} are needed: {needs}"])


def _bytes_of_tensors(features: TextFeatures) -> int:
    return sum(value.nbytes for value in vars(features).values() if isinstance(value, Tensor))
