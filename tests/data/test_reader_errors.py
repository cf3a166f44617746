"""Errors in the processes that read images."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from czslkit.data import reader_errors
from czslkit.data.image_reader import ImageReader
from czslkit.data.image_set import ImageSet, RawImages
from czslkit.data.reader_errors import reader_problem, tell_deaths, told_reader_errors
from czslkit.data.splits import Splits
from czslkit.errors import ConfigError, DataError, ReaderError
from czslkit.types import Preprocessing

BATCHES = torch.arange(6).split(2)
#: What torch and the system say -> what a user is told.
MEMORY_MESSAGES = [
    RuntimeError("unable to write to file </torch_13_42_0>: No space left on device (28)"),
    RuntimeError("unable to open shared memory object </torch_1_2_3> in read-write mode: Too many open files (24)"),
    RuntimeError(
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit."
    ),
]
#: Errors of the system that are also those of full shared memory, and of processes that cannot be started.
NUMBERS = [errno.ENOSPC, errno.EMFILE, errno.EAGAIN, errno.ENOMEM]


class StrangeError(Exception):
    """An error that cannot be made from its arguments."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")


class Images(ImageSet):
    """Images of which the fourth raises an error, or ends its process."""

    error: Exception | None = None
    signal: int | None = None
    status: int | None = None

    def read(self, indices: Sequence[int], epoch: int = 0) -> RawImages:
        if 3 in indices and self.signal is not None:
            os.kill(os.getpid(), self.signal)
        if 3 in indices and self.status is not None:
            sys.exit(self.status)
        if 3 in indices and self.error:
            raise self.error
        return super().read(indices, epoch)


@pytest.fixture(autouse=True, scope="module")
def quick_ends() -> Iterator[None]:
    """Wait less for the end of reading processes that lost their results; a loader may end in the setup of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
        yield


@pytest.fixture
def images(splits: Splits) -> Images:
    return Images(splits.train, Preprocessing(24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


@pytest.mark.parametrize(
    "error",
    [
        DataError("a.jpg is not a readable image"),
        ConfigError(["lr: too small", "momentum: too large"]),
        KeyError("wet"),
        OSError(errno.EACCES, "Permission denied", "a.jpg"),
        RuntimeError("an error of a plugin"),
        RuntimeError("the device is out of shared memory"),
        *(OSError(number, os.strerror(number), "a.jpg") for number in NUMBERS),
    ],
)
def test_an_error_is_the_same_whoever_reads(error: Exception, images: Images) -> None:
    images.error = error
    told = []
    for workers in (0, 2):
        with pytest.raises(type(error)) as caught:
            list(ImageReader(images, workers=workers).batches(BATCHES))
        told.append((type(caught.value), str(caught.value), vars(caught.value)))
    assert told[0] == told[1]


def test_the_traceback_of_the_process_is_kept(images: Images) -> None:
    images.error = DataError("a.jpg is not a readable image")
    with pytest.raises(DataError, match=r"^a\.jpg is not a readable image$") as caught:
        list(ImageReader(images, workers=1).batches(BATCHES))
    printed = "".join(traceback.format_exception(caught.value))
    assert "in read" in printed
    assert "raise self.error" in printed


def test_an_error_that_cannot_be_sent_is_told_with_its_type(images: Images) -> None:
    images.error = StrangeError("a.jpg", "too strange")
    with pytest.raises(RuntimeError, match=r"^StrangeError: a\.jpg: too strange$"):
        list(ImageReader(images, workers=1).batches(BATCHES))


def test_a_process_that_was_killed_says_what_to_do(images: Images) -> None:
    images.signal = signal.SIGKILL
    with pytest.raises(
        ReaderError, match=r"was ended by the signal Killed; memory may .* fewer processes with --workers"
    ):
        list(ImageReader(images, workers=2).batches(BATCHES))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("signal", signal.SIGSEGV, "was ended by the signal Segmentation fault"),
        ("signal", signal.SIGTERM, "was ended by the signal Terminated"),
        ("status", 3, "ended unexpectedly with exit code 3"),
        ("status", 0, "ended unexpectedly"),
    ],
)
def test_a_process_that_ends_for_another_reason_is_not_short_of_memory(
    name: str, value: int, reason: str, images: Images
) -> None:
    setattr(images, name, value)
    with pytest.raises(ReaderError, match=rf"^one of the 2 processes that read images {reason}\. Use fewer processes"):
        list(ImageReader(images, workers=2).batches(BATCHES))


def test_the_death_of_a_process_is_told_outside_of_reading_too() -> None:
    def raise_as_torch(number: int, frame: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    before = signal.signal(signal.SIGCHLD, raise_as_torch)
    try:
        for workers in (3, 2):  # the second number is that of the processes that read now
            tell_deaths(workers)
        with pytest.raises(ReaderError, match="one of the 2 processes that read images was ended by the signal Killed"):
            os.kill(os.getpid(), signal.SIGCHLD)
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("error", MEMORY_MESSAGES)
def test_full_shared_memory_says_what_to_do(error: Exception, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(Tensor, "share_memory_", refuse)
    with pytest.raises(
        ReaderError, match=r"^the 2 processes .* cannot get shared memory .*--workers 0 .*--shm-size"
    ) as c:
        list(ImageReader(images, workers=2).batches(BATCHES))
    assert str(error).split(".")[0] in str(c.value)


def test_a_machine_without_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_errors, "_SHARED_MEMORY", "/nowhere")
    assert "there is no /nowhere" in reader_problem(MEMORY_MESSAGES[0], 2)


def test_full_shared_memory_is_found_before_torch_starts_anything(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multiprocessing.Queue", refuse)
    monkeypatch.setattr("torch.utils.data.DataLoader.__iter__", lambda loader: pytest.fail("started"))
    with pytest.raises(ReaderError, match=r"the 2 processes that read images cannot get shared memory \(\[Errno 28\]"):
        list(ImageReader(images, workers=2).batches(BATCHES))


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENOSYS])
def test_processes_that_cannot_be_started_say_what_to_do(
    number: int, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("torch.utils.data.DataLoader.__iter__", refuse)
    with pytest.raises(ReaderError, match=f"the process that reads images cannot be started: .*{os.strerror(number)}"):
        list(ImageReader(images, workers=1).batches(BATCHES))


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), OSError(errno.EACCES, "Permission denied")])
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, told_reader_errors(2):
        raise error
    assert caught.value is error


def test_errors_of_the_main_process_are_no_errors_of_readers() -> None:
    with pytest.raises(RuntimeError, match="out of shared memory") as caught, told_reader_errors(0):
        raise RuntimeError("out of resource: out of shared memory on the device")
    assert not isinstance(caught.value, ReaderError)
