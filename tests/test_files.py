from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from czslkit.errors import CzslkitError, LockedError, LockError
from czslkit.files import (
    checked_filename,
    file_digest,
    file_lock,
    folder_digest,
    remove_unfinished,
    unfinished,
    write_bytes,
    write_text,
)
from czslkit.processes import Process


def test_text_is_written_in_utf_8_and_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "folder" / "words.txt", "nässe\r\n")
    assert (tmp_path / "new" / "folder" / "words.txt").read_bytes() == "nässe\r\n".encode()


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "result.json"
    write_bytes(file, b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_process_that_dies_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write_bytes(file, b"old")
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom czslkit.files import write_bytes\n"
        "os.fsync = lambda _: os._exit(9)\nwrite_bytes(Path(sys.argv[1]), b'new')"
    )
    died = subprocess.run([sys.executable, "-c", program, str(file)], check=False)
    assert died.returncode == 9
    assert file.read_bytes() == b"old"


def test_a_free_lock_is_taken_without_a_word(tmp_path: Path) -> None:
    lines: list[str] = []
    for _ in range(2):  # it is free again after the block
        with file_lock(tmp_path / "new" / ".lock", lines.append):
            pass
    assert lines == []


def test_a_lock_that_another_process_holds_is_waited_for_with_a_line(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    program = (
        "import sys\nfrom pathlib import Path\nfrom czslkit.files import file_lock\n"
        "with file_lock(Path(sys.argv[1]), print):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin and other.stdout
        assert other.stdout.readline() == "held\n"
        lines: list[str] = []

        def log(line: str) -> None:
            lines.append(line)
            other.communicate()  # ends the other process's input, and with it its lock

        with file_lock(lock, log):
            assert other.returncode == 0
    (line,) = lines
    assert re.fullmatch(rf"waiting for the lock {lock}: process {other.pid} on \S+ took it \d+ s ago", line)


def test_a_lock_that_is_not_waited_for_says_who_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    held = rf"^{lock} is locked: process {os.getpid()} on \S+ took it 1 s ago$"
    with file_lock(lock, print), pytest.raises(LockedError, match=held), file_lock(lock, print, wait=False):
        pytest.fail("both hold it")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_locked_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    message = re.escape(f"{tmp_path / '.lock'} cannot be locked, which needs a folder that can be written: ")
    with pytest.raises(LockError, match=rf"^{message}\w+: {os.strerror(code)}$"), file_lock(tmp_path / ".lock", print):
        pytest.fail("locked")


@pytest.mark.parametrize(
    ("make", "kind"),
    [(os.mkfifo, "a pipe"), (Path.mkdir, "a folder"), (lambda path: path.symlink_to(path.name), "a link")],
)
def test_what_is_in_the_place_of_a_lock_file_is_named(tmp_path: Path, make: Callable[[Path], None], kind: str) -> None:
    lock = tmp_path / ".lock"
    make(lock)
    message = f"{lock} cannot be locked: it is {kind}, expected a regular file. Remove it"
    with pytest.raises(LockError, match=f"^{re.escape(message)}$"), file_lock(lock, print):
        pytest.fail("locked")


WRITERS = """
import os, sys
from pathlib import Path
from czslkit.files import write_bytes
os.getpid = lambda: 7
for i in range(500):
    write_bytes(Path(sys.argv[1]), bytes([48 + i % 10]) * 20_000)
"""


def test_processes_with_one_number_write_one_file_whole(tmp_path: Path) -> None:
    file, command = tmp_path / "result", [sys.executable, "-c", WRITERS, str(tmp_path / "result")]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        content = file.read_bytes() if file.exists() else b""
        assert content in (b"", content[:1] * 20_000)
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert list(tmp_path.iterdir()) == [file]


def write_folder(folder: Path, then: Callable[[], float]) -> None:
    with unfinished(folder) as made:
        made.mkdir()
        (made / "image").touch()
        then()


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_folder(tmp_path / "pets", lambda: 1 / 0)
    assert not list(tmp_path.iterdir())
    write_folder(tmp_path / "pets", lambda: 1)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["pets", "pets/image"]


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "ü" * 127):
        write_bytes(tmp_path / name, b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"


def left_by(process: Process, folder: Path, age: float = 0.0) -> Path:
    file = folder / f".closed.json.{process.space}-{process.pid}-{process.started}-01234567.tmp"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_unfinished_names_say_who_writes(tmp_path: Path) -> None:
    with unfinished(tmp_path / "closed.json") as made:
        made.touch()
        expected = left_by(Process.current(), tmp_path)
        assert made.name[:-12] == expected.name[:-12]
        assert made != expected


DAY = 86_400


@pytest.mark.parametrize("locked", [False, True])
def test_what_processes_left_that_are_gone_is_removed(tmp_path: Path, locked: bool) -> None:
    me = Process.current()
    gone, elsewhere = replace(me, started="1"), replace(me, space="01234567")
    unknown = replace(me, space="", started="")
    alive = left_by(me, tmp_path, age=2 * DAY)
    writing = [left_by(elsewhere, tmp_path, age=DAY / 2), left_by(unknown, tmp_path, age=DAY / 2)]
    left_by(gone, tmp_path)
    left_by(replace(elsewhere, pid=8), tmp_path, age=2 * DAY)
    folder = tmp_path / left_by(replace(gone, pid=9), tmp_path).name
    folder.unlink()
    folder.mkdir()
    (folder / "image.png").touch()
    other = tmp_path / ".bashrc"
    other.touch()
    remove_unfinished(tmp_path, locked=locked)
    assert {*tmp_path.iterdir()} == {alive, other, *([] if locked else writing)}


def test_with_the_lock_the_unfinished_files_of_other_programs_are_removed(tmp_path: Path) -> None:
    kept = [tmp_path / "closed.json", tmp_path / "training" / ".lock", tmp_path / ".tmp"]
    left = [tmp_path / "training" / ".tmpAb3dE6", tmp_path / ".closed.json.77.tmp", tmp_path / ".last.safetensors.tmp"]
    for file in (*kept, *left):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    remove_unfinished(tmp_path)
    assert all(file.exists() for file in (*kept, *left))
    remove_unfinished(tmp_path, locked=True)
    assert [file.exists() for file in (*kept, *left)] == [True] * 3 + [False] * 3


def test_of_a_folder_that_is_missing_nothing_is_removed(tmp_path: Path) -> None:
    for locked in (False, True):
        remove_unfinished(tmp_path / "nowhere", locked=locked)
    assert not list(tmp_path.iterdir())


def test_a_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), file_lock(tmp_path / ".lock", print):
        raise ZeroDivisionError
    with file_lock(tmp_path / ".lock", lambda line: pytest.fail(line)):
        pass


@pytest.mark.parametrize("name", ["../evil", "a/b", "a\\b", "", ".hidden", "a\nb", "a\n", "a b", "-x", "+x"])
def test_a_name_that_could_lead_out_of_a_folder_is_refused(name: str) -> None:
    message = re.escape(f"{name!r} cannot name a file of results: letters, digits and . _ + - only")
    with pytest.raises(CzslkitError, match=f"^{message}$"):
        checked_filename(name)


@pytest.mark.parametrize("name", ["csp", "mit-states", "a+b", "seed0-3f2a91c0", "closed.stale-2.json", "_x", "nässe"])
def test_a_plain_name_is_returned(name: str) -> None:
    assert checked_filename(name) == name


def test_a_digest_is_that_of_the_bytes_also_after_they_changed(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    for content in (b"", b"1" * 3_000_000, b"2" * 3_000_001):
        file.write_bytes(content)
        assert file_digest(file) == hashlib.sha256(content).hexdigest()[:16]


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"1")
    digest = file_digest(file)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("read again"))
    assert file_digest(file) == digest


def test_the_digest_of_a_folder_is_of_relative_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x.txt").write_text("1")
        (tmp_path / name / "y.txt").write_text("2")
    before = folder_digest(tmp_path / "a")
    assert before == folder_digest(tmp_path / "b")
    (tmp_path / "a" / "deep" / "x.txt").rename(tmp_path / "a" / "x.txt")
    (tmp_path / "b" / "y.txt").write_text("3")
    assert len({before, folder_digest(tmp_path / "a"), folder_digest(tmp_path / "b")}) == 3
