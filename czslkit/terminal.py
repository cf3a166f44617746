"""Output that ends no program: text that every terminal can show, lines on standard error, and progress."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, ClassVar, TextIO, TypeVar

from .sizes import format_bytes, format_duration

T = TypeVar("T")

#: Seconds without a line after which :class:`Progress` prints one, where it cannot show a bar.
QUIET_SECONDS = 30.0
#: Name of the error handler of codecs that :func:`encodable` uses.
READABLE = "czslkit.readable"
_SIGNS = {"±": "+-", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "≤": "<=", "≥": ">="}
_SIGNS |= {"‘": "'", "’": "'", "“": '"', "”": '"', "\xa0": " "}


def _readable_signs(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for characters that cannot be encoded, as an error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_SIGNS.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in found), error.end


codecs.register_error(READABLE, _readable_signs)


def encodable(text: str, encoding: str | None) -> str:
    r"""Return a text that can be written in an encoding: signs such as ± become ASCII, other characters their escape.

    >>> encodable("1 ± 2 café", "ascii"), encodable("1 ± 2 café", "utf-8")
    ('1 +- 2 caf\\xe9', '1 ± 2 café')
    """
    encoding = encoding or "utf-8"
    return text.encode(encoding, READABLE).decode(encoding)


def shows_styles(stream: TextIO) -> bool:
    """Return whether a stream is a terminal with bold type, and the user has not set ``NO_COLOR``."""
    return _moves_cursor(stream) and not os.environ.get("NO_COLOR")


def log_to_stderr(line: str) -> None:
    """Print a line to standard error without buffering; if it is closed or full, the line is dropped."""
    Progress.silent_since = time.monotonic()
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


class Progress:
    """The progress of a loop, within a ``with`` block.

    On a terminal and in a notebook it is a bar. In a file, and on a terminal without escape sequences, it is a line
    whenever nothing was printed for ``QUIET_SECONDS``; loops that follow each other count as one.

    Args:
        name: what is done, such as ``images decoded``.
        total: number of steps, or bytes; None if unknown.
        show: without it, nothing is printed.
        done: steps that are done already.
        unit: ``B`` for bytes, empty for steps.
    """

    silent_since: ClassVar[float] = time.monotonic()  # time of the last line, or of the start of the work after it
    _active_at: ClassVar[float] = time.monotonic()

    def __init__(self, name: str, total: int | None, *, show: bool = True, done: int = 0, unit: str = "") -> None:
        self.name, self.total, self.done, self.unit = name, total, done, unit
        self._first, self._start = done, time.monotonic()
        if self._start - Progress._active_at > QUIET_SECONDS:
            Progress.silent_since = self._start
        Progress._active_at = self._start
        has_bar = show and (_in_notebook() or (sys.stderr is not None and _moves_cursor(sys.stderr)))
        self._bar = self._make_bar() if has_bar else None
        self._prints_lines = show and not has_bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1, note: str = "") -> None:
        """Count some more steps as done; ``note`` is printed beside their number, such as ``loss 0.123``."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = Progress._active_at = time.monotonic()
        if self._prints_lines and now - Progress.silent_since >= QUIET_SECONDS:
            log_to_stderr(self._line(now - self._start, note))

    def _line(self, seconds: float, note: str) -> str:
        """Return a line with the number of steps and the time that is left, after some seconds of work."""
        done, total = (format_bytes(n) if self.unit == "B" else f"{n:,}" for n in (self.done, self.total or 0))
        parts = [f"{done} of {total}" if self.total else done, *filter(None, [note])]
        if self.total and self.done > self._first:
            left = seconds / (self.done - self._first) * max(self.total - self.done, 0)
            parts.append(f"about {format_duration(left)} left")
        return f"{self.name}: {', '.join(parts)}"

    def _make_bar(self) -> Any:
        from tqdm.auto import tqdm

        unit: dict[str, Any] = {"unit": "B", "unit_scale": True} if self.unit == "B" else {}
        # At position 0, a bar inside another one replaces it for a while, which needs no escape sequences.
        return tqdm(total=self.total, initial=self.done, desc=self.name, leave=False, position=0, **unit)


def tracked(items: Iterable[T], name: str, total: int | None, *, show: bool = True) -> Iterator[T]:
    """Yield items and show how many are done; the other arguments are those of :class:`Progress`."""
    with Progress(name, total, show=show) as progress:
        for item in items:
            yield item
            progress.update()


def _moves_cursor(stream: TextIO) -> bool:
    """Return whether a stream is a terminal with escape sequences."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config
