"""One training and its evaluations: what is asked for, where it comes from, and where its results go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..result_store import Store
from .data_source import DataSource
from .machine import Machine
from .plan import Spec


@dataclass(frozen=True)
class Job:
    """A training and its evaluations, with all that they need from outside."""

    spec: Spec
    store: Store
    source: DataSource
    machine: Machine = field(default_factory=Machine)
    keep_stale: bool = False  # accept finished results although something that they depend on has changed
    log: Callable[[str], None] = print  # called with a line for every step
