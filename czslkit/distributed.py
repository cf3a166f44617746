"""Processes that compute together, and what they send to each other.

``torchrun`` starts the processes, and :func:`connect` connects them. Within a ``with together()`` block all of them run
the same code: every process calls the same functions of this module in the same order, and :func:`size` is their
number. Elsewhere, and in a single process, :func:`size` is 1, and these functions do nothing.
"""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import ConfigError
from .torchrun import local_rank, process_count

T = TypeVar("T")

#: A rank waits this long for the others: the first one may wait for a job that another benchmark runs. A rank that ends
#: is noticed at once.
_LONGEST_WAIT = timedelta(days=30)
#: A rank waits this long to learn whether the other ranks have failed at the same place.
AGREEMENT = timedelta(seconds=60)


@dataclass
class _Group:
    """The connected processes."""

    rank: int
    size: int
    store: dist.Store
    together: bool = False  # whether all of them run the same code now
    operations: int = 0  # number of operations so far; equal on all ranks when they run the same code
    failures: int = 0  # number of failures of all ranks so far


_group: _Group | None = None


def connect() -> None:
    """Connect this process to the others that torchrun started; do nothing in a single process or a second time.

    Tensors on the CPU travel by gloo, and tensors on a GPU by NCCL.

    Raises:
        ConfigError: there are more processes on this node than GPUs.
    """
    global _group
    if _group or process_count() == 1:
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend, gpus = "cpu:gloo,cuda:nccl", torch.cuda.device_count()
        if local_rank() >= gpus:
            raise ConfigError(
                [
                    f"process {local_rank() + 1} on this node needs a GPU of its own, found {gpus}: start at most "
                    f"{gpus} processes on each node with --nproc-per-node, or set CUDA_VISIBLE_DEVICES to nothing"
                ]
            )
        torch.cuda.set_device(local_rank())
    store, rank, count = next(dist.rendezvous("env://"))
    group_store = dist.PrefixStore("czslkit", store)
    dist.init_process_group(backend, store=group_store, rank=rank, world_size=count, timeout=_LONGEST_WAIT)
    atexit.register(dist.destroy_process_group)
    _group = _Group(rank, count, dist.PrefixStore("czslkit-failures", store))


def size() -> int:
    """Return the number of processes that compute together now."""
    return _group.size if _group and _group.together else 1


def rank() -> int:
    """Return the number of this process among those that compute together now, from 0."""
    return _group.rank if _group and _group.together else 0


@contextmanager
def together(active: bool = True) -> Iterator[None]:
    """Let all processes compute together within the ``with`` block; with ``active=False``, each by itself."""
    before = _group.together if _group else False
    if _group:
        _group.together = active
    try:
        yield
    finally:
        if _group:
            _group.together = before


def share(count: int) -> slice:
    """Return this rank's part of ``count`` rows: consecutive ones, as many as others have, or one more or less."""
    part, more = divmod(count, size())
    start = rank() * part + min(rank(), more)
    return slice(start, start + part + (rank() < more))


def broadcast(value: T) -> T:
    """Return the value of the first rank on all ranks. It works outside of :func:`together`, too."""
    if _group is None:
        return value
    _group.operations += 1
    values: list[Any] = [value if _group.rank == 0 else None]
    dist.broadcast_object_list(values, src=0)
    found: T = values[0]
    return found


def first(function: Callable[[], T]) -> T:
    """Return what ``function`` returns on the first rank, which alone calls it; an error is raised on all ranks."""
    if size() == 1:
        return function()
    outcome: tuple[Any, Exception | None] = (None, None)
    if rank() == 0:
        with together(False):
            try:
                outcome = (function(), None)
            except Exception as error:
                outcome = (None, error)
    result, failure = broadcast((outcome[0], _portable(outcome[1])))
    if failure is not None:
        raise outcome[1] or failure  # the first rank has the traceback
    found: T = result
    return found


def gather(value: T) -> list[T]:
    """Return the values of all ranks, on all ranks."""
    if size() == 1:
        return [value]
    _counted()
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def concatenated(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return the rows of all ranks in one tensor on ``device``, in the order of the ranks; a rank may have none."""
    if size() == 1:
        return torch.cat(list(parts))
    shares = gather([part.cpu() for part in parts])
    return torch.cat([part for share in shares for part in share]).to(device)


def summed(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, on all ranks; the tensor has the same shape on each of them."""
    if size() == 1:
        return tensor
    _counted()
    exact = tensor.detach().float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.detach().clone()
    dist.all_reduce(exact)
    return exact.to(tensor.dtype)


@contextmanager
def agreed() -> Iterator[None]:
    """Pass on an error in the ``with`` block that all ranks have at this place; any other error ends the program.

    After an error of one rank alone, the others would wait for it forever. So it ends, and torchrun ends the others.
    """
    try:
        yield
    except Exception as error:
        agree(error)
        raise


def agree(error: Exception) -> None:
    """Return if all ranks have failed after the same operations within a minute, and end this process otherwise.

    It ends at once and with status 1: an ordinary exit might wait for operations that the other ranks never finish.
    """
    if size() == 1 or _group is None:
        return
    key, here = f"failure {_group.failures}", f"operation {_group.operations}"
    _group.failures += 1
    _group.store.set(f"{key}, rank {_group.rank}", here)
    keys = [f"{key}, rank {number}" for number in range(_group.size)]
    try:
        _group.store.wait(keys, AGREEMENT)
        places = {_group.store.get(key).decode() for key in keys}
    except RuntimeError:  # a time-out, or the store has ended with the other ranks
        places = set()
    if places != {here}:
        text = "".join(traceback.format_exception(error))
        text += f"czslkit: process {_group.rank} of {_group.size} failed alone with {type(error).__name__}: {error}"
        print(f"{text}\nRun the same command again to go on after the last finished epoch", file=sys.stderr, flush=True)
        os._exit(1)


def _counted() -> None:
    """Count an operation of all ranks."""
    assert _group is not None
    _group.operations += 1


def _portable(error: Exception | None) -> Exception | None:
    """Return an error that can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
