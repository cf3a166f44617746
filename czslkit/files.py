"""Atomic writes, locks, checked names and digests of files. It does not import torch."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import CzslkitError

_BLOCK_BYTES = 1 << 20  # bytes read at a time for a digest


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically: after an interruption the file is either the old one or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: after an interruption the file is either the old one or the new one.

    Missing parent folders are made.
    """
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
def file_lock(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Lock the file ``path`` within the ``with`` block.

    Args:
        path: the lock file; it and its folder are made if missing.
        log: called with one line of text if this process has to wait for another process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(f"waiting for another process that has locked {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def checked_filename(name: str) -> str:
    """Return ``name`` if it is safe as the name of a file in the folder of results.

    Raises:
        CzslkitError: the name has characters other than letters, digits and ``. _ + -``, or does not start with a
            letter, a digit or ``_``. Such a name could lead out of the folder.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise CzslkitError(f"{name!r} cannot name a file of results: letters, digits and . _ + - only")
    return name


def file_digest(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file's bytes.

    A process reads the file only once, unless the size or modification time changes.
    """
    stat = path.stat()
    return _digest_of_version(path, stat.st_size, stat.st_mtime_ns)


def folder_digest(folder: Path) -> str:
    """Return 16 hex digits for all files in a folder and its subfolders, by their relative paths and contents."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    content = "".join(f"{file_digest(path)} {name}\n" for name, path in files)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@functools.cache
def _digest_of_version(path: Path, size: int, modified_ns: int) -> str:
    """Return the digest of ``path``; size and modification time are only keys of the cache."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()[:16]
