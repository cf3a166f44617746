from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from czslkit import locks
from czslkit.locks import Holder, holds_on_one_host_only, try_lock
from czslkit.processes import Process

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2,hard,local_lock=none,addr=10.0.0.1 0 0
server:/runs /runs nfs rw,vers=3,nolock,addr=10.0.0.1 0 0
server:/all /all nfs rw,vers=3,local_lock=all 0 0
server:/flock /flock nfs4 rw,vers=4.0,local_lock=flock 0 0
server:/posix /posix nfs rw,vers=3,local_lock=posix 0 0
server:/deep /runs/with\\040space nfs4 rw,local_lock=none 0 0
mgs:/scratch /scratch lustre rw,flock 0 0
mgs:/local /local lustre rw,localflock 0 0
me@host:/ /remote fuse.sshfs rw,user_id=0 0 0
/dev/vdb /hidden ext4 rw 0 0
server:/over /hidden nfs rw,nolock 0 0
"""


@pytest.mark.parametrize(
    ("folder", "local"),
    [("/", False), ("/home/me", False), ("/runs", True), ("/runs/mine", True), ("/runsaway", False), ("/all", True),
     ("/flock/x", True), ("/posix", False), ("/runs/with space", False), ("/scratch", False), ("/local", True),
     ("/remote/x", True), ("/hidden", True)],
)  # fmt: skip
def test_mount_options_tell_whether_other_hosts_see_a_lock(tmp_path: Path, folder: str, local: bool) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert holds_on_one_host_only(Path(folder) / ".lock", tmp_path / "mounts") == local


def test_without_a_table_of_mounts_the_lock_of_the_system_is_used(tmp_path: Path) -> None:
    assert not holds_on_one_host_only(tmp_path / ".lock", tmp_path / "none")


OTHER_HOST = Process("node4", 12, "55", "01234567")


def record(process: Process, ago: float = 0.0) -> str:
    return json.dumps({**asdict(process), "since": time.time() - ago})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def lock(path: Path, log: Callable[[str], None] = pytest.fail) -> Callable[[], None]:
    """Lock a file that is free."""
    found = try_lock(path, log)
    assert not isinstance(found, Holder), str(found)
    return found


def held(path: Path, log: Callable[[str], None] = pytest.fail) -> Holder:
    """Return the holder of a locked file."""
    found = try_lock(path, log)
    assert isinstance(found, Holder)
    return found


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def no_service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without a lock service."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_lock_of_the_system_is_told_while_it_is_held(tmp_path: Path) -> None:
    release = lock(tmp_path / ".lock")
    assert held(tmp_path / ".lock").process == Process.current()
    release()
    lock(tmp_path / ".lock")()
    assert names(tmp_path) == [".lock"]


def test_a_child_process_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom czslkit.locks import try_lock\n"
        "release = try_lock(Path(sys.argv[1]), print)\nif os.fork() == 0:\n    release()\n    time.sleep(60)\n"
        "print(isinstance(try_lock(Path(sys.argv[1]), print), type(release)), flush=True)\nos._exit(0)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "False\n"  # the child has not given it back
        parent.wait()
        for _ in range(100):  # the child closes its copy as soon as it gets to run
            if not isinstance(release := try_lock(tmp_path / ".lock", print), Holder):
                break
            time.sleep(0.1)
        os.killpg(parent.pid, 9)
    assert not isinstance(release, Holder)
    release()


def test_a_time_in_the_future_is_now(tmp_path: Path) -> None:
    release = lock(tmp_path / ".lock")
    for ago in (-1000.0, float("-inf")):
        (tmp_path / ".lock").write_text(record(OTHER_HOST, ago))
        assert str(held(tmp_path / ".lock")) == "process 12 on node4 took it 1 s ago"
    release()


def test_a_lock_file_that_was_deleted_meanwhile_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def delete_first(*arguments: Any) -> None:
        (tmp_path / ".lock").unlink()
        real(*arguments)

    monkeypatch.setattr(fcntl, "flock", delete_first)
    assert held(tmp_path / ".lock").process is None


def test_a_lock_file_is_no_link_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=r"\.lock"):
        try_lock(tmp_path / ".lock", pytest.fail)
    assert (tmp_path / "precious").read_text() == "content"


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"host": "a"}', '{"pid": "x"}', "[" * 5000, record(OTHER_HOST, float("nan"))]
)
def test_a_holder_that_does_not_say_who_it_is_is_another_process(tmp_path: Path, content: str) -> None:
    release = lock(tmp_path / ".lock")
    (tmp_path / ".lock").write_text(content)
    assert str(held(tmp_path / ".lock")) == "another process took it"
    release()


@pytest.mark.usefixtures("no_service")
def test_without_a_lock_service_a_claim_is_the_lock(tmp_path: Path) -> None:
    release = lock(tmp_path / ".lock")
    assert held(tmp_path / ".lock").process == Process.current()
    assert names(tmp_path) == [".lock", ".lock-1"]
    release()
    assert names(tmp_path) == [".lock", ".lock-1-free"]
    again = lock(tmp_path / ".lock")
    assert names(tmp_path) == [".lock", ".lock-2"]
    release()  # of an earlier claim, which counts no more
    assert held(tmp_path / ".lock").process == Process.current()
    again()


def test_where_locks_are_not_seen_by_other_hosts_a_claim_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "holds_on_one_host_only", lambda path: True)
    release = lock(tmp_path / ".lock")
    assert names(tmp_path) == [".lock-1"]
    release()


def test_a_claim_counts_where_there_is_a_lock_service(tmp_path: Path) -> None:
    (tmp_path / ".lock-3").write_text(record(Process.current()))
    assert held(tmp_path / ".lock").process == Process.current()
    (tmp_path / ".lock-3").rename(tmp_path / ".lock-3-free")
    lock(tmp_path / ".lock")()


def leave(path: Path, process: Process | None, *, took: float = 0.0, renewed: float = 0.0) -> None:
    """Leave the claim of a process, which took it and last renewed it some seconds ago."""
    path.write_text(record(process, took) if process else "")
    os.utime(path, (time.time() - renewed,) * 2)


KILLED = """
import errno, fcntl, os, signal, sys
from pathlib import Path
from czslkit.files import file_lock
def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = refuse
with file_lock(Path(sys.argv[1]), print):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.usefixtures("no_service")
def test_the_claim_of_a_killed_process_is_broken_at_once_with_a_line(tmp_path: Path) -> None:
    path, lines = tmp_path / ".lock", []
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(path)])
    assert killed.wait() == -9
    lock(path, lines.append)()
    (line,) = lines
    assert re.fullmatch(
        rf"breaking the lock {path}: process {killed.pid} on {os.uname().nodename} took it \d+ s ago and is gone", line
    )


@pytest.mark.usefixtures("no_service")
def test_the_claim_of_another_host_is_broken_when_it_was_not_renewed(tmp_path: Path) -> None:
    path, lines = tmp_path / ".lock", []
    leave(tmp_path / ".lock-7", OTHER_HOST, took=1000, renewed=250)
    assert held(path).process == OTHER_HOST
    leave(tmp_path / ".lock-7", OTHER_HOST, took=1000, renewed=360)
    lock(path, lines.append)()
    assert lines == [
        f"breaking the lock {path}: process 12 on node4 took it 17 min ago and has not renewed it for 6 min"
    ]
    assert names(tmp_path) == [".lock", ".lock-8-free"]


@pytest.mark.usefixtures("no_service")
def test_a_claim_without_a_holder_is_that_of_a_process_which_is_about_to_write_it(tmp_path: Path) -> None:
    path, lines = tmp_path / ".lock", []
    leave(tmp_path / ".lock-1", None, renewed=5)
    assert held(path).process is None
    leave(tmp_path / ".lock-1", None, renewed=15)
    lock(path, lines.append)()
    assert lines == [f"breaking the lock {path}: another process took it 15 s ago and has not said which one it is"]


@pytest.mark.usefixtures("no_service")
def test_a_claim_that_is_broken_by_several_at_once_goes_to_one(tmp_path: Path) -> None:
    gone = replace(Process.current(), started="1")
    for number in range(1, 31):
        path, lines, found = tmp_path / str(number), [], []
        leave(tmp_path / f"{number}-{number}", gone)
        barrier = threading.Barrier(4)

        def breaks(path: Path = path, found: list[Any] = found, barrier: Any = barrier, lines: Any = lines) -> None:
            barrier.wait()
            found.append(try_lock(path, lines.append))

        threads = [threading.Thread(target=breaks) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (release,) = [one for one in found if not isinstance(one, Holder)]
        assert len(lines) == 1
        release()


@pytest.mark.usefixtures("no_service")
def test_a_slow_breaker_does_not_take_the_lock_of_who_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    leave(tmp_path / ".lock-1", replace(Process.current(), started="1"))
    real, releases = locks._judge, []

    def others_are_faster(file: Path) -> Any:
        found = real(file)
        if not releases:
            releases.append(None)
            lock(path, lambda line: None)()  # breaks and gives back: .lock-2
            releases.append(lock(path))  # .lock-3; then .lock-2 can be made anew
        return found

    monkeypatch.setattr(locks, "_judge", others_are_faster)
    assert held(path).process == Process.current()
    releases[1]()
    assert ".lock-3-free" in names(tmp_path)


@pytest.mark.usefixtures("no_service")
def test_a_claim_is_renewed_and_its_loss_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "REFRESH_SECONDS", 0.02)
    lines: list[str] = []
    release = lock(tmp_path / ".lock", lines.append)
    claim = tmp_path / ".lock-1"
    os.utime(claim, (0, 0))
    until(lambda: claim.stat().st_mtime > 0)
    claim.unlink()
    until(lambda: bool(lines))
    assert lines == [f"another process has broken the lock {claim}, as it was not renewed in time"]
    release()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it does not come")


@pytest.mark.usefixtures("no_service")
def test_a_full_disk_is_an_error_and_leaves_the_lock_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(locks, "_record", fill_up)
        with pytest.raises(OSError, match="No space left on device"):
            try_lock(tmp_path / ".lock", pytest.fail)
    lock(tmp_path / ".lock")()


def fill_up() -> bytes:
    raise OSError(errno.ENOSPC, "No space left on device")


COUNTER = (
    KILLED.partition("with file_lock")[0]
    + """
count = Path(sys.argv[2])
for _ in range(25):
    with file_lock(Path(sys.argv[1]), lambda line: None):
        before = int(count.read_text())
        count.write_text(str(before + 1))
"""
)


def test_processes_without_a_lock_service_shut_each_other_out(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", COUNTER, str(tmp_path / ".lock"), str(count)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert count.read_text() == "75"
