"""The tensors of a method that a training changes, which are saved and resumed, and those that it must not change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from .method import Method
from .training_hooks import group_parameters


def learned_state(method: Method) -> dict[str, Tensor]:
    """Return all tensors that training changes: buffers such as running means, and parameters.

    Parameters count if they are trainable, if ``parameter_groups`` has them because they are trained later, or if they
    were trainable when the method was built.
    """
    names = remember_learned(method)
    frozen = {name for name, _ in method.named_parameters(remove_duplicate=False) if name not in names}
    return {name: value for name, value in method.state_dict().items() if name not in frozen}


def remember_learned(method: Method) -> set[str]:
    """Return the names of the parameters that a training changes, now or at an earlier call."""
    grouped = {id(p) for group in method.parameter_groups() for p in group_parameters(group)}
    named = method.named_parameters(remove_duplicate=False)
    learned: set[str] = getattr(method, "_learned", set()) | {
        n for n, p in named if p.requires_grad or id(p) in grouped
    }
    method._learned = learned  # type: ignore[assignment]  # a hook may freeze some of them later
    return learned


def load_learned(method: Method, values: Mapping[str, Tensor]) -> None:
    """Load the tensors that ``learned_state`` returned into ``method``."""
    method.load_state_dict({**method.state_dict(), **values})


@contextmanager
def kept_buffers(method: Method) -> Iterator[None]:
    """Restore the values of all buffers at the end."""
    before = [(buffer, buffer.clone()) for buffer in method.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def frozen_fingerprint(method: Method) -> dict[str, str]:
    """Return a text on the values of each parameter that is in no file of a trained method, by name."""
    learned = remember_learned(method)
    frozen = ((name, p.detach()) for name, p in method.named_parameters() if name not in learned)
    # whole numbers have no norm, and not every device has float64
    floats = ((name, p if p.is_floating_point() else p.cpu().double()) for name, p in frozen)
    return {name: f"sum {float(p.sum())!r}, norm {float(torch.linalg.vector_norm(p))!r}" for name, p in floats}
