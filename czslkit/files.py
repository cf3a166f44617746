"""TODO."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import CzslkitError


def write_text(path: Path, text: str) -> None:
    """A file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """A file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def file_lock(lock: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Wait, and say so, while another process has the lock."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        log(f"waiting for another process that holds {lock}")
        held.acquire()
    try:
        yield
    finally:
        held.release()


def checked_filename(name: str) -> str:
    """A name that can be that of a file; the name itself.

    Raises:
        CzslkitError: it would lead out of, or astray in, the folder of results.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise CzslkitError(f"{name!r} cannot name a file of results: letters, digits and . _ + - only")
    return name


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 16 hex digits of it; read once while its size and time stay the same."""
    stat = path.stat()
    return _bytes_digest(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _bytes_digest(path: Path, size: int, time: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def log_to_stderr(line: str) -> None:
    """Print a line to standard error at once."""
    print(line, file=sys.stderr, flush=True)
