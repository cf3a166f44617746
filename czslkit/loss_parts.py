"""The parts of a training loss, which a method or a head reports by name while it computes their sum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_current: ContextVar[dict[str, Tensor] | None] = ContextVar("czslkit_loss_parts", default=None)


def report(name: str, value: Tensor) -> Tensor:
    """Report a part of the training loss, and return it unchanged.

    The history of the training, its log and the loggers of ``czslkit bench --log`` then have its mean as
    ``loss/NAME``. No number changes, and a device is not waited for: the value is read together with the loss. Parts
    with the same name in one loss are added up. Report the same names for every batch, and each part with its weight,
    so that the parts add up to the loss. Outside of a training step nothing happens.

    Args:
        name: name of the part, such as ``attr``.
        value: the part, a scalar.

    >>> import torch
    >>> with reported() as parts:
    ...     loss = report("pair", torch.tensor(2.0)) + report("attr", torch.tensor(0.5))
    >>> loss.item(), {name: part.item() for name, part in parts.items()}
    (2.5, {'pair': 2.0, 'attr': 0.5})
    """
    parts = _current.get()
    if parts is not None:
        part = value.detach()
        parts[name] = parts[name] + part if name in parts else part
    return value


@contextmanager
def reported() -> Iterator[dict[str, Tensor]]:
    """Collect the parts of a loss that are reported within the ``with`` block, by name and without gradient."""
    parts: dict[str, Tensor] = {}
    token = _current.set(parts)
    try:
        yield parts
    finally:
        _current.reset(token)
