"""Who a process is, on any host and in any container, and whether it is gone. It does not import torch."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process that wrote a file, perhaps on another host or in another container.

    Process numbers repeat: in every container, after a restart, and after a while on one host. Two processes with the
    same number differ in ``space`` or in ``started``.
    """

    host: str
    pid: int
    started: str  # its start in clock ticks after the start of its system; empty if not known
    space: str  # 8 hex digits for its host, its running system and its container; empty if not known

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        pid, space = os.getpid(), _space()
        return cls(socket.gethostname(), pid, _started(pid) if space else "", space)

    @property
    def is_visible(self) -> bool:
        """True if it can be known from here whether the process has ended: in the same container of the same host."""
        return bool(self.started and self.space) and self.space == _space()

    @property
    def is_gone(self) -> bool:
        """True if the process has certainly ended, False if it runs or if that cannot be known from here."""
        if not self.is_visible:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it exists and belongs to another user
        return _started(self.pid) not in ("", self.started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _space() -> str:
    """Return 8 hex digits that processes share if their numbers can be compared; empty if that is not known."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # /proc has the numbers of another container
            return ""
        return _digest(f"{socket.gethostname()} {_system()} {os.stat('/proc/self/ns/pid').st_ino}")
    except OSError:
        return ""


@functools.cache
def _system() -> str:
    """Return the id of the running system, which every start of a host changes."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: int) -> str:
    """Return the start of a process, ``ended`` if only its exit status is left, empty if it cannot be read."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    state, *fields = content.rpartition(b")")[2].decode().split()  # the name in parentheses may contain anything
    return "ended" if state in "ZX" else fields[18]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
