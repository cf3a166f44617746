"""A job: one training and its evaluations, with their data, machine and store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..result_store import Store
from .data_source import DataSource
from .machine import Machine
from .plan import Spec


@dataclass(frozen=True)
class Job:
    """A training and its evaluations, with the data, the machine and the store that they use."""

    spec: Spec
    store: Store
    source: DataSource
    machine: Machine = field(default_factory=Machine)
    verbose: bool = False  # log the traceback of every error
    keep_stale: bool = False  # use stored results even if something that they depend on has changed
    log: Callable[[str], None] = print  # called with a line for every step
    name: str = ""  # its number and its names, with which the lines of its log start
    loggers: tuple[str, ...] = ()  # names of the loggers that receive the values of the training
