from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from czslkit.processes import Process

PROGRAM = """
import json, sys
from dataclasses import asdict
from czslkit.processes import Process
print(json.dumps(asdict(Process.current())), flush=True)
sys.stdin.read()
"""


def started() -> tuple[subprocess.Popen[str], Process]:
    """Start a process that runs until its input ends."""
    import json

    command = [sys.executable, "-c", PROGRAM]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout
    return other, Process(**json.loads(other.stdout.readline()))


def test_a_process_is_gone_once_it_has_ended() -> None:
    other, process = started()
    assert (process.pid, process.is_visible, process.is_gone) == (other.pid, True, False)
    other.communicate()
    assert process.is_gone


def test_a_killed_process_is_gone_also_before_its_parent_has_asked_for_its_status() -> None:
    other, process = started()
    other.kill()
    state = Path(f"/proc/{other.pid}/stat")
    for _ in range(500):
        if ") Z" in state.read_text():
            break
        time.sleep(0.01)
    assert process.is_gone
    other.communicate()


def test_a_process_with_a_number_that_was_used_before_is_another_one() -> None:
    me = Process.current()
    assert not me.is_gone
    assert replace(me, started=str(int(me.started) - 1)).is_gone


@pytest.mark.parametrize("unknown", [{"space": "01234567"}, {"space": ""}, {"started": ""}])
def test_of_a_process_in_another_container_it_is_not_known_whether_it_is_gone(unknown: dict[str, str]) -> None:
    other, process = started()
    other.communicate()
    elsewhere = replace(process, **unknown)
    assert not elsewhere.is_visible
    assert not elsewhere.is_gone


def test_a_process_of_another_user_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not Process.current().is_gone


def test_without_the_numbers_of_processes_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)  # as if /proc had the numbers of another container
    me = Process.current()
    assert (me.pid, me.started, me.space, me.is_gone) == (7, "", "", False)
    assert str(replace(me, host="node4")) == "process 7 on node4"
