"""Run the checks that import heavy libraries in a separate process, since a broken library may end its process.

The process prints each message as one line of JSON, a kind and a value: ``"check"`` with the name of the check that
starts, ``"problem"`` with a problem and its remedy, ``"rows"`` with the name of a section and its rows.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ..registry import failures, load_plugins
from . import checks
from .findings import Report, Rows

_TIMEOUT = 300  # seconds
_PREFIX = "czslkit doctor: "  # marks a line with a message, since plugins may print other lines
#: Program that takes over this process's ``sys.path``, before any other import, and calls ``print_checks``.
_PROGRAM = (
    "import sys; *arguments, sys.path = *sys.argv[1:4], sys.argv[4:]; "
    "from czslkit.doctor.subprocess_checks import print_checks; print_checks(*arguments)"
)


def run_checks(data: str, backbone: str, report: Report) -> dict[str, Rows]:
    """Run the checks in another process and return the rows of each finished section.

    Args:
        data: folder of the datasets; ``""`` for the default.
        backbone: backbone setting or file of weights that must be on this machine; ``""`` for none.
        report: called with every problem, including a failure of the process.
    """
    command = [sys.executable, "-c", _PROGRAM, _PREFIX, data, backbone, *sys.path]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT)
        output, failure = done.stdout, _failure(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as error:
        output = bytes(error.stdout or b"").decode(errors="replace")
        failure = f"did not end within {_TIMEOUT} s"
    sections: dict[str, Rows] = {}
    check = "start"
    for line in output.splitlines():
        if line.startswith(_PREFIX):
            kind, value = json.loads(line.removeprefix(_PREFIX))
            if kind == "check":
                check = value
            elif kind == "problem":
                report(*value)
            else:
                section, rows = value
                sections[section] = rows
    if failure:
        report(f"the process that checked {check} {failure}", _reinstall(check))
    return sections


def _failure(status: int, stderr: str) -> str:
    """Return the predicate of a message about a failed process, ``""`` for a process that succeeded."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    last = (stderr.strip() or "without a message").splitlines()[-1]
    return f"ended with {status}: {last}" if status else ""


def _reinstall(check: str) -> str:
    """Return the remedy for a check that failed."""
    return f"reinstall the packages that {check} needs"


def print_checks(prefix: str, data: str, backbone: str) -> None:
    """Run the checks in this process and print each message after ``prefix`` on a separate line.

    Every check needs the libraries of the checks before it: after a failure, only the check of the datasets still runs.
    """

    def send(kind: str, value: Any) -> None:
        print(f"\n{prefix}{json.dumps([kind, value])}", flush=True)

    def report(what: str, remedy: str) -> None:
        send("problem", [what, remedy])

    def succeeds(name: str, check: Callable[[], Rows | None]) -> bool:
        send("check", name)
        try:
            send("rows", [name, check() or {}])
        except (Exception, SystemExit) as error:
            report(f"{name}: {type(error).__name__}: {error}", _reinstall(name))
            return False
        return True

    steps: dict[str, Callable[[], Rows | None]] = {
        **{module: functools.partial(_import, module) for module in ("numpy", "PIL.Image", "torch")},
        "devices": lambda: checks.devices(report),
        **{module: functools.partial(_import, module) for module in ("torchvision", "open_clip", "timm")},
        "components": load_plugins,
        "weights": lambda: checks.weights(backbone, report),
    }
    all(succeeds(name, check) for name, check in steps.items())  # stops at the first failure
    for line in failures():
        report(line, "uninstall the plugin, install the packages that it needs, or ask its author")
    succeeds("data", lambda: checks.datasets(data or None, report))  # after the plugins, which may register datasets


def _import(module: str) -> None:
    """Import a module, as a check without rows."""
    importlib.import_module(module)
