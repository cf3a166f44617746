"""The lines and the progress of several processes on one terminal or in one file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..terminal import QUIET_SECONDS, Progress, log_to_stderr, shows_bars


class ProcessLines:
    """What trainings that run at the same time show.

    On a terminal and in a notebook, each running training has a bar, and all of them together have one. Elsewhere, a
    training whose progress was not shown for :data:`czslkit.terminal.QUIET_SECONDS` gets a line. The methods may be
    called in several threads.

    Args:
        total: number of trainings.
        slots: trainings that run at the same time.
        log: called with every line.
        show: show progress.
    """

    def __init__(self, total: int, slots: int, log: Callable[[str], None], *, show: bool) -> None:
        self._log, self._show, self._slots = log, show, slots
        self._lock, self._said = threading.RLock(), set[str]()
        self._total, self._all = total, Progress("trainings", total, show=False)
        self._bars: dict[int, Progress] = {}
        self._shown_at: dict[int, float] = {}

    def begin(self, done: int) -> None:
        """Start to count; ``done`` trainings were finished before, and their time is not known."""
        with self._lock:
            self._all.__exit__()
            self._all = Progress("trainings", self._total, show=self._show, done=done, position=self._slots)

    def line(self, text: str, slot: int | None) -> None:
        """Log a line of the training in a slot; a line without the name of a training is logged once for all."""
        with self._lock:
            if slot is not None:
                self._shown_at[slot] = time.monotonic()
            if text.startswith("[") or text not in self._said:
                self._said.add(text)
                self._log(text)

    def progress(
        self, training: str, name: str, done: int, total: int | None, unit: str, note: str, line: str, *, slot: int
    ) -> None:
        """Show how far the training in a slot is.

        Args:
            training: its number and its names.
            name, done, total, unit, note: of the innermost loop; see :class:`czslkit.terminal.Progress`.
            line: all this in a line.
        """
        with self._lock:
            if shows_bars():
                bar = self._bars.get(slot)
                title = f"{training}: {name}"
                if bar is None or (bar.name, bar.total) != (title, total) or bar.done > done:
                    if bar is not None:
                        bar.__exit__()
                    bar = self._bars[slot] = Progress(title, total, done=done, unit=unit, position=slot)
                bar.update(done - bar.done, note)
            elif time.monotonic() - self._shown_at.setdefault(slot, time.monotonic()) >= QUIET_SECONDS:
                self._shown_at[slot] = time.monotonic()
                log_to_stderr(f"{training}: {line}")

    def leave(self, slot: int) -> None:
        """Remove the bar of a slot, whose process has ended."""
        with self._lock:
            self._shown_at.pop(slot, None)
            if bar := self._bars.pop(slot, None):
                bar.__exit__()

    def count(self) -> None:
        """Count a training as finished."""
        with self._lock:
            self._all.update()
            if self._show and not shows_bars():
                log_to_stderr(self._all.line())

    def close(self) -> None:
        """Remove all bars."""
        with self._lock:
            for bar in (*self._bars.values(), self._all):
                bar.__exit__()
            self._bars = {}
