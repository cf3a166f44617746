"""Components of methods that learn while they score images: tables with their optimiser, and queues of images."""

from __future__ import annotations

from bisect import insort
from typing import NamedTuple

import torch
from torch import Tensor

DECAYS = 0.9, 0.999  # of AdamW's means of gradients and of their squares


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the softmax over the last axis, in nats.

    >>> entropy(torch.zeros(4)).exp()
    tensor(4.)
    """
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)


class AdamWTable:
    """A table of numbers that start at 0 and learn by AdamW; rows can be added while it learns.

    A row that is added has the state of a row that was there from the start and never had a gradient. The table takes
    three times the bytes of its values.

    Args:
        like: tensor whose shape ``[N, D]``, device and type the table has.
    """

    def __init__(self, like: Tensor) -> None:
        self.value, self.steps = torch.zeros_like(like), 0
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)

    def leaf(self) -> Tensor:
        """Return the values as a tensor to differentiate by; it shares their memory."""
        return self.value.detach().requires_grad_()

    def extend(self, rows: int) -> None:
        """Add zeros until the table has ``rows`` rows."""
        if missing := rows - len(self.value):
            new = self.value.new_zeros(missing, self.value.shape[1])
            self.value, self._mean, self._square = (
                torch.cat((table, new)) for table in (self.value, self._mean, self._square)
            )

    def step(self, gradient: Tensor, lr: float, eps: float, decay: float) -> None:
        """Move the values against a ``gradient`` ``[N, D]``; ``decay`` is decoupled from it."""
        self.steps += 1
        first, second = DECAYS
        self._mean.lerp_(gradient, 1 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = self._square.sqrt().div_((1 - second**self.steps) ** 0.5).add_(eps)
        self.value.mul_(1 - lr * decay).addcdiv_(self._mean, root, value=-lr / (1 - first**self.steps))


class Entry(NamedTuple):
    """An image in a queue."""

    entropy: float  # of its scores when it came
    number: int  # how many images came before it
    place: int  # index of its feature in its queue


class EntropyQueues:
    """For every pair that was named, the few images with the lowest entropy of those that were named so.

    Memory grows with the pairs that were named, not with the images.

    Args:
        capacity: most images in a queue.
        like: tensor ``[..., D]`` whose width, device and type the features have.
    """

    def __init__(self, capacity: int, like: Tensor) -> None:
        self.capacity, self.images = capacity, 0
        self.entries: dict[int, list[Entry]] = {}  # by pair, lowest entropy first
        self.pairs = torch.zeros(0, dtype=torch.long, device=like.device)  # [G], the pairs with a queue
        self.means = like.new_zeros(0, like.shape[-1])  # mean feature of each queue, [G, D]
        self._rows: dict[int, int] = {}  # of each pair, in the tensors
        self._features = like.new_zeros(0, capacity, like.shape[-1])

    def add(self, pair: int, entropy: float, feature: Tensor) -> None:
        """Add an image to the queue of a pair; a full queue takes it only for one with a higher entropy.

        Args:
            pair: the pair that the image was named, as a row of the candidates.
            feature: ``[D]``.
        """
        queue = self.entries.setdefault(pair, [])
        if pair not in self._rows:
            self._rows[pair] = len(self._rows)
            self.pairs = torch.cat((self.pairs, self.pairs.new_tensor([pair])))
            self.means = torch.cat((self.means, feature[None]))
            self._features = torch.cat((self._features, self._features.new_zeros(1, *self._features.shape[1:])))
        number, place = self.images, len(queue)
        self.images += 1
        if place == self.capacity:
            if entropy >= queue[-1].entropy:
                return
            place = queue.pop().place
        insort(queue, Entry(entropy, number, place))
        row = self._rows[pair]
        self._features[row, place] = feature
        self.means[row] = self._features[row, : len(queue)].mean(0)
