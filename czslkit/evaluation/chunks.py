"""How many images and pairs an evaluation scores at a time, so that it stays within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..feed import Feed
from ..memory import Footprint
from ..method import Method
from ..sizes import told
from ..types import ImageFeatures, Setting, TextFeatures
from .sweep import Sweep

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
        pairs: that will be scored, of all worlds, ``[P, 2]``.
        setting: where scores are to be compared.
        sweeps: that will take the scores.
    """

    def __init__(
        self, method: Method, feed: Feed, pairs: Tensor, setting: Setting, sweeps: Sequence[Sweep] = ()
    ) -> None:
        self.method, self.feed, self.setting, self.pairs = method, feed, setting, len(pairs)
        self._sample = pairs[:SAMPLE].to(method.device)
        with torch.no_grad(), Footprint() as footprint:
            self.text = method.text(self._sample)
        self._reading = footprint.peak
        self._shared = _size(self.text.rows(slice(0)))  # of the texts of attributes and objects
        self._each = (_size(self.text) - self._shared) / len(self._sample)  # of the text of one pair
        self.always = feed.kept_bytes + sum(sweep.footprint(len(feed.split)) for sweep in sweeps)

    def texts(self, pairs: int) -> int:
        """Of the texts of so many pairs."""
        return self._shared + round(pairs * self._each)

    def scoring(self, images: int, pairs: int) -> int:
        """Of what is made while so many images are scored against so many pairs, at the most."""
        text = self.some_texts(pairs)
        with torch.no_grad(), Footprint() as footprint:
            self.method.rank(self.some_images(images), text, self.setting)
        return max(footprint.peak, self._reading)

    def some_texts(self, pairs: int) -> TextFeatures:
        """Texts of the size of so many pairs: the same ones over and over."""
        return self.text.rows(torch.arange(pairs, device=self.method.device) % len(self._sample))

    def some_images(self, images: int) -> ImageFeatures:
        """Features of so many black images, encoded if those of the split still have to be."""
        backbone, device = self.method.backbone, self.method.device
        if self.feed.encoded:
            return ImageFeatures(torch.zeros(images, backbone.dim, device=device))
        return self.method.encode(torch.zeros(images, 3, backbone.image_size, backbone.image_size, device=device))


def fit(costs: Costs, memory: int) -> Chunks:
    """Chunks that take no more than ``memory`` bytes, the method's own weights aside.

    A method that is not ``chunkable`` gets all pairs at a time, one that is not ``independent`` whole batches.

    Raises:
        ConfigError: not even the smallest chunks do.
    """
    method, batch = costs.method, costs.feed.batch_size
    kept, room = costs.pairs, memory - costs.always
    if method.chunkable and costs.texts(kept) > KEPT * room:
        each = costs.texts(1) - costs.texts(0)
        kept = max(int((KEPT * room - costs.texts(0)) // each), 1)
    pairs, room = kept, room - costs.texts(kept)
    size = _Size(costs, room, [1 if method.independent else batch, min(pairs, SAMPLE) if method.chunkable else pairs])
    while size.taken > room and method.chunkable and size.at_a_time[1] > 1:
        size = _Size(costs, room, [size.at_a_time[0], size.at_a_time[1] // 2])
    if size.taken > room:
        least = " against ".join(
            f"{n:,} {what}" + "s" * (n != 1) for n, what in zip(size.at_a_time, ("image", "pair"), strict=True)
        )
        needed = told(memory - room + size.taken)
        raise ConfigError([f"memory is {told(memory)}, but {needed} are needed to score {least} at a time"])
    if method.chunkable:
        size.grow(1, min(PAIRS, pairs))
    size.grow(0, min(IMAGES, batch))
    if method.chunkable:
        size.grow(1, min(MOST_PAIRS, pairs))
    size.grow(0, batch)
    images, pairs = size.at_a_time
    return Chunks(images, pairs, kept)


@dataclass
class _Size:
    """Images and pairs at a time, which take no more than ``room`` bytes once they did so at first."""

    costs: Costs
    room: int
    at_a_time: list[int]

    def __post_init__(self) -> None:
        self.taken = self.costs.scoring(*self.at_a_time)  # at the most
        self._measured = True

    def grow(self, axis: int, goal: int) -> None:
        """Up to ``goal`` images (axis 0) or pairs (1) at a time: n times as many take at most n times the bytes."""
        while self.at_a_time[axis] < goal:
            times = min(self.room // max(self.taken, 1), -(-goal // self.at_a_time[axis]))
            if times > 1:
                self.at_a_time[axis] = min(times * self.at_a_time[axis], goal)
                self.taken, self._measured = times * self.taken, False
            elif not self._measured:  # it may be much less
                self.taken, self._measured = self.costs.scoring(*self.at_a_time), True
            else:
                return


def _size(features: TextFeatures) -> int:
    return sum(value.nbytes for value in vars(features).values() if isinstance(value, Tensor))
