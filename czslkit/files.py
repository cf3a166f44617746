"""Files that are written whole or not at all, locks, checked names and digests. It does not import torch."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import CzslkitError, LockedError, LockError
from .foreign_files import check_regular
from .locks import Holder, try_lock
from .processes import Process

_BLOCK_BYTES = 1 << 20  # bytes read at a time for a digest
_UNFINISHED = re.compile(r"\..+\.(?P<space>[0-9a-f]*)-(?P<pid>[0-9]+)-(?P<started>[0-9]*)-[0-9a-f]{8}\.tmp")
_UNFINISHED_BY_OTHERS = re.compile(r"\.tmp\w{6}|\..+\.tmp")  # safetensors, and earlier versions of czslkit
_ABANDONED_SECONDS = 86400.0  # age of an unfinished file after which its process counts as gone
_LONGEST_PAUSE = 1.0  # seconds between two looks at a lock that another process holds


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically: after an interruption the file is either the old one or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: after an interruption the file is either the old one or the new one.

    Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as file:
        file.write_bytes(content)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a file or folder its name ``path`` once the ``with`` block has written it whole.

    The block gets another path next to ``path``, and makes a file or a folder there. No other process uses the same
    one, on whatever host or in whatever container. After an error, nothing is left; what a killed process leaves is
    removed by :func:`remove_unfinished`.
    """
    me = Process.current()
    writer = f"{me.space}-{me.pid}-{me.started}-{secrets.token_hex(4)}"
    made = path.with_name(f".{path.name[:40]}.{writer}.tmp")
    try:
        yield made
        if made.is_file():
            with made.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(made, path)
    except BaseException:
        _remove(made)
        raise


def remove_unfinished(folder: Path, *, locked: bool = False) -> None:
    """Remove the files and folders that :func:`left_unfinished` returns; what cannot be removed stays."""
    for path in left_unfinished(folder, locked=locked):
        _remove(path)


def left_unfinished(folder: Path, *, locked: bool = False) -> list[Path]:
    """Return the unfinished files and folders in a folder that processes left which are gone.

    A process on another host or in another container counts as gone after a day.

    Args:
        locked: no other process writes into the folder and its subfolders. Then everything unfinished counts in all of
            them, also that of safetensors and of earlier versions, but for what living processes of this host write.
    """
    found = []
    for path in (folder.rglob if locked else folder.glob)(".*"):
        if match := _UNFINISHED.fullmatch(path.name):
            writer = Process("", int(match["pid"]), match["started"], match["space"])
            if writer.is_gone or (not writer.is_visible and (locked or _is_abandoned(path))):
                found.append(path)
        elif locked and _UNFINISHED_BY_OTHERS.fullmatch(path.name):
            found.append(path)
    return sorted(found)


@contextmanager
def file_lock(path: Path, log: Callable[[str], None], *, wait: bool = True) -> Iterator[None]:
    """Lock the file ``path`` within the ``with`` block, against all processes that can see the file.

    Args:
        path: the lock file; it and its folder are made if missing.
        log: called with one line of text if this process has to wait for another process, and if it breaks the lock
            of a process that is gone.
        wait: wait for the process that holds the lock.

    Raises:
        LockedError: another process holds the lock, and ``wait`` is False.
        LockError: there is no way to lock the file, for example because its folder cannot be written.
    """
    pause, told = 0.05, False
    while isinstance(found := _try_lock(path, log), Holder):
        if not wait:
            raise LockedError(path, str(found))
        if not told:
            log(f"waiting for the lock {path}: {found}")
        told, pause = True, min(2 * pause, _LONGEST_PAUSE)
        time.sleep(pause)
    try:
        yield
    finally:
        found()


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

    A process reads the file only once, unless the file is replaced or its size or modification time changes.
    """
    stat = path.stat()
    return _digest_of_version(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def folder_digest(folder: Path) -> str:
    """Return 16 hex digits for all files in a folder and its subfolders, by their relative paths and contents."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    content = "".join(f"{file_digest(path)} {name}\n" for name, path in files)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@functools.cache
def _digest_of_version(path: Path, inode: int, size: int, modified_ns: int) -> str:
    """Return the digest of ``path``; inode, size and modification time are only keys of the cache."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()[:16]


def _try_lock(path: Path, log: Callable[[str], None]) -> Callable[[], None] | Holder:
    """Lock a file if no process holds it, as :func:`czslkit.locks.try_lock`; every failure is a ``LockError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return try_lock(path, log)
    except OSError as error:
        if obstacle := _obstacle(path):
            raise LockError(f"{path} cannot be locked: {obstacle}. Remove it") from error
        reason = f"{type(error).__name__}: {error.strerror or error}"
        raise LockError(f"{path} cannot be locked, which needs a folder that can be written: {reason}") from error


def _obstacle(path: Path) -> str:
    """Return what is in the place of a lock file if it is not a regular file, else an empty text."""
    if path.is_symlink():
        return "it is a link, expected a regular file"
    try:
        check_regular(path)
    except OSError as error:
        return "" if error.errno else str(error)  # with a number, the system has refused to look
    return ""


def _is_abandoned(path: Path) -> bool:
    """Return whether a file was last written so long ago that its process counts as gone."""
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    return False


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)
