"""The weights of a method in validation, and the check of what a validation returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import TrainingError
from ..learned_state import learned_state
from ..method import Method


@contextmanager
def evaluation_weights(method: Method) -> Iterator[None]:
    """Put the tensors of ``method.evaluation_weights()`` in the place of learned tensors, and undo this at the end.

    Raises:
        TrainingError: one of the tensors replaces no learned tensor of the same shape.
    """
    replacements = method.evaluation_weights()
    learned = learned_state(method)
    for name, value in replacements.items():
        if name not in learned or learned[name].shape != value.shape:
            found = f"shape {list(learned[name].shape)} there" if name in learned else "no learned tensor of this name"
            raise TrainingError(
                f"{type(method).__name__}.evaluation_weights() has {name} of shape {list(value.shape)}; found {found}"
            )
    own = {name: learned[name].clone() for name in replacements}
    with torch.no_grad():
        for name, value in replacements.items():
            learned[name].copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in own.items():
                learned[name].copy_(value)


def finite_validation(validated: dict[str, float], epoch: int) -> dict[str, float]:
    """Return the numbers of a validation after a check of its loss.

    Raises:
        TrainingError: the validation loss is not finite.
    """
    loss = validated.get("val_loss", 0.0)
    if not math.isfinite(loss):
        raise TrainingError(f"the validation loss is {loss} after epoch {epoch + 1}")
    return validated
