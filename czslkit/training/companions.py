"""The companions of the images of a batch, which a method chooses, and a check of what it chose."""

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
        return {name: training_images(found, len(data), f"{where} {name!r}", first=-1) for name, found in chosen}

    return choose


def training_images(found: Any, count: int, where: str, *, least: int = 0, first: int = 0) -> Tensor:
    """Return indices of training images on the CPU, after a check.

    Args:
        count: number of training images.
        where: start of the message.
        least: smallest number of indices.
        first: smallest index; -1 if an index may stand for no image.

    Raises:
        TrainingError: they are not indices of training images.
    """
    is_list = isinstance(found, Tensor) and found.dtype == torch.long and found.ndim == 1 and len(found) >= least
    if is_list and (not len(found) or (found.min() >= first and found.max() < count)):
        return found.cpu()
    shown = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else repr(found)
    if is_list:
        shown += f" with values from {int(found.min())} to {int(found.max())}"
    none = " or -1 for no image" if first else ""
    raise TrainingError(f"{where} {shown}, expected indices of training images, [n] long, from 0 to {count - 1}{none}")
