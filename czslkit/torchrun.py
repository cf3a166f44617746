"""What torchrun tells the processes that it starts, in environment variables. It does not import torch."""

from __future__ import annotations

import os

from .errors import ConfigError

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def process_count() -> int:
    """Return the number of processes that were started for one training each, on all nodes; 1 without torchrun.

    Raises:
        ConfigError: some of the variables are missing, or are no numbers.
    """
    count = _number("WORLD_SIZE", 1)
    if count > 1 and (missing := [name for name in _NAMES if not os.environ.get(name)]):
        raise ConfigError(
            [
                f"WORLD_SIZE is {count}, but {', '.join(missing)} of the environment is not set: start all processes "
                "with torchrun, or unset WORLD_SIZE for a single process"
            ]
        )
    return count


def process_rank() -> int:
    """Return the number of this process among all that were started together; 0 is the one that writes and logs."""
    return _number("RANK", 0) if process_count() > 1 else 0


def local_rank() -> int:
    """Return the number of this process among those on its node, which is the number of its GPU."""
    return _number("LOCAL_RANK", 0) if process_count() > 1 else 0


def local_count() -> int:
    """Return the number of processes on this node that were started together."""
    return _number("LOCAL_WORLD_SIZE", 1) if process_count() > 1 else 1


def _number(name: str, default: int) -> int:
    """Return the number in an environment variable, ``default`` if it is not set or empty."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise ConfigError([f"the environment variable {name} is {text!r}, expected a whole number as torchrun sets it"])
    return int(text)
