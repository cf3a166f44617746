"""Terminals, pipes and files that cannot take what a command prints."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest

from czslkit.cli import main
from czslkit.cli.streams import lasting_streams

Bench = Callable[..., tuple[int, str, str]]
CZSLKIT = f'"{sys.executable}" -W error -m czslkit'


class Full(io.StringIO):
    """A file on a full disk."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Terminal(io.StringIO):
    """A terminal that remembers what was written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )


def tables(runs: Path) -> list[str]:
    return sorted(file.name for file in runs.glob("table.*"))


def test_a_table_is_printed_by_a_terminal_with_ascii_alone(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    status, _, _ = bench("--seeds", "0,1", "--worlds", "closed")
    printed = output.buffer.getvalue().decode("ascii")
    assert status == 0
    assert "+-" in printed
    assert "mean +- sample standard deviation" in printed
    assert tables(tmp_path / "runs") == ["table.bib", "table.csv", "table.json", "table.md", "table.tex"]
    assert "±" in (tmp_path / "runs" / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_disk_behind_a_stream_costs_no_result(
    stream: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, stream, Full())
    status, out, err = bench()
    assert len(tables(tmp_path / "runs")) == 5
    if stream == "stdout":
        assert status == 1
        assert err.endswith("czslkit: standard output cannot be written: No space left on device\n")
    else:
        assert status == 0
        assert "csp" in out


def test_a_table_is_printed_if_its_files_cannot_be_written(bench: Bench, tmp_path: Path) -> None:
    bench()
    for file in (tmp_path / "runs").glob("table.*"):
        file.unlink()
    (tmp_path / "runs" / "table.md").mkdir()
    status, out, err = bench()
    assert status == 1
    assert "csp" in out
    assert tables(tmp_path / "runs") == ["table.bib", "table.csv", "table.json", "table.md", "table.tex"]
    table = tmp_path / "runs" / "table"
    told = f"also written to {table}.{{csv,tex,bib,json}}\nczslkit: {table}.md cannot be written: Is a directory\n"
    assert err.endswith(told)
    assert err.count("cannot be written") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["list", "--help", "--version", "bench --help"])
def test_a_full_disk_is_named_and_ends_with_one(arguments: str) -> None:
    done = shell(f"{CZSLKIT} {arguments} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "czslkit: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_no_status_and_takes_no_file(closed: str, tmp_path: Path) -> None:
    done = shell(f"{CZSLKIT} data mini ut-zappos --out {tmp_path} {closed}")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else f"{tmp_path}/ut-zappos\n")
    damaged = [file for file in (tmp_path / "ut-zappos").rglob("*") if file.is_file() and not file.stat().st_size]
    assert damaged == []


def test_wrong_usage_keeps_its_status_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])


def test_lines_are_dropped_once_a_stream_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with lasting_streams() as output:
        sys.stdout.writelines(["one\n", "two\n"])
    assert isinstance(output.problem, OSError)


def test_lines_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with lasting_streams():
        sys.stdout.writelines(line for line in ("one\n", "two\n"))
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("arguments", [["--version"], ["list"], ["table", "nowhere"]])
def test_the_streams_of_a_caller_are_as_before(arguments: list[str], tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii", errors="xmlcharrefreplace") as file, redirect_stdout(file):
        with suppress(SystemExit):
            main(arguments)
        assert (sys.stdout, file.errors) == (file, "xmlcharrefreplace")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_stream_that_failed_is_still_that_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8", errors="strict") as file:
        device = os.fstat(file.fileno()).st_rdev
        monkeypatch.setattr(sys, "stdout", file)
        file.write("text of the caller")
        assert main(["data", "status"]) == 1
        assert (sys.stdout, file.errors, os.fstat(file.fileno()).st_rdev) == (file, "strict", device)


def test_an_error_with_standard_error_closed_stays_out_of_the_output() -> None:
    done = shell(f"{CZSLKIT} table nowhere 2>&-")
    assert (done.returncode, done.stdout) == (1, "")


def test_names_that_a_terminal_lacks_are_printed_as_escapes(tmp_path: Path) -> None:
    done = shell(f"{CZSLKIT} table {tmp_path}/naïve", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 1
    assert f"czslkit: no folder {tmp_path}/na\\xefve; expected" in done.stderr


@pytest.mark.parametrize(
    ("variables", "escapes"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_a_table_has_escape_sequences_or_asterisks(
    variables: dict[str, str], escapes: bool, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench("--worlds", "closed")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["table", str(tmp_path / "runs")]) == 0
    assert ("\x1b[1m" in screen.getvalue()) is escapes
    assert ("*" in screen.getvalue()) is not escapes


def test_the_table_fits_the_terminal(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench()
    monkeypatch.setenv("COLUMNS", "60")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    main(["table", str(tmp_path / "runs")])
    assert max(map(len, screen.getvalue().splitlines())) <= 60
    assert "open world" in " ".join(screen.getvalue().split()).lower()


@pytest.mark.parametrize("folder", [".", "somewhere/"])
@pytest.mark.parametrize("command", ["check clip --json", "report runs --out"])
def test_a_folder_in_place_of_a_file_is_wrong_usage(
    command: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*command.split(), folder])
    assert f"'{folder}' is a folder, expected the path of a file to write" in capsys.readouterr().err
