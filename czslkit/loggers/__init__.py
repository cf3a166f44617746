"""Loggers, which show the values of a training while it runs: in files, or in the tracker of a lab."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from ..entry_points import is_builtin
from ..files import write_text
from ..foreign_files import parse_json, read_regular
from ..registry import Registry
from ..training_files import RUN_IDS_FILE

_IDS_LIMIT = 10_000  # largest size of the file with the ids of a training, in bytes


@dataclass(frozen=True)
class Run:
    """A training and its test, as a logger sees them."""

    dataset: str
    method: str
    seed: int
    config_id: str  # the digest of the settings, as in the names of folders
    logger: str  # the name of the logger
    root: Path  # folder for the files of the logger, of all runs; it may not exist
    training: Path  # folder of the training; it may not exist
    step: int = 0  # optimiser steps that are done; a training that was killed makes the later ones again

    @property
    def name(self) -> str:
        """The name of the run, which is also the folder of its results, such as ``demo/csp/seed0-3f``."""
        return f"{self.dataset}/{self.method}/seed{self.seed}-{self.config_id}"

    @property
    def group(self) -> str:
        """A name that runs share which differ in their seed only, such as ``demo/csp/3f``."""
        return f"{self.dataset}/{self.method}/{self.config_id}"

    @property
    def folder(self) -> Path:
        """The folder for the files of this run; it may not exist."""
        return self.root / self.name

    def kept_id(self) -> str | None:
        """Return the id that was kept for this training, for example by a process that was killed; None without one."""
        found = self._kept_ids().get(self.logger)
        return found if isinstance(found, str) else None

    def keep_id(self, value: str) -> None:
        """Keep an id with the training, so that the run goes on under it when the training is resumed."""
        write_text(self.training / RUN_IDS_FILE, json.dumps({**self._kept_ids(), self.logger: value}, indent=1))

    def _kept_ids(self) -> dict[str, Any]:
        try:
            content = parse_json(read_regular(self.training / RUN_IDS_FILE, _IDS_LIMIT))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


class Logger(ABC):
    """A place that values of a training are written to. One object of the class is made for each run.

    A logger that raises an error is left out for the rest of its run, and a line says so. The training goes on, with
    the same numbers.
    """

    #: Packages that ``start`` imports. Without them, an error before the first training says what to install.
    requires: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def start(self, run: Run, settings: Mapping[str, Any]) -> str:
        """Begin a run, or go on with it after its training was killed.

        Args:
            run: names, folders, and the step after which values are logged. Values of later steps, from a process that
                was killed, are logged again with the same numbers.
            settings: the method, the dataset, the seed, and every setting by the name that ``--set`` gives it: numbers,
                texts, booleans, None and lists.

        Returns:
            Where a user finds the run: a file, a command or an address.
        """

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write values by name, such as ``epoch/val_auc``.

        Args:
            step: number of optimiser steps since the start of the training.
            values: finite numbers. A step may get further values in a later call.
        """

    @abstractmethod
    def finish(self, status: str) -> None:
        """End the run.

        Args:
            status: ``done``, ``failed``, or ``killed`` if the user interrupted it. If the process is ended, this
                method is not called.
        """


LOGGERS = Registry("logger", Logger)  # type: ignore[type-abstract]


def missing_packages(name: str) -> str:
    """Return what to install for a logger, as the text of an error; empty if nothing is missing.

    Raises:
        UnknownNameError: no logger has the name.
    """
    cls = LOGGERS[name]
    missing = [package for package in cls.requires if find_spec(package) is None]
    if not missing:
        return ""
    install = f'"czslkit[{name}]"' if is_builtin(cls.__module__) else " ".join(missing)
    return f"the logger {name} needs {' and '.join(missing)}, which cannot be imported: pip install {install}"
