"""Standard output and standard error that last as long as the program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from ..terminal import READABLE


class LastingStream:
    """A stream that replaces characters it cannot encode, and drops all text once it cannot be written.

    Attributes:
        problem: the error after which text is dropped, such as that of a full disk; None if there was none.
    """

    def __init__(self, stream: TextIO) -> None:
        self.problem: OSError | None = None
        self._stream = stream
        self._errors = getattr(stream, "errors", None)
        self._attempt(lambda: self._set_errors(READABLE))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, and return its number of characters."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered."""
        self._attempt(self._stream.flush)

    def restore(self) -> None:
        """Write what is buffered, and leave the stream as it was."""
        self.flush()
        with suppress(OSError):
            self._set_errors(self._errors)

    def _set_errors(self, errors: str | None) -> None:
        """Set the error handler of the encoding, if the stream has one."""
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors=errors)

    def _attempt(self, action: Callable[[], object]) -> None:
        """Write something, unless an earlier attempt failed."""
        if self.problem:
            return
        try:
            action()
        except OSError as error:
            self.problem = error
            with suppress(OSError):
                _drop_buffered(self._stream)


def _drop_buffered(stream: TextIO) -> None:
    """Drop what a stream has not yet written, which Python would write when it ends."""
    descriptor = stream.fileno()
    kept, nowhere = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        stream.flush()
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Replace standard output and standard error by :class:`LastingStream` within the block; yield standard output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would become standard output
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdout, sys.stderr
    streams = [
        LastingStream(stream or open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr))
    ]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    try:
        yield streams[0]
    finally:
        for stream in streams:
            stream.restore()
        sys.stdout, sys.stderr = before
