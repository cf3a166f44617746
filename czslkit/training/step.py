"""What a step of a training is made of: the companions of its images and the parts of its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from ..data.batches import Companions
from ..errors import TrainingError
from ..method import Method
from ..training_hooks import TrainingData, TrainingHooks


def companion_choice(method: Method, data: TrainingData, generator: Generator) -> Companions | None:
    """Return the function that chooses the companions of a batch; None if the method has no companions.

    The function raises a TrainingError if the method returns other values than indices of training images.
    """
    if type(method).companions is TrainingHooks.companions:
        return None

    def choose(index: Tensor) -> Mapping[str, Tensor]:
        chosen = method.companions(data, index, generator).items()
        where = f"{type(method).__name__}.companions() returned for"
        return {name: training_images(found, len(data), f"{where} {name!r}") for name, found in chosen}

    return choose


def loss_parts(method: Method, loss: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a loss as ``loss``, with each of its named parts as ``loss/NAME``.

    Raises:
        TrainingError: the method returned something else than a scalar, or several scalars by name.

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
    if not isinstance(loss, Mapping):
        return {"loss": loss}
    return {"loss": torch.stack([*loss.values()]).sum()} | {f"loss/{name}": value for name, value in loss.items()}


def training_images(found: Any, count: int, where: str, least: int = 0) -> Tensor:
    """Return indices of training images on the CPU, after a check.

    Args:
        count: number of training images.
        where: start of the message.
        least: smallest number of indices.

    Raises:
        TrainingError: they are not indices of training images.
    """
    is_list = isinstance(found, Tensor) and found.dtype == torch.long and found.ndim == 1 and len(found) >= least
    if is_list and (not len(found) or (found.min() >= 0 and found.max() < count)):
        return found.cpu()
    shown = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else repr(found)
    if is_list:
        shown += f" with values from {int(found.min())} to {int(found.max())}"
    raise TrainingError(f"{where} {shown}, expected indices of training images, [n] long, from 0 to {count - 1}")
