"""Errors of the processes that read images, told as errors of the main process."""

from __future__ import annotations

import errno
import multiprocessing
import pickle
import re
import shutil
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from ..errors import ReaderError
from ..sizes import format_bytes

_SHARED_MEMORY = "/dev/shm"  # the folder through which processes share tensors
_MEMORY_PROBLEM = r"shared memory|bus error|</torch_|errno 28|no space left"  # in messages of torch and of the system
_DEATH = (
    r"DataLoader worker \(pid.*?(?:killed by signal: (?P<signal>[^.]*)|unexpectedly(?P<code> with exit code \d+)|$)"
)
_LIMITS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSYS)  # of errors at the start of a process
_FEWER = "Use fewer processes with --workers (workers=); with 0, images are read in the main process"


class ReaderTraceback(Exception):
    """The traceback in a process that reads images, as the cause of its error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Failure:
    """An error on its way to the main process."""

    error: Exception
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Return the failure of an error that was caught; an error that cannot be sent becomes a RuntimeError."""
        try:
            sent = pickle.loads(pickle.dumps(error))
            same = type(sent) is type(error) and str(sent) == str(error)
        except Exception:  # an error of a plugin may have any constructor
            same = False
        told = error if same else RuntimeError(f"{type(error).__name__}: {error}")
        return cls(told, "".join(traceback.format_exception(error)))


class ReportedImages(Dataset[Any]):
    """Batches of images as a torch dataset; an error in another process is returned as a :class:`Failure`.

    Args:
        images: has a function ``read(indices, epoch)``.
    """

    def __init__(self, images: Any) -> None:
        self._images = images

    def __getitems__(self, batch: tuple[int, list[int]]) -> Any:
        """Return the images of a batch, given as its epoch and its indices; or the error of reading them."""
        epoch, indices = batch
        try:
            return self._images.read(indices, epoch)
        except Exception as error:
            if get_worker_info() is None:
                raise
            return Failure.of(error)


@contextmanager
def told_reader_errors(workers: int) -> Iterator[None]:
    """Turn errors that come from the end of a reading process, or from full shared memory, into a ReaderError.

    Args:
        workers: number of processes that read images.

    Raises:
        ReaderError: a process ended, or memory is full; the message says what to do.
    """
    try:
        yield
    except ReaderError:
        raise
    except (RuntimeError, OSError) as error:
        # If torch waits for images while a process ends, the signal that ended it is in the cause.
        problems = [reader_problem(one, workers) for one in (error.__cause__, error)]
        if not workers or not any(problems) or isinstance(error.__cause__, ReaderTraceback):
            raise
        raise ReaderError(next(filter(None, problems))) from error


def reader_problem(error: BaseException | None, workers: int) -> str:
    """Return what an error of torch or the system says about the reading processes; empty if it is another error."""
    text = str(error)
    if isinstance(error, ReaderError):
        return text
    readers = f"the {workers} processes that read images" if workers > 1 else "the process that reads images"
    if re.search(_MEMORY_PROBLEM, text, re.IGNORECASE):
        return (
            f"{readers} cannot get shared memory ({_first_line(text)}; {_free_memory()}): read images in the main "
            "process with --workers 0 (workers=0), or give more, in a container with docker run --shm-size=8g"
        )
    if isinstance(error, OSError) and error.errno in _LIMITS:
        return f"{readers} cannot be started: {text}. {_FEWER}"
    if death := re.search(_DEATH, text):
        one = f"one of {readers}" if workers > 1 else readers
        name = (death["signal"] or "").strip()
        reason = f"was ended by the signal {name}" if name else f"ended unexpectedly{death['code'] or ''}"
        memory = "; memory may have run out" if name.startswith("Killed") else ""
        return f"{one} {reason}{memory}. {_FEWER}"
    return ""


def _free_memory() -> str:
    """Return in words how much shared memory is free."""
    try:
        usage = shutil.disk_usage(_SHARED_MEMORY)
    except OSError:
        return f"there is no {_SHARED_MEMORY}"
    return f"{_SHARED_MEMORY} has {format_bytes(usage.free)} free of {format_bytes(usage.total)}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def check_queues(workers: int) -> None:
    """Make the queues that reading processes need, and drop them.

    If torch cannot make them, it leaves a half-made object, which prints a traceback when Python deletes it.

    Raises:
        OSError: the shared memory is full, or too many files are open.
    """
    _ = [multiprocessing.Queue() for _ in range(workers + 3)]  # all at once; three for results and for the end


def tell_deaths(workers: int) -> None:
    """Let the death of a reading process, which torch raises wherever this process is, be a ReaderError.

    Call this in the main thread after torch has started processes: torch then handles the signal that one has ended.
    """
    handle = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if not callable(handle):
        return
    handle = getattr(handle, "of_torch", handle)

    def told(number: int, frame: FrameType | None) -> None:
        with told_reader_errors(workers):
            handle(number, frame)

    told.of_torch = handle  # type: ignore[attr-defined]  # is wrapped again for another number of processes
    try:
        signal.signal(signal.SIGCHLD, told)
    except ValueError:  # not the main thread
        return
