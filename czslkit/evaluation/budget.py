"""How many images and pairs an evaluation scores at a time, so that it stays within a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batches import Feed
from ..errors import ConfigError
from ..method import Method
from ..metrics.sweep import Sweep
from ..sizes import format_bytes
from ..types import ImageFeatures, Setting, TextFeatures
from .memory import Footprint

#: Pairs whose texts are made to see what texts take.
SAMPLE = 512
#: Share of the budget that the texts of candidates may take. Where that is too little for all of them, the images are
#: passed over once for every part of them.
KEPT = 0.5
#: What is worth having at a time, in the order it is made room for: something is done anew for every chunk of pairs,
#: such as the reading of attributes and objects, and few images are slow to encode. More of either gains little.
PAIRS, IMAGES, MOST_PAIRS = 2048, 8, 16384


@dataclass(frozen=True)
class Chunks:
    """How much is worked on at a time."""

    images: int
    pairs: int
    kept: int  # pairs whose texts are there at a time, for one pass over the images


class Costs:
    """Bytes that the parts of an evaluation take, measured with a few images and pairs.

    Args:
        method: in evaluation mode.
        feed: of the same method, and the split to be scored.
        pairs: that will be scored in each world, ``[k, 2]``.
        setting: where scores are to be compared.
        sweeps: that will take the scores of each world.
    """

    def __init__(
        self, method: Method, feed: Feed, pairs: Mapping[str, Tensor], setting: Setting, sweeps: Mapping[str, Sweep]
    ) -> None:
        self.method, self.feed, self.setting = method, feed, setting
        self.sizes = {world: len(of) for world, of in pairs.items()}
        self._sweeps = sweeps
        every = torch.cat(list(pairs.values()))
        spread = torch.linspace(0, len(every) - 1, min(SAMPLE, len(every))).long()  # words differ in length
        self._sample = every[spread].to(method.device)
        with torch.no_grad(), Footprint() as footprint:
            self.text = method.text(self._sample)
        self.reading = footprint.peak  # while texts are made, beside those that are there already
        shared = _size(self.text.rows(slice(0)))  # of the texts of attributes and objects
        self._shared = len(pairs) * shared
        self._each = (_size(self.text) - shared) / len(self._sample)  # of the text of one pair

    def texts(self, pairs: int) -> int:
        """Of the texts of so many pairs."""
        return self._shared + round(pairs * self._each)

    def affordable(self, texts: float) -> int:
        """How many pairs have texts of no more than so many bytes."""
        return max(int((texts - self._shared) // max(self._each, 1)), 1)

    def remembered(self, pairs: int) -> int:
        """Of features and sweeps, which grow with the images, where so many pairs are scored at a time."""
        images = len(self.feed.split)
        chunks = {world: -(-size // pairs) for world, size in self.sizes.items()}
        return self.feed.feature_bytes + sum(sweep.footprint(images, chunks[w]) for w, sweep in self._sweeps.items())

    def scoring(self, images: int, pairs: int) -> int:
        """Of what is made while so many images are scored against so many pairs, at the most."""
        text = self.some_texts(pairs)
        with torch.no_grad(), Footprint() as footprint:
            pixels = None if self.feed.has_features else self._black(images)  # a batch has them as long as it lasts
            self.method.rank(self.some_images(images, pixels), text, self.setting)
        return footprint.peak + self.feed.prefetch_bytes(images)

    def needed(self, kept: int, images: int, pairs: int) -> int:
        """Of everything, with the texts of so many pairs kept and so many images and pairs scored at a time."""
        return self.texts(kept) + self.remembered(pairs) + max(self.scoring(images, pairs), self.reading)

    def some_texts(self, pairs: int) -> TextFeatures:
        """Texts of the size of so many pairs: the same ones over and over."""
        return self.text.rows(torch.arange(pairs, device=self.method.device) % len(self._sample))

    def some_images(self, images: int, pixels: Tensor | None = None) -> ImageFeatures:
        """Features of so many black images, encoded if those of the split still have to be."""
        if self.feed.has_features:
            return ImageFeatures(torch.zeros(images, self.method.backbone.dim, device=self.method.device))
        return self.method.encode(self._black(images) if pixels is None else pixels)

    def _black(self, images: int) -> Tensor:
        side = self.method.backbone.image_size
        return torch.zeros(images, 3, side, side, device=self.method.device)


def fit_chunks(costs: Costs, memory: int) -> Chunks:
    """Chunks that take no more than ``memory`` bytes, the method's own weights aside.

    A method that is not ``chunkable`` gets all pairs of a world at a time, one that is not ``independent`` whole
    batches.

    Raises:
        ConfigError: not even the smallest chunks do; says what takes how much.
    """
    method, largest = costs.method, max(costs.sizes.values())
    kept, batch = sum(costs.sizes.values()), min(costs.feed.batch_size, len(costs.feed.split))
    if costs.texts(kept) > (share := KEPT * (memory - costs.remembered(largest))):
        kept = costs.affordable(share) if method.chunkable else largest
    goal = min(kept, largest)
    size = [1 if method.independent else batch, min(goal, SAMPLE) if method.chunkable else goal]

    def grow(axis: int, goal: int) -> None:
        """Up to ``goal`` images (axis 0) or pairs (1): n times as many mostly take at most n times the bytes."""
        while size[axis] < goal:
            room = memory - costs.texts(kept) - costs.remembered(size[1])
            times = min(room // max(costs.scoring(*size), 1), -(-goal // size[axis]))
            fitting = (larger for larger in _larger(size, axis, goal, times) if costs.needed(kept, *larger) <= memory)
            if not (found := next(fitting, [])):
                return
            size[:] = found

    if costs.texts(kept) + costs.remembered(size[1]) + costs.reading > memory:
        raise _too_little(costs, memory, kept, size[1])
    while costs.needed(kept, *size) > memory:
        if size[1] == 1 or not method.chunkable:
            raise _too_little(costs, memory, kept, size[1], size[0])
        size[1] //= 2
    grow(1, min(PAIRS, goal))
    grow(0, min(IMAGES, batch))
    grow(1, min(MOST_PAIRS, goal))
    grow(0, batch)
    return Chunks(size[0], size[1], kept)


def _larger(size: list[int], axis: int, goal: int, times: int) -> Iterator[list[int]]:
    """Sizes that have up to so many times as much along an axis, but not more than ``goal``; the largest first."""
    while times > 1:
        larger = [*size]
        larger[axis] = min(times * size[axis], goal)
        yield larger
        times //= 2


def _too_little(costs: Costs, memory: int, kept: int, pairs: int, images: int = 0) -> ConfigError:
    """The error that says what takes how much: to make texts, or to score so many images."""
    working = costs.scoring(images, pairs) if images else costs.reading
    parts = {
        f"for the texts of {kept:,} pairs": costs.texts(kept),
        "to remember what was scored": costs.remembered(pairs),
        f"to score {images:,} x {pairs:,} images x pairs at a time" if images else "to make texts": working,
    }
    said = ", ".join(f"{format_bytes(size)} {what}" for what, size in parts.items())
    return ConfigError(
        [f"memory is {format_bytes(memory)}, but {format_bytes(sum(parts.values()))} are needed: {said}"]
    )


def _size(features: TextFeatures) -> int:
    return sum(value.nbytes for value in vars(features).values() if isinstance(value, Tensor))
