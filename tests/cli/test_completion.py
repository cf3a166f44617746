"""What a shell offers after a TAB, asked in the shells themselves."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from czslkit.cli import completers, main
from czslkit.method import METHODS
from czslkit.runner.settings import SECTIONS

BIN = Path(sys.executable).parent

BASH = """
eval "$(czslkit completion bash)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<< "$1"
[[ "$1" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete czslkit
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = 'czslkit completion fish | source; complete -C "$argv[1]"'
ZSH = """
compdef() { completer=$1 }
_describe() { for word in $completions; do print -- "${word%%:*}"; done }
eval "$(czslkit completion zsh)"
words=(${=1}) BUFFER="$1" CURSOR=${#1}
$completer
"""
SHELLS = {"bash": ["bash", "-c", BASH, "bash"], "fish": ["fish", "-c", FISH], "zsh": ["zsh", "-fc", ZSH, "zsh"]}


def offered(shell: str, line: str, data: Path) -> list[str]:
    """Return the words that a shell offers at the end of a line."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "CZSLKIT_DATA": str(data)}
    done = subprocess.run([*SHELLS[shell], line], capture_output=True, text=True, env=environment, timeout=60)
    return [word.partition("\t")[0].strip() for word in done.stdout.splitlines() if word.strip()]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("czslkit ben", ["bench"]),
        ("czslkit bench --methods msci,cs", ["msci,csp"]),
        ("czslkit bench --methods csp --set train.ep", ["train.epochs="]),
        ("czslkit bench --set msci.fusion_", ["msci.fusion_init="]),
        ("czslkit bench --methods csp --set word_d", ["word_dropout="]),
        ("czslkit data download ut", ["ut-zappos"]),
        ("czslkit data verify ut", ["ut-zappos"]),
        ("czslkit bench --datasets to", ["toys"]),
        ("czslkit bench --log csv,ten", ["csv,tensorboard"]),
    ],
)
def test_a_shell_completes_commands_names_and_settings(shell: str, line: str, expected: list[str], toys: Path) -> None:
    assert offered(shell, line, toys) == expected


def test_the_keys_that_are_read_from_the_source_are_those_of_the_classes() -> None:
    for name, cls in METHODS.items():
        if cls.__module__.startswith("czslkit_plugins."):
            assert completers.option_keys(name) == [field.name for field in dataclasses.fields(cls.Options)], name
    for section, schema in SECTIONS.items():
        assert completers.section_keys(section) == [field.name for field in dataclasses.fields(schema)]
    assert completers.option_keys("nothing") == []


def test_a_name_is_offered_once_in_a_list_with_commas() -> None:
    complete = completers._listed(lambda args: ["csp", "msci", "clip"])
    assert list(complete("csp,msci,", argparse.Namespace())) == ["csp,msci,clip"]


def test_completing_needs_no_torch() -> None:
    code = (
        "import sys; from czslkit.cli import completers as c, completion; c._setting_keys('', __import__('argparse')"
        ".Namespace()); completion.run(__import__('argparse').Namespace(shell='bash')); "
        "sys.exit([m for m in ('torch', 'numpy', 'pandas', 'matplotlib') if m in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_is_for_czslkit(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "czslkit" in capsys.readouterr().out
