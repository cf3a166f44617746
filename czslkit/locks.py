"""Locks of files: by the system where it has a lock service for the file, else by a file that its holder keeps fresh.

A lock of the system ends with its process, also across the hosts of a file server. Some file systems have no lock
service, or one that ends at the host. There, the holder makes a *claim*, a file next to the lock file, and renews its
time every ``REFRESH_SECONDS``. Claims are numbered: the highest one counts, and it is removed only after a higher one
was made. So a claim of a lost holder is broken by making the next one, which only one process can do. It does not
import torch.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from .processes import Process
from .sizes import format_duration

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Seconds after which the holder of a claim renews its time.
REFRESH_SECONDS = 20.0
#: Seconds without renewal after which the process of a claim counts as gone, if it is not known otherwise.
STALE_SECONDS = 300.0
_EMPTY_SECONDS = 10.0  # the same for a claim whose process has not yet written who it is
_NO_SERVICE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
#: Kinds of file systems -> options with which a lock of the system holds on one host only; "" stands for always.
_LOCAL_LOCKS = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
    "fuse.sshfs": {""},
}
_FREE = "-free"  # end of the name of a claim that its holder has given up
_RECORD_BYTES = 4096  # longest record of a holder
_held: set[int] = set()  # file descriptors with a lock of the system


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    process: Process | None = None  # None if it is not known
    since: float | None = None  # Unix time at which it took the lock; None if it is not known

    def __str__(self) -> str:
        ago = "" if self.since is None else f" {format_duration(time.time() - self.since)} ago"
        return f"{self.process or 'another process'} took it{ago}"


def try_lock(path: Path, log: Callable[[str], None]) -> Callable[[], None] | Holder:
    """Lock the file ``path`` if no process holds it.

    Args:
        path: the lock file; it is made if missing, and stays.
        log: called with a line of text if the lock of a lost process is broken.

    Returns:
        The function that gives the lock back, or the process that holds it.

    Raises:
        OSError: nothing can be written next to ``path``.
    """
    if fcntl is None or holds_on_one_host_only(path):
        return _claim(path, log)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    _held.add(descriptor)
    try:
        holder = _lock_descriptor(descriptor, path)
    except OSError as error:
        _close(descriptor)
        if error.errno in _NO_SERVICE:
            return _claim(path, log)
        raise
    if holder:
        _close(descriptor)
        return holder
    with suppress(OSError):  # a full disk: the lock is held without telling by whom
        os.pwrite(descriptor, _record(), 0)
    return partial(_release, descriptor)


def _lock_descriptor(descriptor: int, path: Path) -> Holder | None:
    """Lock an open file by the system; return the holder if another process has locked it, by the system or a claim."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return _holder(os.pread(descriptor, _RECORD_BYTES, 0)) or Holder()
    if not os.fstat(descriptor).st_nlink:  # the file was deleted meanwhile, and others will lock a new one
        return Holder()
    os.ftruncate(descriptor, 0)
    return _claimed(path)


def holds_on_one_host_only(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Return whether a lock of the system on a file would not be seen on the other hosts that have its folder.

    Args:
        mounts: the table of mounted file systems.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    kind, options = "", ""
    folder, longest = path.parent.resolve(), -1
    for line in lines:
        _, escaped, *rest = line.split(" ")
        place = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), escaped))  # a space is \040
        if folder.is_relative_to(place) and len(place.parts) >= longest:  # a later mount hides an earlier one
            longest, (kind, options) = len(place.parts), rest[:2]
    return not {"", *options.split(",")}.isdisjoint(_LOCAL_LOCKS.get(kind.removesuffix("4"), ()))


def _release(descriptor: int) -> None:
    """Give a lock of the system back; in a child process, leave its parent's lock as it is."""
    if descriptor in _held:
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
        _close(descriptor)


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _close_all() -> None:
    """Close what a forked child has inherited: a lock lasts as long as a process has its file open."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)


def _record() -> bytes:
    """Return this process and the time, as the content of a lock file."""
    return json.dumps({**asdict(Process.current()), "since": time.time()}).encode()


def _holder(record: bytes) -> Holder | None:
    """Return the process that the content of a lock file or of a claim names; None if it names none."""
    try:
        content = json.loads(record)
        process = Process(str(content["host"]), int(content["pid"]), str(content["started"]), str(content["space"]))
        since = min(float(content["since"]), time.time())
        return Holder(process, since) if since >= 0 else None  # not a number is not at least 0
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _claims(path: Path) -> dict[int, Path]:
    """Return the claims of a lock file by number; the one with the highest number counts."""
    pattern = re.compile(rf"{re.escape(path.name)}-([0-9]{{1,9}})({_FREE})?")
    matches = filter(None, map(pattern.fullmatch, os.listdir(path.parent)))
    return {int(match[1]): path.with_name(match[0]) for match in matches}


def lock_files(path: Path) -> list[Path]:
    """Return the files of a lock that exist: the lock file and its claims, the one that counts last."""
    return [*filter(os.path.lexists, [path]), *(claim for _, claim in sorted(_claims(path).items()))]


def _claimed(path: Path) -> Holder | None:
    """Return the process that holds a lock by a claim, None if there is none or if it is gone."""
    claims = _claims(path)
    if not claims or (file := claims[max(claims)]).name.endswith(_FREE):
        return None
    with suppress(FileNotFoundError):  # given up just now
        holder, lost = _judge(file)
        return None if lost else holder
    return None


def _judge(file: Path) -> tuple[Holder, str]:
    """Return the holder of a claim, and why it has lost the claim; an empty text if it has not."""
    with file.open("rb") as opened:
        holder = _holder(opened.read(_RECORD_BYTES))
        renewed = os.fstat(opened.fileno()).st_mtime
    if holder and holder.process and holder.process.is_gone:
        return holder, "and is gone"
    with tempfile.TemporaryFile(dir=file.parent) as probe:
        age = os.fstat(probe.fileno()).st_mtime - renewed  # both by the clock of the file server
    if holder:
        return holder, f"and has not renewed it for {format_duration(age)}" if age > STALE_SECONDS else ""
    return Holder(since=renewed), "and has not said which one it is" if age > _EMPTY_SECONDS else ""


def _claim(path: Path, log: Callable[[str], None]) -> Callable[[], None] | Holder:
    """Lock a file by a claim. Returns and errors are those of :func:`try_lock`."""
    for _ in range(10):
        claims = _claims(path)
        newest, lost, holder = max(claims, default=0), "", None
        if newest and not claims[newest].name.endswith(_FREE):
            try:
                holder, lost = _judge(claims[newest])
            except FileNotFoundError:  # given up just now
                continue
            if not lost:
                return holder
        claim = path.with_name(f"{path.name}-{newest + 1}")
        if not _make_claim(claim):
            continue
        claims = _claims(path)
        if max(claims, default=0) != newest + 1:  # others made and passed it while this process looked at the old ones
            os.replace(claim, f"{claim}{_FREE}")
            continue
        for old in claims.keys() - {newest + 1}:
            claims[old].unlink(missing_ok=True)
        if lost:
            log(f"breaking the lock {path}: {holder} {lost}")
        return _Renewal(claim, log).release
    return Holder()  # others take and give back the lock all the time


def _make_claim(claim: Path) -> bool:
    """Make the file of a claim; return False if another process was faster."""
    try:
        descriptor = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        with open(descriptor, "wb") as file:
            file.write(_record())
    except OSError:
        os.replace(claim, f"{claim}{_FREE}")
        raise
    return True


class _Renewal:
    """A thread that renews the time of a claim until it is given back.

    Args:
        claim: the file of the claim.
        log: called with a line of text if another process has broken the claim.
    """

    def __init__(self, claim: Path, log: Callable[[str], None]) -> None:
        self._claim, self._log, self._ended = claim, log, threading.Event()
        threading.Thread(target=self._run, name=f"renewal of {claim}", daemon=True).start()

    def _run(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            try:
                os.utime(self._claim)
            except FileNotFoundError:
                if not self._ended.is_set():
                    self._log(f"another process has broken the lock {self._claim}, as it was not renewed in time")
                return
            except OSError:
                continue  # the file server does not answer: the next time may go well

    def release(self) -> None:
        """Give the lock back."""
        self._ended.set()
        with suppress(OSError):
            os.replace(self._claim, f"{self._claim}{_FREE}")
