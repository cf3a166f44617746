"""The losses of an epoch: their parts, their means, and the check that they are finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import TrainingError
from ..method import Method
from ..training_hooks import TrainingPosition

#: Number of batches whose losses stay on a device that has to be waited for, before they are read together.
UNREAD_BATCHES = 50


@dataclass(frozen=True)
class _Unread:
    """The losses of a batch, on the device."""

    values: Mapping[str, Tensor]
    images: int
    position: TrainingPosition
    lr: float


@dataclass
class MeanLosses:
    """The mean of a loss and its parts over the images of an epoch.

    Args:
        every: number of batches after which their losses are read from the device.
    """

    every: int = 1
    images: int = 0  # whose losses were read
    totals: dict[str, float] = field(default_factory=dict)
    unread: list[_Unread] = field(default_factory=list)
    told: dict[str, float] = field(default_factory=dict)  # totals and images at the last call of ``recent``

    def add(self, values: Mapping[str, Tensor], images: int, position: TrainingPosition, lr: float) -> None:
        """Add the mean losses of a batch, which are read now or later.

        Raises:
            TrainingError: a loss was read that is not finite.
        """
        kept = {name: value.detach().clone().reshape(()) for name, value in values.items()}
        self.unread.append(_Unread(kept, images, position, lr))
        if len(self.unread) >= self.every:
            self.read()

    def read(self) -> None:
        """Read the losses that are on the device.

        Raises:
            TrainingError: one of them is not finite; the message names epoch and step of the first.
        """
        unread, self.unread = self.unread, []
        read = {
            name: iter(torch.stack([batch.values[name] for batch in unread if name in batch.values]).tolist())
            for name in dict.fromkeys(name for batch in unread for name in batch.values)
        }
        for batch in unread:
            values = {name: next(read[name]) for name in batch.values}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the {name.replace('loss/', 'part of the loss ')} is {value} at epoch "
                        f"{batch.position.epoch + 1}, step {batch.position.step + 1} of {batch.position.steps}; "
                        f"the learning rate was {batch.lr:g}"
                    )
            self.images += batch.images
            for name, value in values.items():
                self.totals[name] = self.totals.get(name, 0.0) + value * batch.images

    @contextmanager
    def all_read(self) -> Iterator[None]:
        """Read what is unread at the end of the ``with`` block.

        Raises:
            TrainingError: a loss is not finite; also in place of an error in the block, which may follow from it.
        """
        try:
            yield
        except Exception:
            self.read()
            raise
        self.read()

    def note(self) -> str:
        """Return the mean loss for a line of progress, empty before a loss was read."""
        return f"loss {self.totals['loss'] / self.images:.3f}" if self.images else ""

    def recent(self) -> tuple[dict[str, float], int]:
        """Return the mean of every value over the images that were read since the last call, and their number."""
        before, self.told = self.told, {**self.totals, "": self.images}
        images = self.images - int(before.get("", 0))
        return {name: (total - before.get(name, 0.0)) / images for name, total in self.totals.items() if images}, images

    def means(self) -> dict[str, float]:
        """Return the mean of every value over the images so far."""
        return {name: total / self.images for name, total in self.totals.items()}


def loss_parts(
    method: Method, loss: Tensor | Mapping[str, Tensor], reported: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return a loss as ``loss``, with each of its named parts as ``loss/NAME``.

    Args:
        loss: the loss, or its parts, which are added up.
        reported: parts of a single loss that :func:`czslkit.loss_parts.report` was called with.

    Raises:
        TrainingError: the method returned something else than a scalar, or several scalars by name, or reported
            something else than a scalar.

    >>> method = type("Mine", (), {})()
    >>> {name: value.item() for name, value in loss_parts(method, {"a": torch.tensor(1), "b": torch.tensor(2)}).items()}
    {'loss': 3, 'loss/a': 1, 'loss/b': 2}
    """
    parts = loss if isinstance(loss, Mapping) else {"": loss}
    wrong = [value for value in parts.values() if not (isinstance(value, Tensor) and value.numel() == 1)]
    if wrong or not parts:
        found = f"shape {list(wrong[0].shape)}" if wrong and isinstance(wrong[0], Tensor) else repr(loss)
        raise TrainingError(
            f"the loss of {type(method).__name__} is {found}, expected a tensor with one number, or a dict of them"
        )
    for name, part in (reported or {}).items():
        if part.numel() != 1:
            raise TrainingError(
                f"{type(method).__name__} reports the part {name!r} of its loss with shape {list(part.shape)}, "
                "expected a tensor with one number"
            )
    total = torch.stack([*loss.values()]).sum() if isinstance(loss, Mapping) else loss
    named = {**(reported or {}), **(loss if isinstance(loss, Mapping) else {})}
    return {"loss": total} | {f"loss/{name}": value for name, value in named.items()}
