from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from czslkit.data.writing import write_dataset
from czslkit.errors import DataError
from czslkit.processes import Process

PAIRS = {split: [("wet", "dog")] for split in ("train", "val", "test")}


def one_picture() -> Iterator[tuple[dict[str, str], Image.Image]]:
    yield {"image": "wet_dog/a.png", "attr": "wet", "obj": "dog", "set": "train"}, Image.new("RGB", (4, 4))


def test_writing_leaves_a_folder_that_is_there_as_it_was(pets: Path) -> None:
    before = sorted(pets.rglob("*"))
    assert not write_dataset(pets, PAIRS, one_picture())
    assert sorted(pets.rglob("*")) == before


@pytest.mark.parametrize("blow", [RuntimeError("full"), KeyboardInterrupt()])
def test_writing_that_breaks_off_leaves_nothing(tmp_path: Path, blow: BaseException) -> None:
    def broken() -> Iterator[tuple[dict[str, str], Image.Image]]:
        yield from one_picture()
        assert list(tmp_path.glob(".pets.*.tmp/images/wet_dog/a.png"))
        assert not (tmp_path / "pets").exists()
        raise blow

    with pytest.raises(type(blow)):
        write_dataset(tmp_path / "pets", PAIRS, broken())
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == []
    assert write_dataset(tmp_path / "pets", PAIRS, one_picture())


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    gone = replace(Process.current(), started="1")
    left = tmp_path / f".pets.{gone.space}-{gone.pid}-{gone.started}-01234567.tmp"
    (left / "images").mkdir(parents=True)
    (left / "images" / "half.jpg").touch()
    assert write_dataset(tmp_path / "pets", PAIRS, one_picture())
    assert [file.name for file in (tmp_path / "pets" / "images").rglob("*.*")] == ["a.png"]
    assert not left.exists()


def test_a_second_writer_waits_for_the_first(tmp_path: Path) -> None:
    started, go_on, rendered = threading.Event(), threading.Event(), []
    wrote: dict[str, bool] = {}

    def slow() -> Iterator[tuple[dict[str, str], Image.Image]]:
        started.set()
        assert go_on.wait(10)
        yield from one_picture()

    def other() -> Iterator[tuple[dict[str, str], Image.Image]]:
        rendered.append("second")
        yield from one_picture()

    def write(name: str, pictures: Iterator[tuple[dict[str, str], Image.Image]]) -> None:
        wrote[name] = write_dataset(tmp_path / "pets", PAIRS, pictures)

    first = threading.Thread(target=write, args=("first", slow()))
    second = threading.Thread(target=write, args=("second", other()))
    first.start()
    assert started.wait(10)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)
    assert wrote == {"first": True, "second": False}
    assert rendered == []


def test_a_place_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=rf"cannot write {re.escape(str(tmp_path / 'file' / 'pets'))}"):
        write_dataset(tmp_path / "file" / "pets", PAIRS, one_picture())
