"""Recomputation: a training step keeps less in memory, and computes some of its parts a second time.

A part of a model calls :func:`recomputed` for what it computes. Inside a ``with recompute(...)`` block that names the
part, only the inputs are kept for the gradient, and the rest is computed again when the gradient needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
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
    """What a training step recomputes."""

    parts: Collection[Part] = ()
    texts: int | None = (
        None  # texts that attend to the images at a time; None: all. Used if "interaction" is recomputed
    )


NOTHING = Recomputation()
_current: ContextVar[Recomputation] = ContextVar("czslkit_recomputation", default=NOTHING)


@contextmanager
def recompute(recomputation: Recomputation) -> Iterator[None]:
    """Recompute parts of what is computed in the ``with`` block; numbers do not change."""
    token = _current.set(recomputation)
    try:
        yield
    finally:
        _current.reset(token)


def recomputed(part: Part, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return ``function(*inputs)``; where ``part`` is recomputed, keep only ``inputs`` for its gradient.

    The function draws the same random numbers when it is called again. It must not change buffers, such as the running
    statistics of batch normalisation.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with recompute(Recomputation(["image"])):
    ...     recomputed("image", lambda x: x.exp().sin(), x).sum().backward()
    >>> x.grad.allclose(torch.tensor(1.0).exp().cos() * torch.tensor(1.0).exp())
    True
    """
    if part in _current.get().parts and torch.is_grad_enabled():
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
    current = _current.get()
    if "interaction" not in current.parts or not torch.is_grad_enabled():
        return function(texts, *inputs)
    parts = texts.split(current.texts or texts.shape[-2], -2)
    return torch.cat([recomputed("interaction", function, part, *inputs) for part in parts], -2)
