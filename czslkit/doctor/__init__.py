"""Examination of a machine: find what czslkit can use and what is wrong with it.

An examination does not use the network, and a broken library or plugin does not stop it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import checks, subprocess_checks
from .findings import Findings, Problem, Report, Rows


def examine(data: str | Path | None = None, backbone: str = "") -> Findings:
    """Examine packages, devices, datasets, weights and plugins, and return the findings.

    Args:
        data: folder of the datasets, as for ``load_dataset``.
        backbone: weights that must be on this machine: a backbone setting such as ``ViT-L-14-quickgelu/openai``, or a
            file; ``""`` for none.
    """
    problems: list[Problem] = []

    def report(what: str, remedy: str) -> None:
        problems.append(Problem(what, remedy))

    rows_of_section = subprocess_checks.run_checks(str(data or ""), backbone, report)
    sections = {
        "versions": _guarded("versions", lambda: checks.versions(report), report),
        **{name: rows_of_section.get(name, {}) for name in ("devices", "data", "weights")},
        "plugins": _guarded("plugins", checks.plugins, report),
    }
    return Findings(sections, tuple(problems))


def _guarded(section: str, check: Callable[[], Rows], report: Report) -> Rows:
    """Return the rows of a check; if it fails, report its exception and return no rows."""
    try:
        return check()
    except Exception as error:  # of any kind, since the examination looks for broken installations
        report(f"{section}: {type(error).__name__}: {error}", "repair this, and run czslkit doctor again")
        return {}
