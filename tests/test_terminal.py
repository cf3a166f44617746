from __future__ import annotations

import errno
import io
import sys
import time
from types import SimpleNamespace

import pytest

from czslkit import terminal
from czslkit.terminal import Progress, encodable, log_to_stderr, shows_styles, tracked


class Terminal(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def terminal_as_stderr(monkeypatch: pytest.MonkeyPatch, kind: str = "xterm") -> Terminal:
    """Let standard error be a terminal; a fixture cannot, since pytest sets standard error again before each test."""
    screen = Terminal()
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.fixture
def quiet_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of progress come after a twentieth of a second."""
    monkeypatch.setattr(terminal, "QUIET_SECONDS", 0.05)


def wait_for(text: str, capsys: pytest.CaptureFixture[str], seconds: float = 5.0) -> str:
    """Return what is printed to standard error until it has ``text``, or until some seconds have passed."""
    found, end = "", time.monotonic() + seconds
    while text not in found and time.monotonic() < end:
        time.sleep(0.02)
        found += capsys.readouterr().err
    return found


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("41.0 ± 0.3 …", "utf-8", "41.0 ± 0.3 …"),
        ("41.0 ± 0.3 …", "ascii", "41.0 +- 0.3 ..."),
        ("41.0 ± 0.3 …", "latin-1", "41.0 ± 0.3 ..."),
        ("“a” – b × c", "ascii", '"a" - b x c'),
        ("café 海", "ascii", "caf\\xe9 \\u6d77"),
        ("café 海", "cp1252", "café \\u6d77"),
        ("photo\udcff.jpg", "utf-8", "photo\\udcff.jpg"),
        ("±", None, "±"),
    ],
)
def test_characters_that_a_terminal_lacks_are_replaced(text: str, encoding: str | None, shown: str) -> None:
    assert encodable(text, encoding) == shown


def test_bytes_that_cannot_be_read_are_still_an_error() -> None:
    with pytest.raises(UnicodeDecodeError, match="0xff"):
        b"\xff".decode("utf-8", terminal.READABLE)


@pytest.mark.parametrize(
    ("variables", "styled"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),  # as no-color.org says
    ],
)
def test_styles_are_shown_where_the_user_wants_them(
    variables: dict[str, str], styled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert shows_styles(Terminal()) is styled
    assert not shows_styles(io.StringIO())


def test_a_line_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("a line")
    assert capsys.readouterr() == ("", "a line\n")


@pytest.mark.parametrize("stream", [None, Full(), "closed"])
def test_a_line_that_cannot_be_written_is_dropped(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    log_to_stderr("a line")
    with Progress("steps", 2) as progress:
        progress.update()
    assert capsys.readouterr().out == ""  # print(file=None) would write here


def test_a_line_has_the_steps_the_note_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with Progress("test images scored", 12_000) as progress:
        assert progress.line() == "test images scored: 0 of 12,000"
        now[0] = 220.0
        progress.update(3000, note="loss 1.25")
        assert progress.line() == "test images scored: 3,000 of 12,000, loss 1.25, about 6 min left"
        progress.update(9000)
        assert progress.line() == "test images scored: 12,000 of 12,000"


def test_time_left_does_not_count_what_was_there_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with Progress("a.zip", 4_000_000_000, done=3_000_000_000, unit="B") as progress:
        now[0] = 10.0
        progress.update(500_000_000)
        assert progress.line() == "a.zip: 3.5 GB of 4.0 GB, about 10 s left"
    assert Progress("a.zip: files unpacked", None, done=1234, show=False).line() == "a.zip: files unpacked: 1,234"


def test_a_file_gets_a_line_after_a_while(quiet_for: None, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("images decoded", 3) as progress:
        progress.update()
        assert "images decoded: 1 of 3" in wait_for("1 of 3", capsys)
        assert "images decoded: 1 of 3" in wait_for("1 of 3", capsys)  # a long step is told again
    time.sleep(0.2)
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_a_short_loop_prints_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked("abc", "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_lines_come_after_half_a_minute_without_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Progress, "silent_since", 0.0)
    monkeypatch.setattr(Progress, "_worked_at", 0.0)

    def printed_at(seconds: float) -> str:
        clock[0] = seconds
        terminal._print_if_quiet()
        return capsys.readouterr().err

    with Progress("first", 3):  # nothing was done for long before, so the silence begins here
        assert printed_at(1029) == ""
        assert printed_at(1030) == "first: 0 of 3\n"
        assert printed_at(1059) == ""
        log_to_stderr("epoch")
        assert printed_at(1088) == "epoch\n"
    assert printed_at(1089) == ""
    with Progress("second", 3):  # the silence goes on from the loop before
        assert printed_at(1090) == "second: 0 of 3\n"


def test_the_innermost_loop_is_told(quiet_for: None, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("outer", 3):
        with Progress("inner", 5):
            assert "inner: 0 of 5" in wait_for("inner", capsys)
        assert "outer: 0 of 3" in wait_for("outer", capsys)


def test_a_loop_is_not_shown_against_the_will_of_the_user(quiet_for: None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal_as_stderr(monkeypatch)
    list(tracked("abc", "letters", 3, show=False))
    monkeypatch.setenv("TERM", "dumb")
    with Progress("hidden", 3, show=False):
        time.sleep(0.2)
    assert screen.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal_as_stderr(monkeypatch)
    with Progress("images decoded", 4) as progress:
        progress.update(2, note="loss 1.25")
        assert "images decoded:   0%" in screen.getvalue()
    assert "\x1b" not in screen.getvalue()
    assert screen.getvalue().rsplit("\r", 2)[1].isspace()


def test_a_dumb_terminal_gets_lines(quiet_for: None, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal_as_stderr(monkeypatch, "dumb")
    with Progress("images decoded", 4):
        end = time.monotonic() + 5
        while not screen.getvalue() and time.monotonic() < end:
            time.sleep(0.02)
    assert set(screen.getvalue().splitlines()) == {"images decoded: 0 of 4"}


def test_a_bar_inside_another_takes_its_place_without_escape_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal_as_stderr(monkeypatch)
    with Progress("outer", 2) as outer:
        with Progress("inner", 2):
            assert len(Progress.bars) == 2
        assert Progress.bars == [outer._bar]
    assert Progress.bars == []
    assert "\x1b" not in screen.getvalue()
    assert "\n" not in screen.getvalue()


def test_a_line_during_a_bar_starts_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal_as_stderr(monkeypatch)
    with Progress("images decoded", 2):
        log_to_stderr("making features")
    (line,) = [line for line in screen.getvalue().split("\r") if "making" in line]
    assert line == "making features\n"


def test_a_notebook_gets_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Bar:
        def __init__(self, **options: object) -> None:
            made.append(options)

        def close(self) -> None:
            made.append("closed")

    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    with Progress("images decoded", 2):
        pass
    assert made == [{"total": 2, "initial": 0, "desc": "images decoded", "leave": False, "position": 0}, "closed"]
    shell.config = {}  # an IPython on a terminal, whose output is in a file here
    assert Progress("images decoded", 2)._bar is None
