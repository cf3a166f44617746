"""Recomputation: a training step keeps less in memory, and computes some of its parts a second time.

A part of a model calls :func:`recomputed` for what it computes. Inside a ``with recompute(...)`` block that names the
part, only the inputs are kept for the gradient, and the rest is computed again when the gradient needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .shares import same_rows

#: The parts that can be recomputed: blocks of the text tower, attention of texts to images, blocks of the image tower.
Part = Literal["text", "interaction", "image"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Recomputation:
    """What a training step recomputes: the share of each part, from 0 to 1."""

    text: float = 0.0
    interaction: float = 0.0
    image: float = 0.0
    texts: int | None = None  # texts that attend to the images at a time; None: all. Used if interaction is recomputed

    def __str__(self) -> str:
        """Return what is recomputed in words.

        >>> str(Recomputation(text=1, interaction=1, image=0.25, texts=256)), str(Recomputation())
        ('text, interaction of 256 texts at a time, 25% of image', 'nothing')
        """
        words = []
        for part in PARTS:
            if share := getattr(self, part):
                at_a_time = f" of {self.texts} texts at a time" if part == "interaction" and self.texts else ""
                words.append(f"{'' if share == 1 else f'{share:.0%} of '}{part}{at_a_time}")
        return ", ".join(words) or "nothing"

    def record(self) -> dict[str, float]:
        """Return what is recomputed as numbers by name; empty if nothing is.

        >>> Recomputation(text=1, interaction=0.5, texts=256).record()
        {'recomputed/text': 1, 'recomputed/interaction': 0.5, 'recomputed/texts_at_a_time': 256}
        """
        found = {f"recomputed/{part}": getattr(self, part) for part in PARTS if getattr(self, part)}
        return found | ({"recomputed/texts_at_a_time": self.texts} if self.interaction and self.texts else {})


NOTHING = Recomputation()


class _Block:
    """A ``with recompute(...)`` block, which counts how often each part was computed in it."""

    def __init__(self, how: Recomputation) -> None:
        self.how = how
        self.calls = dict.fromkeys(PARTS, 0)

    def recomputes_next(self, part: Part) -> bool:
        """Return whether the next call of a part is recomputed; the recomputed calls are spread evenly."""
        share, calls = getattr(self.how, part), self.calls[part]
        if share in (0, 1):
            return bool(share)  # not counted, since a compiled step would be compiled again for every number
        self.calls[part] += 1
        return int((calls + 1) * share) > int(calls * share)


_current: ContextVar[_Block | None] = ContextVar("czslkit_recomputation", default=None)


@contextmanager
def recompute(recomputation: Recomputation) -> Iterator[None]:
    """Recompute parts of what is computed in the ``with`` block, which is the loss and the gradient of one batch.

    The numbers are those of a plain step within rounding, except that dropout draws other random numbers for an
    interaction of some texts at a time.
    """
    token = _current.set(_Block(recomputation))
    try:
        yield
    finally:
        _current.reset(token)


def recomputed(part: Part, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return ``function(*inputs)``; where ``part`` is recomputed, keep only ``inputs`` for its gradient.

    The function draws the same random numbers when it is called again. It must not change buffers, such as the running
    statistics of batch normalisation.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with recompute(Recomputation(image=1)):
    ...     recomputed("image", lambda x: x.exp().sin(), x).sum().backward()
    >>> x.grad.allclose(torch.tensor(1.0).exp().cos() * torch.tensor(1.0).exp())
    True
    """
    block = _current.get()
    if block and torch.is_grad_enabled() and block.recomputes_next(part):
        found: Tensor = checkpoint(same_rows(function), *inputs, use_reentrant=False)
        return found
    return function(*inputs)


def recomputed_texts(function: Callable[..., Tensor], texts: Tensor, *inputs: Tensor) -> Tensor:
    """Return ``function(texts, *inputs)`` for an interaction in which texts do not attend to each other.

    Where the interaction is recomputed, the function is called for a part of the texts at a time.

    Args:
        function: returns ``[B, n, D]`` for ``n`` texts.
        texts: ``[N, D]`` or ``[B, N, D]``.
        inputs: other tensors, equal in every call.
    """
    block = _current.get()
    if not block or not block.how.interaction or not torch.is_grad_enabled():
        return function(texts, *inputs)
    parts = texts.split(block.how.texts or texts.shape[-2], -2)
    return torch.cat([recomputed("interaction", function, part, *inputs) for part in parts], -2)
