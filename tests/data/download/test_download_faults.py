"""Killed processes, parallel processes and full disks during a download."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

from czslkit.cli import main
from czslkit.data.download import archive_cache, archives, install, resumable_http
from czslkit.data.download.download import download
from czslkit.data.download.resumable_http import HttpClient
from czslkit.data.make.mini import write_mini
from czslkit.errors import DataError

CLIENT = HttpClient(timeout=2, attempts=2, pause=0.001, progress=False)
#: Files of a dataset that can be unpacked, but not loaded.
FILES = {f"images/{n}.jpg": os.urandom(3000) for n in range(40)}


def packed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in FILES.items():
            file.writestr(f"cgqa/{name}", content)
    return buffer.getvalue()


@pytest.fixture
def shop(shop: Any) -> Any:
    shop.files["cgqa.zip"] = packed()
    return shop


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def complete(root: Path) -> bool:
    """Return whether the dataset is complete, and only digest files and locks exist besides."""
    folder = root / "cgqa"
    found = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    found.pop(".unpacked.json")
    rest = {file.name for file in root.rglob("*") if folder not in (file, *file.parents) and file.suffix != ".lock"}
    return found == FILES and rest == {".downloads", "cgqa.zip.json"}


def started(processes: list[subprocess.Popen[str]], root: Path, shop: Any, hang: str = "") -> subprocess.Popen[str]:
    """Start a download in another process.

    Args:
        hang: ``module.function:calls``; after so many calls, the next call prints a line and never returns.
    """
    program = f"""
import importlib, sys, time
import czslkit.cli
name, _, calls = {hang!r}.partition(":")
if name:
    module, _, function = name.rpartition(".")
    module = importlib.import_module(module)
    real, left = getattr(module, function), [int(calls)]
    def hanging(*arguments, **options):
        left[0] -= 1
        if left[0] >= 0:
            return real(*arguments, **options)
        print("here", flush=True)
        time.sleep(60)
    setattr(module, function, hanging)
sys.exit(czslkit.cli.main(["data", "download", "cgqa", "--data", {str(root)!r}, "--mirror", {shop.url!r}]))
"""
    command = [sys.executable, "-W", "error", "-c", program]
    processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return processes[-1]


def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


@pytest.mark.parametrize(
    "hang",
    [
        "czslkit.data.download.archive_cache._file_sha256:0",  # the archive is downloaded, but not checked
        "czslkit.data.download.archives._copy_member:20",  # the archive is partly unpacked
        "czslkit.data.download.archive_cache.write_text:0",  # the archive is unpacked, but its digest is not recorded
        "czslkit.data.download.install.write_text:0",  # the digest is recorded, but not that the archive is unpacked
        "czslkit.data.download.archive_cache.file_lock:1",  # both are recorded, but the archive is not deleted
    ],
)
def test_a_killed_process_is_continued(
    tmp_path: Path, shop: Any, processes: list[subprocess.Popen[str]], hang: str
) -> None:
    process = started(processes, tmp_path, shop, hang)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cgqa").exists()
    assert download("cgqa", tmp_path, mirror=shop.url, client=CLIENT, log=lambda line: None) == (tmp_path / "cgqa",)
    assert complete(tmp_path)
    assert len(shop.requests) == 1


def test_a_process_that_was_killed_during_a_transfer_is_resumed(
    tmp_path: Path, shop: Any, processes: list[subprocess.Popen[str]]
) -> None:
    shop.answers["cgqa.zip"] = [shop.stall(50_000)]
    process = started(processes, tmp_path, shop)
    partial = tmp_path / ".downloads" / "cgqa.zip.partial"
    until(lambda: resumable_http.file_size(partial) > 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    here = partial.stat().st_size
    download("cgqa", tmp_path, mirror=shop.url, client=CLIENT, log=lambda line: None)
    assert complete(tmp_path)
    assert shop.ranges() == [None, f"bytes={here}-"]


def test_of_two_processes_one_works_and_the_other_waits(
    tmp_path: Path, shop: Any, processes: list[subprocess.Popen[str]]
) -> None:
    gate = threading.Event()

    def slowly(handler: Any, content: bytes) -> None:
        gate.wait(10)
        shop.serve()(handler, content)

    shop.answers["cgqa.zip"] = [slowly]
    first = started(processes, tmp_path, shop)
    until(lambda: bool(shop.requests))
    second = started(processes, tmp_path, shop)
    assert second.stderr is not None
    assert second.stderr.readline().startswith(f"waiting for the lock {tmp_path}/.cgqa.lock: process {first.pid} on ")
    gate.set()
    for process in (first, second):
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, f"{tmp_path}/cgqa\n"), err
    assert complete(tmp_path)
    assert len(shop.requests) == 1


class Full(io.RawIOBase):
    """A file on a full disk."""

    def write(self, block: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")


def no_room(*arguments: object, **options: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_after(calls: int, real: Callable[..., IO[bytes]]) -> Callable[..., Any]:
    made = iter(range(calls))
    return lambda *arguments: Full() if next(made, None) is None else real(*arguments)


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (resumable_http, "write_text", no_room),
        (resumable_http.HttpClient, "_receive", no_room),
        (archive_cache, "write_text", no_room),
        (install, "write_text", no_room),
        (archives, "_create_file", full_after(0, archives._create_file)),
        (archives, "_create_file", full_after(20, archives._create_file)),
    ],
)
def test_after_a_full_disk_the_same_command_continues(
    tmp_path: Path, shop: Any, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Any, capsys: Any
) -> None:
    command = ["data", "download", "cgqa", "--data", str(tmp_path), "--mirror", shop.url]
    with monkeypatch.context() as patched:
        patched.setattr(where, name, fault)
        assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"czslkit: cgqa: cannot write in {tmp_path}: [Errno 28] No space left on device. "
        "All downloaded bytes are kept: remove the cause and run the command again to continue"
    )
    assert not (tmp_path / "cgqa").exists()
    assert not list(tmp_path.glob(".cgqa.download/.half"))
    assert main(command) == 0
    assert complete(tmp_path)


#: A program that root runs as the user nobody, who cannot write everywhere, after all modules are imported.
AS_NOBODY = """
import os, sys
from pathlib import Path
from czslkit.data.loading import load_dataset
from czslkit.data.download.download import download
from czslkit.data.check.status import dataset_statuses
from czslkit.errors import DataError
folder = Path(sys.argv[1])
before = load_dataset("ut-zappos", folder)
if os.geteuid() == 0:
    os.seteuid(65534)
assert load_dataset("ut-zappos", folder).fingerprint == before.fingerprint
assert download("ut-zappos", folder) == (folder / "ut-zappos",)
assert [held.name for held in dataset_statuses(folder) if held.state == "complete"] == ["ut-zappos"]
try:
    download("cgqa", folder, mirror="http://127.0.0.1:9")
except DataError as error:
    print(error)
"""


def test_a_read_only_folder_can_be_used_but_not_extended() -> None:
    with tempfile.TemporaryDirectory() as folder:  # the user nobody cannot enter pytest's own folder
        write_mini("ut-zappos", folder)
        os.chmod(folder, 0o555)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, folder], capture_output=True, text=True)
        os.chmod(folder, 0o755)
    assert done.returncode == 0, done.stderr
    lock = f"{folder}/.cgqa.lock cannot be locked, which needs a folder that can be written: PermissionError: "
    assert done.stdout.startswith(f"cgqa: cannot write in {folder}: {lock}Permission denied")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, shop: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=f"cgqa: cannot write in {tmp_path}/file/data: .*Not a directory"):
        download("cgqa", tmp_path / "file" / "data", mirror=shop.url, client=CLIENT)
