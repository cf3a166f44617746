from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys

import pytest

from czslkit.cli import _parser, main


def parsers(parser, path="czslkit"):
    """Yield every command's path and parser, commands of commands included."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from parsers(command, f"{path} {name}")


PARSERS = dict(parsers(_parser()))


def test_the_commands_are_those_that_are_documented():
    data = [f"data {name}" for name in ("download", "status", "mini", "verify", "import", "remove")]
    names = [
        "bench",
        "init",
        "check",
        "convert",
        "predict",
        "explain",
        "export",
        "evaluate",
        "list",
        "new-plugin",
        "table",
        "plot",
        "report",
        "runs",
        *(f"runs {name}" for name in ("list", "remove", "prune")),
        "push",
        "data",
        *data,
        "doctor",
        "completion",
    ]
    assert list(PARSERS) == ["czslkit", *(f"czslkit {name}" for name in names)]


@pytest.mark.parametrize("path", PARSERS)
def test_every_command_and_option_says_what_it_does_and_its_default(path):
    parser = PARSERS[path]
    assert parser.description.endswith((".", "docs/data.md."))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert all(choice.help for choice in action._choices_actions), path
            continue
        words = (action.help or "").split("(default:")[0].split()
        assert len(words) >= 3, f"{path}: {action.dest}"
        if not action.option_strings and action.nargs == "?":
            assert "(default: " in action.help or action.dest == "runs", action.dest
        if action.required and action.option_strings:
            assert "required" in action.help, f"{path}: {action.option_strings[0]}"
        if action.option_strings and not action.required and action.dest not in ("help", "version"):
            stated = re.search(r"\(default: (.+)\)$", action.help)
            assert stated, f"{path}: {action.option_strings[0]}"
            if isinstance(action.default, (str, int, float)) and action.default != "" and action.nargs != 0:
                assert stated[1] == str(action.default), f"{path}: {action.option_strings[0]}"


@pytest.mark.parametrize("path", PARSERS)
def test_every_help_text_is_printed(path, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*path.replace(" runs ", " runs RUNS ").split()[1:], "--help"])  # the folder stands before the action
    assert capsys.readouterr().out.replace(" RUNS ", " ").startswith(f"usage: {path} ")


def test_the_examples_in_help_texts_can_be_typed():
    examples = re.findall(r"czslkit (.*)", "\n".join(parser.epilog or "" for parser in PARSERS.values()))
    typed = [example.partition("(")[0] for example in examples if not example.startswith("completion")]
    assert len(typed) > 10
    for example in typed:
        first = example.partition(" && ")[0].partition(" > ")[0]
        assert callable(_parser().parse_args(shlex.split(first)).command)


@pytest.mark.parametrize("arguments", [[], ["data"], ["benhc"], ["bench", "--benhc"]])
def test_an_unknown_command_or_option_ends_with_two(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.startswith("usage: czslkit")


def test_an_interrupt_says_that_nothing_is_lost(bench, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("czslkit.runner.bench.bench", interrupt)
    status, _, err = bench()
    assert status == 130
    assert err == "czslkit: interrupted; run the same command again to continue\n"


def test_a_file_in_the_way_is_an_error_without_traceback(bench, tmp_path):
    (tmp_path / "runs").write_text("")
    status, _, err = bench()
    assert status == 1
    assert "table.json cannot be written: File exists" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--sed", "1"], "czslkit bench: error: unrecognized arguments: --sed. Did you mean '--seeds' or"),
        (["table", "x", "--methds=csp"], "unrecognized arguments: --methds=csp. Did you mean '--methods'"),
        (["runs", "x", "remove", "--faild"], "remove: error: unrecognized arguments: --faild. Did you mean '--failed'"),
        (["list", "--zzzz"], "czslkit list: error: unrecognized arguments: --zzzz.\n"),
    ],
)
def test_an_unknown_option_is_answered_by_its_command_with_similar_ones(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_ends_early_is_no_error(unbuffered):
    command = [sys.executable, "-W", "error", "-m", "czslkit", "list"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        process.stdout.close()  # as head does after its last line
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_repeated_threshold_is_one_more():
    files = ["a.npz", "--pairs", "p", "--seen", "s"]
    arguments = _parser().parse_args(["evaluate", *files, "--threshold", "0.1", "--threshold", "0.2"])
    assert arguments.threshold == [0.1, 0.2]


def test_a_later_process_of_torchrun_leaves_an_error_to_the_first_for_a_while(bench, monkeypatch, capsys):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    before: list[str] = []  # what was printed before each pause
    monkeypatch.setattr("czslkit.cli.time.sleep", lambda seconds: before.append(capsys.readouterr().err))
    status, _, err = bench("--detach")
    assert (status, before) == (2, [""])
    assert err.startswith("czslkit: detach needs slurm")


def test_wrong_variables_of_torchrun_are_an_error_without_traceback(bench, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    status, _, err = bench()
    assert status == 2
    assert re.match("czslkit: WORLD_SIZE is 2, but RANK, .* is not set", err)
