"""The values of a training on their way to loggers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

import torch

from ..device_memory import peak_memory
from ..errors import CzslkitError
from ..loggers import Logger, Run
from .losses import UNREAD_BATCHES, MeanLosses
from .step_count import kept_random_state

#: Number of steps between two records within an epoch. The losses of these steps have just been read from the device.
EVERY = UNREAD_BATCHES


class Watch:
    """Sends the values of a training to loggers; without loggers, it does nothing.

    A logger that raises an error is left out, and a line says so. Neither the numbers of the training nor the random
    numbers of Python and torch depend on loggers.

    Args:
        runs: the class of each logger, and the run as the logger sees it, by the name of the logger.
        settings: see :meth:`czslkit.loggers.Logger.start`.
        log: called with a line for each logger that starts or fails.
    """

    def __init__(
        self,
        runs: Mapping[str, tuple[type[Logger], Run]] | None = None,
        settings: Mapping[str, Any] | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._runs, self._settings, self._log = runs or {}, settings or {}, log
        self._loggers: dict[str, Logger] = {}  # those that have started and not failed
        self._begun = not self._runs
        self._device = torch.device("cpu")
        self._losses = MeanLosses()  # of the current epoch
        self._start = self._last = self._end = 0.0  # seconds: start of the epoch, last record, end of its steps

    def begin(self, step: int, device: torch.device) -> None:
        """Start the loggers, unless they have started.

        Args:
            step: optimiser steps of the training that are done.
            device: the device of the method.
        """
        if self._begun:
            return
        self._begun, self._device = True, device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for name, (cls, run) in self._runs.items():
            self._try(name, partial(self._start_one, name, cls, replace(run, step=step)))

    def before_steps(self, losses: MeanLosses) -> None:
        """Note the time before the first step of an epoch.

        Args:
            losses: receives the losses of the epoch.
        """
        self._losses, self._start = losses, time.monotonic()
        self._last = self._end = self._start

    def after_step(self, epoch_step: int, step: int, lr: float, groups: Sequence[Mapping[str, Any]]) -> None:
        """Send the means over the last steps, if there have been enough.

        Args:
            epoch_step: optimiser steps of this epoch that are done.
            step: optimiser steps of the training that are done.
            lr: learning rate for ``lr_scale`` 1.
            groups: the groups of parameters of all optimisers.
        """
        if not self._loggers or epoch_step % EVERY:
            return
        (means, images), now = self._losses.recent(), time.monotonic()
        self._send("step", step, {**means, "lr": lr, **_rates(groups), **self._use(images, now - self._last)})
        self._last = now

    def after_steps(self) -> None:
        """Note the time after the last step of an epoch."""
        self._end = time.monotonic()

    def after_epoch(self, epoch: int, step: int, row: Mapping[str, float], groups: Sequence[Mapping[str, Any]]) -> None:
        """Send the values of an epoch.

        Args:
            epoch: the epoch, counted from 1.
            step: optimiser steps of the training that are done.
            row: its row in the history of the training.
            groups: the groups of parameters of all optimisers.
        """
        use = self._use(self._losses.images, self._end - self._start)
        self._send("epoch", step, {"number": epoch, **row, **_rates(groups), **use})

    def results(self, world: str, metrics: Mapping[str, Any], step: int, device: torch.device) -> None:
        """Send the metrics of the test in a world; see ``begin`` for the other arguments."""
        self.begin(step, device)
        self._send(f"test/{world}", step, metrics)

    def finish(self, status: str) -> None:
        """End the runs; see :meth:`czslkit.loggers.Logger.finish`."""
        self._each(lambda logger: logger.finish(status))
        self._loggers = {}

    def _start_one(self, name: str, cls: type[Logger], run: Run) -> None:
        logger = cls()
        where = logger.start(run, self._settings)
        self._loggers[name] = logger
        self._log(f"values go to {name}: {where}")

    def _use(self, images: int, seconds: float) -> dict[str, float]:
        """Return what steps took: images per second, and the most memory so far."""
        return {"images_per_second": images / max(seconds, 1e-9), "peak_memory_gb": peak_memory(self._device) / 1e9}

    def _send(self, section: str, step: int, values: Mapping[str, Any]) -> None:
        """Send the values that are finite numbers, with the name of a section before their names."""
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
        finite = {f"{section}/{name}": value for name, value in numbers.items() if isfinite(value)}
        self._each(lambda logger: logger.log(step, finite))

    def _each(self, do: Callable[[Logger], None]) -> None:
        """Call a function with each logger that works."""
        for name, logger in list(self._loggers.items()):
            self._try(name, partial(do, logger))

    def _try(self, name: str, do: Callable[[], None]) -> None:
        """Call a function; after an error, leave a logger out and log why."""
        try:
            with kept_random_state(self._device):
                do()
        except (Exception, SystemExit) as error:
            self._loggers.pop(name, None)
            reason = str(error).strip().partition("\n")[0]
            self._log(f"the logger {name} has failed, and the training goes on without it: {_named(error, reason)}")


def _named(error: BaseException, reason: str) -> str:
    """Return an error in words; a message for users needs no type before it."""
    return reason if isinstance(error, CzslkitError) and reason else f"{type(error).__name__}: {reason}"


def _rates(groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the learning rate of each group, as ``lr/1``, ``lr/2``, ...; none for a single group, which has ``lr``."""
    return {f"lr/{n}": group["lr"] for n, group in enumerate(groups, 1) if len(groups) > 1}
