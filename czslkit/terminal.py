"""Output that ends no program: text that every terminal can show, lines on standard error, and progress."""

from __future__ import annotations

import codecs
import functools
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, ClassVar, TextIO, TypeVar

from .sizes import format_bytes, format_duration

T = TypeVar("T")

#: Seconds without a line after which :class:`Progress` prints one, where it cannot show a bar.
QUIET_SECONDS = 30.0
#: Name of the error handler of codecs that :func:`encodable` uses.
READABLE = "czslkit.readable"
_SIGNS = {"±": "+-", "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "→": "->", "≤": "<=", "≥": ">="}
_relays: list[Callable[[str], None]] = []
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


def shows_bars() -> bool:
    """Return whether progress is shown as bars: on a terminal with escape sequences, and in a notebook."""
    return _on_terminal() or _in_notebook()


def log_to_stderr(line: str) -> None:
    """Print a line to standard error without buffering; if it is closed or full, the line is dropped."""
    _print_line(line)
    for relay in _relays:
        relay(line)


def relay_lines(to: Callable[[str], None]) -> None:
    """Call a function with every later line of :func:`log_to_stderr`; lines on progress are not among them."""
    _relays.append(to)


def _print_line(line: str) -> None:
    Progress.silent_since = time.monotonic()
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            for bar in Progress.bars:
                bar.clear()
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
            for bar in Progress.bars:
                bar.refresh()


class Progress:
    """The progress of a loop, within a ``with`` block.

    On a terminal and in a notebook it is a bar. In a file, and on a terminal without escape sequences, it is a line
    whenever nothing was printed for ``QUIET_SECONDS``, also during a long step; loops that follow each other count as
    one.

    Args:
        name: what is done, such as ``images decoded``.
        total: number of steps, or bytes; None if unknown.
        show: without it, nothing is printed.
        done: steps that are done already.
        unit: ``B`` for bytes, empty for steps.
        position: line of the bar on a terminal, counted from 0.
    """

    silent_since: ClassVar[float] = time.monotonic()  # time of the last line, or of the start of the work after it
    bars: ClassVar[list[Any]] = []  # bars on the terminal, the visible one last
    _told: ClassVar[list[Progress]] = []  # loops that are told in lines, the innermost last
    _worked_at: ClassVar[float] = time.monotonic()

    def __init__(
        self, name: str, total: int | None, *, show: bool = True, done: int = 0, unit: str = "", position: int = 0
    ) -> None:
        self.name, self.total, self.done, self.unit, self.note = name, total, done, unit, ""
        self._first, self._start = done, time.monotonic()
        self._bar = self._make_bar(position) if show and shows_bars() else None
        if show and self._bar is None:
            self._tell()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        Progress._worked_at = time.monotonic()
        Progress._told = [other for other in Progress._told if other is not self]
        if self._bar is not None:
            self._bar.close()
            Progress.bars = [bar for bar in Progress.bars if bar is not self._bar]

    def update(self, count: int = 1, note: str = "") -> None:
        """Count some more steps as done; ``note`` is printed beside their number, such as ``loss 0.123``."""
        self.done += count
        self.note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)

    def line(self) -> str:
        """Return a line with the number of steps and the time that is left."""
        done, total = (format_bytes(n) if self.unit == "B" else f"{n:,}" for n in (self.done, self.total or 0))
        parts = [f"{done} of {total}" if self.total else done, *filter(None, [self.note])]
        if self.total and self._first < self.done < self.total:
            share = (self.total - self.done) / (self.done - self._first)
            parts.append(f"about {format_duration(share * (time.monotonic() - self._start))} left")
        return f"{self.name}: {', '.join(parts)}"

    @classmethod
    def innermost(cls) -> Progress | None:
        """Return the innermost loop that is told in lines, None if there is none."""
        told = cls._told
        return told[-1] if told else None

    def _tell(self) -> None:
        """Let the progress be printed in lines."""
        if not Progress._told and self._start - Progress._worked_at > QUIET_SECONDS:
            Progress.silent_since = self._start
        Progress._told = [*Progress._told, self]
        _start_printing(os.getpid())

    def _make_bar(self, position: int) -> Any:
        from tqdm.auto import tqdm

        kind: dict[str, Any] = {"unit": "B", "unit_scale": True} if self.unit == "B" else {}
        on_terminal = _on_terminal()
        if on_terminal:  # tqdm shows nothing on a terminal that does not know its size
            size = shutil.get_terminal_size()
            kind |= {"ncols": size.columns - 1, "nrows": size.lines}
        # At position 0, a bar inside another one replaces it for a while, which needs no escape sequences.
        bar = tqdm(total=self.total, initial=self.done, desc=self.name, leave=False, position=position, **kind)
        if on_terminal:
            Progress.bars.append(bar)
        return bar


def tracked(items: Iterable[T], name: str, total: int | None, *, show: bool = True) -> Iterator[T]:
    """Yield items and show how many are done; the other arguments are those of :class:`Progress`."""
    with Progress(name, total, show=show) as progress:
        for item in items:
            yield item
            progress.update()


@functools.cache
def _start_printing(process: int) -> None:
    """Start the thread that prints lines, once in each process."""
    threading.Thread(target=_print_lines, name="czslkit progress", daemon=True).start()


def _print_lines() -> None:
    """Print the progress of loops as long as the process lives."""
    while True:
        time.sleep(min(1.0, QUIET_SECONDS))
        _print_if_quiet()


def _print_if_quiet() -> None:
    """Print the progress of the innermost loop if nothing was printed for a while."""
    told = Progress._told
    if told and time.monotonic() - Progress.silent_since >= QUIET_SECONDS:
        _print_line(told[-1].line())


def _on_terminal() -> bool:
    return sys.stderr is not None and _moves_cursor(sys.stderr)


def _moves_cursor(stream: TextIO) -> bool:
    """Return whether a stream is a terminal with escape sequences."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config
