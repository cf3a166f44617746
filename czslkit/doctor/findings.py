"""The findings of an examination, with their text and JSON forms."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Rows = dict[str, str]  # names and values of a section
Report = Callable[[str, str], None]  # called with a problem and its remedy

_WIDTH = 100  # characters of a line


@dataclass(frozen=True)
class Problem:
    """A description of what is wrong, and a way to repair it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Findings:
    """The sections of an examination and every problem that it found."""

    sections: dict[str, Rows]
    problems: tuple[Problem, ...]

    def to_text(self) -> str:
        """Return the findings as a page of text, without a line break at the end."""
        lines = []
        for title, rows in self.sections.items():
            width = max(map(len, rows), default=0)
            lines += [title, *(f"  {name:{width}}  {value}".rstrip() for name, value in rows.items()), ""]
        if not self.problems:
            return "\n".join([*lines, "nothing is wrong"])
        lines.append("what is wrong:")
        for problem in self.problems:
            lines += [_paragraph(problem.what, "  - ", "    "), _paragraph(problem.remedy, "    -> ", "       ")]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain values, ready for JSON."""
        return {**self.sections, "problems": [vars(problem) for problem in self.problems]}


def _paragraph(text: str, first_indent: str, indent: str) -> str:
    """Wrap a text in lines of at most ``_WIDTH`` characters, without breaking long words such as paths."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first_indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
