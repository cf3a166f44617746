"""The memory of a device."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import torch

from .torchrun import local_count

CONTAINER = Path("/sys/fs/cgroup")  # folder with memory.max and memory.current, the limit and the use of a container
MEMORY_FILE = Path("/proc/meminfo")
#: Environment variable with the number of trainings that share a device; ``--jobs`` sets it for their processes.
SHARING = "CZSLKIT_TRAININGS_ON_DEVICE"
#: Share of the free memory that may be planned: the rest is for workspaces of operations and gaps of the allocator.
PLANNED_SHARE = 0.95


def total_memory(device: torch.device) -> int | None:
    """Return the bytes of memory of a device, None if they are not known.

    The memory of a CPU is that of the machine, or the limit of the container if it is lower.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a system with POSIX names
        machine = None
    return min((n for n in (machine, _container_bytes("memory.max")) if n is not None), default=None)


def plannable_memory(device: torch.device, held: int) -> int | None:
    """Return the bytes of a device that a computation may take with what it holds; None if they are not known.

    They are a share of the free memory and of what this process holds on the device. If other trainings of this
    benchmark use the device as well, now or later, each has an equal part of its memory at most.

    Args:
        held: bytes of the tensors that belong to the computation and are in memory; used for the CPU, where the bytes
            that torch holds are not known.
    """
    sharing = int(os.environ.get(SHARING, 1)) * (local_count() if device.type == "cpu" else 1)
    whole = total_memory(device)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    else:
        known = [n for n in (_available(), _container_free()) if n is not None]
        if not known:
            return None
        free = max(min(known), 0) + held
    return int(PLANNED_SHARE * (free if whole is None or sharing == 1 else min(free, whole // sharing)))


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that torch held on a CUDA device so far, or that this process held; 0 if not known."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource  # only on Unix
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _available() -> int | None:
    """Return the bytes of memory that Linux can give to programs, None on other systems."""
    try:
        lines = dict(line.split(":", 1) for line in MEMORY_FILE.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].removesuffix("kB"))
    except (OSError, KeyError, ValueError):
        return None


def _container_free() -> int | None:
    """Return the bytes that programs of the container may still take, None if there is no container, or no limit."""
    limit, used = _container_bytes("memory.max"), _container_bytes("memory.current")
    if limit is None or used is None:
        return None
    cached = re.search(r"^inactive_file (\d+)$", (CONTAINER / "memory.stat").read_text(), re.MULTILINE)
    return limit - used + (int(cached[1]) if cached else 0)


def _container_bytes(name: str) -> int | None:
    """Return the number in a file of the container, None if there is no container, or no limit."""
    try:
        return int((CONTAINER / name).read_text())
    except (OSError, ValueError):
        return None
