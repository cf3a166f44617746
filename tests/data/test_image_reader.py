"""The processes of a reader, from its first pass to its end."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from czslkit.data.image_reader import ImageReader
from czslkit.data.image_set import ImageSet
from czslkit.data.loading import load_dataset
from czslkit.errors import DataError, ReaderError
from czslkit.types import Preprocessing

ORDER = torch.arange(6).split(2)


@pytest.fixture
def images(pets: Path) -> ImageSet:
    return ImageSet(load_dataset("pets", pets.parent).train, Preprocessing(24))


def processes() -> set[int]:
    return {process.pid for process in multiprocessing.active_children() if process.pid}


def ends(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Return whether something happens within some seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_processes_serve_every_pass_and_end_with_the_reader(images: ImageSet) -> None:
    before = processes()
    reader = ImageReader(images, workers=2)
    assert processes() == before
    first = torch.cat(list(reader.batches(ORDER)))
    started = processes() - before
    assert len(started) == 2
    assert torch.equal(torch.cat(list(reader.batches(ORDER))), first)
    assert processes() - before == started
    del reader
    assert ends(lambda: processes() == before)


def test_a_pass_may_be_left_before_its_end(images: ImageSet) -> None:
    before = processes()
    reader = ImageReader(images, workers=2)
    expected = list(ImageReader(images).batches(ORDER))
    assert torch.equal(next(reader.batches(ORDER)), expected[0])
    started = processes() - before
    assert all(torch.equal(one, other) for one, other in zip(reader.batches(ORDER), expected, strict=True))
    assert processes() - before == started


def test_a_pass_within_a_pass_reads_its_own_images(images: ImageSet) -> None:
    before = processes()
    reader = ImageReader(images, workers=1)
    expected = list(ImageReader(images).batches(ORDER))
    for outer, image in zip(reader.batches(ORDER), expected, strict=True):
        inner = list(reader.batches(ORDER))
        assert all(torch.equal(one, other) for one, other in zip([outer, *inner], [image, *expected], strict=True))
    gc.collect()
    assert ends(lambda: len(processes() - before) == 1)


def test_no_more_processes_start_than_there_are_batches(images: ImageSet) -> None:
    before = processes()
    reader = ImageReader(images, workers=3)
    list(reader.batches(ORDER[:1]))
    assert len(processes() - before) == 1
    list(reader.batches(ORDER[:2]))
    assert ends(lambda: len(processes() - before) == 2)


def test_processes_end_when_they_are_told_to(images: ImageSet) -> None:
    before = processes()
    reader = ImageReader(images, workers=1)
    list(reader.batches(ORDER))
    reader.end_processes()
    assert ends(lambda: processes() == before)
    assert len(list(reader.batches(ORDER))) == 3


def test_processes_end_after_an_error_and_a_later_pass_works(images: ImageSet) -> None:
    before = processes()
    reader = ImageReader(images, workers=1)
    content = images.split.paths[1].read_bytes()
    images.split.paths[1].write_bytes(b"")
    with pytest.raises(DataError, match=r"train1.jpg is not a readable image"):
        list(reader.batches(ORDER))
    assert ends(lambda: processes() == before)
    images.split.paths[1].write_bytes(content)
    assert len(list(reader.batches(ORDER))) == 3


def test_a_process_that_was_killed_between_passes_is_an_error(images: ImageSet) -> None:
    before = processes()
    reader = ImageReader(images, workers=1)
    list(reader.batches(ORDER))
    (process,) = processes() - before
    with pytest.raises(ReaderError, match=r"the process that reads images was ended by the signal Killed"):
        kill_and_read(reader, process)


def kill_and_read(reader: ImageReader, process: int) -> None:
    os.kill(process, signal.SIGKILL)
    time.sleep(0.5)  # torch may raise here, where the signal of its end arrives
    list(reader.batches(ORDER))


@pytest.mark.slow
def test_no_process_outlives_a_program_that_was_killed(pets: Path) -> None:
    program = f"""
import multiprocessing, time, torch
from czslkit.data.image_reader import ImageReader
from czslkit.data.image_set import ImageSet
from czslkit.data.loading import load_dataset
from czslkit.types import Preprocessing
reader = ImageReader(ImageSet(load_dataset("pets", {str(pets.parent)!r}).train, Preprocessing(24)), workers=2)
list(reader.batches(torch.arange(6).split(2)))
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        started = [Path(f"/proc/{pid}") for pid in run.stdout.readline().split()]
        assert len(started) == 2
        run.kill()
    assert ends(lambda: not any(process.exists() for process in started), 30)
