"""The examination of a machine: what czslkit finds to work with, and what is wrong with it.

An examination uses no network, and a broken library or plugin does not stop it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import checks, subprocess_checks
from .findings import Findings, Problem, Report, Rows


def examine(data: str | Path | None = None, backbone: str = "") -> Findings:
    """Examine packages, devices, datasets, weights and plugins, and return what was found.

    Args:
        data: folder of the datasets, as for ``load_dataset``.
        backbone: setting whose weights must be here, such as ``ViT-L-14-quickgelu/openai``, or a file of weights.
    """
    problems: list[Problem] = []

    def report(what: str, remedy: str) -> None:
        problems.append(Problem(what, remedy))

    found = subprocess_checks.run_checks(str(data or ""), backbone, report)
    sections = {
        "versions": _guarded("versions", lambda: checks.versions(report), report),
        **{name: found.get(name, {}) for name in ("devices", "data", "weights")},
        "plugins": _guarded("plugins", checks.plugins, report),
    }
    return Findings(sections, tuple(problems))


def _guarded(section: str, check: Callable[[], Rows], report: Report) -> Rows:
    """Return the rows of a check; if it fails, report its exception and return no rows."""
    try:
        return check()
    except Exception as error:  # of any kind, since a broken installation is what the examination looks for
        report(f"{section}: {type(error).__name__}: {error}", "repair this, and run czslkit doctor again")
        return {}
