"""What trainings that run at the same time show."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

from czslkit.runner import process_lines
from czslkit.runner.process_lines import ProcessLines
from czslkit.terminal import Progress, log_to_stderr

FIRST, SECOND = "[1/3] csp on demo, seed 0", "[2/3] csp on demo, seed 1"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal with long lines, in place of what pytest sets later as standard error."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def epoch(number: int, done: int) -> tuple[str, int, int, str, str, str]:
    name = f"epoch {number}/2, batches"
    return name, done, 10, "", "loss 0.5", f"{name}: {done} of 10, loss 0.5"


def test_a_terminal_has_a_line_for_each_training_and_one_for_all(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    lines = ProcessLines(3, 2, log_to_stderr, show=True)
    lines.begin(1)
    lines.progress(FIRST, *epoch(1, 4), slot=0)
    lines.progress(SECOND, *epoch(2, 9), slot=1)
    for bar in Progress.bars:
        bar.refresh()
    shown = screen.getvalue()
    assert re.search(r"\r\[1/3\] csp on demo, seed 0: epoch 1/2, batches: +40%.* 4/10 .*loss 0.5", shown)
    assert re.search(r"\n\r\[2/3\] csp on demo, seed 1: epoch 2/2, batches: +90%.* 9/10 ", shown)
    assert re.search(r"\n\n\rtrainings: +33%.* 1/3 ", shown)
    lines.progress(FIRST, *epoch(2, 1), slot=0)
    assert [bar.desc for bar in Progress.bars].count(f"{FIRST}: epoch 2/2, batches") == 1
    assert len(Progress.bars) == 3
    lines.line(f"{FIRST}: epoch 1 ends", 0)
    assert f"{FIRST}: epoch 1 ends\n" in screen.getvalue()
    lines.leave(0)
    lines.count()
    lines.close()
    assert Progress.bars == []


def test_a_file_has_a_line_for_a_training_without_news_and_for_each_finished_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_lines, "QUIET_SECONDS", 0.1)
    lines = ProcessLines(3, 2, log_to_stderr, show=True)
    lines.begin(1)
    lines.progress(FIRST, *epoch(1, 1), slot=0)
    lines.progress(SECOND, *epoch(1, 1), slot=1)
    assert capsys.readouterr().err == ""
    time.sleep(0.11)
    lines.line(f"{SECOND}: running", 1)
    lines.progress(FIRST, *epoch(1, 2), slot=0)
    lines.progress(SECOND, *epoch(1, 3), slot=1)
    lines.progress(FIRST, *epoch(1, 4), slot=0)
    assert capsys.readouterr().err.splitlines() == [
        f"{SECOND}: running",
        f"{FIRST}: epoch 1/2, batches: 2 of 10, loss 0.5",
    ]
    lines.leave(0)
    lines.count()
    assert re.fullmatch(r"trainings: 2 of 3, about \d+ s left\n", capsys.readouterr().err)
    lines.close()


def test_a_line_that_belongs_to_no_training_is_logged_once() -> None:
    logged: list[str] = []
    lines = ProcessLines(2, 2, logged.append, show=False)
    for slot, name in enumerate((FIRST, SECOND)):
        lines.line("making the features of 8 images", slot)
        lines.line(f"{name}: running", slot)
    lines.line(f"{FIRST}: running", 0)
    assert logged == ["making the features of 8 images", f"{FIRST}: running", f"{SECOND}: running", f"{FIRST}: running"]


def test_nothing_is_shown_against_the_will_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProcessLines(2, 2, log_to_stderr, show=False)
    lines.begin(0)
    lines.count()
    lines.close()
    assert capsys.readouterr().err == ""
