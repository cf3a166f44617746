from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from czslkit.data.cache import Cache
from czslkit.files import file_lock


class Usage(NamedTuple):
    free: int


class Kept:
    """Ask a cache for one file, which is written with ``content``."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.written = 0
        self.content = b"what is kept"
        self.cache = Cache(folder, log=self.said.append)

    def write(self, file: Path) -> None:
        self.written += 1
        file.write_bytes(self.content)

    def read(self, file: Path) -> bytes:
        if not (content := file.read_bytes()).startswith(b"what"):
            raise ValueError(f"it starts with {content[:3]!r}")
        return content

    def obtain(self, version: str = "1", **others: Any) -> bytes | None:
        asked: dict[str, Any] = {
            "description": "a test",
            "size": 1500,
            "read": self.read,
            "write": self.write,
            **others,
        }
        return self.cache.obtain("thing", version, ".bin", **asked)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "below" / "cache")


def files(kept: Kept) -> list[str]:
    return sorted(each.name for each in kept.cache.folder.iterdir() if each.suffix != ".lock")


def test_a_file_is_made_once(kept: Kept) -> None:
    assert [kept.obtain() for _ in range(3)] == [b"what is kept"] * 3
    assert kept.written == 1
    assert files(kept) == ["thing-1.bin"]


def test_size_and_place_of_a_file_are_logged_before_it_is_made(kept: Kept) -> None:
    def write(file: Path) -> None:
        assert kept.said == [f"making a test: 1.5 kB in {kept.cache.folder / 'thing-1.bin'}"]
        kept.write(file)

    assert kept.obtain(write=write)


def test_without_disk_space_nothing_is_made_and_both_sizes_are_logged(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(1_000))
    assert kept.obtain() is None
    assert kept.said == [f"no space for a test: 1.5 kB needed, 1.0 kB free in {kept.cache.folder}; continuing without"]
    assert not files(kept)


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(kept: Kept) -> None:
    def write(file: Path) -> None:
        file.write_bytes(b"what")
        raise OSError(28, "No space left on device")

    assert kept.obtain(write=write) is None
    assert kept.said[1:] == ["continuing without a file of a test: [Errno 28] No space left on device"]
    assert not files(kept)


def test_without_a_usable_folder_nothing_is_cached(kept: Kept) -> None:
    kept.cache.folder.parent.mkdir()
    kept.cache.folder.write_text("a file")
    assert kept.obtain() is None
    assert re.fullmatch(rf"continuing without a file of a test: .*{kept.cache.folder}.*", kept.said[0])


def test_a_folder_that_cannot_be_locked_is_a_line(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert kept.obtain() is None
    (line,) = kept.said
    lock = kept.cache.folder / ".thing.lock"
    assert line.startswith(f"continuing without a file of a test: {lock} cannot be locked")


def test_existing_files_are_read_without_a_lock(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.obtain()
    monkeypatch.setattr("czslkit.data.cache.file_lock", lambda *a: pytest.fail("locked"))
    assert kept.obtain() == b"what is kept"


def test_a_file_that_holds_something_else_is_made_again(kept: Kept) -> None:
    kept.obtain()
    path = kept.cache.folder / "thing-1.bin"
    path.write_bytes(b"damaged")
    assert kept.obtain() == b"what is kept"
    assert f"{path} does not contain a test and is made again: it starts with b'dam'" in kept.said
    assert kept.written == 2


def test_a_file_of_another_version_is_replaced(kept: Kept) -> None:
    kept.obtain("1")
    kept.content = b"whatever"
    assert kept.obtain("2") == b"whatever"
    assert files(kept) == ["thing-2.bin"]
    old = kept.cache.folder / "thing-1.bin"
    assert f"{old} was made by another version of the code or packages and is deleted" in kept.said


def test_an_error_of_what_is_kept_is_raised_and_leaves_nothing(kept: Kept) -> None:
    def write(file: Path) -> None:
        file.write_bytes(b"what")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        kept.obtain(write=write)
    assert not files(kept)


def test_another_process_is_waited_for_and_its_file_read(kept: Kept) -> None:
    kept.cache.folder.mkdir(parents=True)
    locked = threading.Event()

    def another() -> None:
        with file_lock(kept.cache.folder / ".thing.lock", kept.said.append):
            locked.set()
            time.sleep(0.3)
            (kept.cache.folder / "thing-1.bin").write_bytes(b"what another made")

    threading.Thread(target=another).start()
    locked.wait()
    assert kept.obtain() == b"what another made"
    (line,) = kept.said
    assert line.startswith(f"waiting for the lock {kept.cache.folder / '.thing.lock'}: process ")
    assert not kept.written


PROCESS = """
import os, signal, sys, time
from pathlib import Path
from czslkit.data.cache import Cache
from czslkit.files import file_lock
folder, fate = Path(sys.argv[1]), sys.argv[2]
def write(file):
    with (folder / "log").open("a") as log:
        log.write("made ")
    with file.open("wb") as out:
        out.write(b"half ")
        out.flush()
        if fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        out.write(b"and half")
print(Cache(folder).obtain("thing", "1", ".bin", description="a test", size=13, read=Path.read_text, write=write))
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    def go(fate: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROCESS, str(tmp_path), fate]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return go


def test_a_partial_file_of_a_killed_process_is_not_used(
    tmp_path: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    killed = start("killed")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.glob(".thing-1.bin.*.tmp")
    assert left.read_bytes() == b"half "
    assert start("whole").communicate()[0] == "half and half\n"
    assert not left.exists()


def test_of_several_processes_one_makes_the_file(tmp_path: Path, start: Callable[[str], subprocess.Popen[str]]) -> None:
    processes = [start("whole") for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == ["half and half\n"] * 3
    assert (tmp_path / "log").read_text() == "made "
