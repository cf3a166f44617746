"""Work on a device that the host does not wait for: checks that are read together later, and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

#: Number of checks after which they are read.
MOST_WAITING = 256


class Checks:
    """Checks whose outcomes are on a device and have not been read yet."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, Callable[[], Exception]]] = []

    def add(self, passed: Tensor, error: Callable[[], Exception]) -> None:
        """Add a check; see :func:`check`."""
        self._waiting.append((passed, error))
        if len(self._waiting) >= MOST_WAITING:
            self.read()

    def read(self) -> None:
        """Raise the error of the first check that failed, if there is one."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        outcomes = torch.stack([passed for passed, _ in waiting]).tolist()
        for passed, (_, error) in zip(outcomes, waiting, strict=True):
            if not passed:
                raise error()


_current: ContextVar[Checks | None] = ContextVar("czslkit_checks", default=None)


def check(passed: Tensor, error: Callable[[], Exception]) -> None:
    """Raise an error if a check failed, at once or when the surrounding :func:`deferred_checks` reads it.

    Args:
        passed: a bool, scalar.
        error: returns the error; it may read tensors, and should hold only small ones.
    """
    checks = _current.get()
    if checks is not None:
        checks.add(passed, error)
    elif not passed:
        raise error()


@contextmanager
def deferred_checks(device: torch.device) -> Iterator[None]:
    """Read the checks of the ``with`` block together, if ``device`` is one that would have to be waited for.

    The last of them are read at the end of the block. If the block raises an error, the error of an earlier check that
    failed is raised in its place.

    >>> with deferred_checks(torch.device("cpu")):
    ...     check(torch.tensor(False), lambda: ValueError("at once"))
    Traceback (most recent call last):
    ValueError: at once
    """
    if is_host(device):
        yield
        return
    checks = Checks()
    token = _current.set(checks)
    try:
        yield
    except Exception:
        checks.read()
        raise
    finally:
        _current.reset(token)
    checks.read()


def is_host(device: torch.device) -> bool:
    """Return whether tensors on a device can be read without waiting for it."""
    return device.type == "cpu"


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; the host does not wait until it is there."""
    if device.type == "cuda" and torch.cuda.is_available():
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
