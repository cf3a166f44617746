from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from czslkit.errors import CzslkitError
from czslkit.files import (
    checked_filename,
    file_digest,
    file_lock,
    folder_digest,
    write_bytes,
    write_text,
)


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
    assert lines == [f"waiting for another process that has locked {lock}"]


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
