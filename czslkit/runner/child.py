"""The process of one training. It sends lines and progress to the process that started it, and ends with it.

Torch is imported only by what :func:`run` receives, so that a process ends at once if its parent is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..errors import LockedError
from ..terminal import Progress, log_to_stderr, relay_lines

#: Exit status of a process whose script calls ``bench`` when it is imported.
UNGUARDED = 73
#: Seconds between two messages on the progress of a training.
PROGRESS_SECONDS = 0.5


def run(request: bytes, number: int, connection: Connection, log_file: Path) -> None:
    """Run one training of a benchmark, and send its results.

    Every message is a pair of its kind and its content: ``("started", None)``, ``("line", text)``, ``("progress",
    (name, done, total, unit, note, line))``, and at the end ``("locked", holder)`` or ``("results", list)``. Any
    message from the parent ends this process.

    Args:
        request: the pickled :class:`czslkit.runner.request.Request`.
        number: the number of the training among its jobs, counted from 0.
        connection: to the parent.
        log_file: file for the output of this process; what it holds is replaced.
    """
    channel = _Channel(connection)
    threading.Thread(target=channel.end_with_parent, name="end with the parent", daemon=True).start()
    _write_output_to(log_file)
    channel.send("started", None)
    relay_lines(lambda line: channel.send("line", line))
    threading.Thread(target=channel.report_progress, name="progress for the parent", daemon=True).start()
    from .run_jobs import run_or_failures

    job = pickle.loads(request).jobs(log_to_stderr)[number]
    try:
        channel.send("results", run_or_failures(job))
    except LockedError as error:
        channel.send("locked", error.holder)


class _Channel:
    """The connection of this process to its parent; its methods may be called in several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, kind: str, content: Any) -> None:
        """Send a message; if the parent is gone, end this process, so that it records no error."""
        try:
            with self._lock:
                self._connection.send((kind, content))
        except OSError:
            _end()

    def end_with_parent(self) -> None:
        """Wait until the parent has ended, or asks for the end of this process, and end."""
        parent = multiprocessing.parent_process()
        assert parent is not None
        wait([parent.sentinel, self._connection])
        _end()

    def report_progress(self) -> None:
        """Send the progress of the innermost loop as long as this process lives."""
        while True:
            time.sleep(PROGRESS_SECONDS)
            if now := Progress.innermost():
                self.send("progress", (now.name, now.done, now.total, now.unit, now.note, now.line()))


def _end() -> None:
    """End this process and the processes that it has started, which read images."""
    for reader in multiprocessing.active_children():
        reader.kill()
    os._exit(1)


def _write_output_to(log_file: Path) -> None:
    """Write standard output and standard error to a file, also what libraries and later processes write."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    stream = log_file.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    os.ftruncate(stream.fileno(), 0)
    for descriptor in (1, 2):
        os.dup2(stream.fileno(), descriptor)
    sys.stdout = sys.stderr = stream
