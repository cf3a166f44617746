"""Pictures to import with their labels, and the rules that labels and image files must follow."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ..check.lint import MISSING_LABELS
from ..layout import ABSENT

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""Endings of image files, in lower case."""

_MOST_PROBLEMS = 10  # problems that a message lists; other problems are counted


@dataclass(frozen=True)
class LabelledPicture:
    """An image file, the attribute and object that it shows, and its split."""

    file: Path
    attr: str
    obj: str
    split: str = ""
    """Empty if a rule assigns the split."""


def is_image(file: Path) -> bool:
    """Return whether a file's name ends with a suffix of image files."""
    return file.suffix.lower() in SUFFIXES


def normalized_label(text: str) -> str:
    """Return a label as words: composed letters, and a single space in the place of spaces and ``_``.

    >>> normalized_label(" very  wet "), normalized_label("teddy_bear")
    ('very wet', 'teddy bear')
    """
    return " ".join(unicodedata.normalize("NFC", text).replace("_", " ").split())


def label_problem(column: str, label: str) -> str:
    """Return the problem of an unusable label, empty for a usable label.

    Args:
        column: ``attr`` or ``obj``.
        label: the normalized label.
    """
    if not label or label == ABSENT or label.lower() in MISSING_LABELS:
        return f"{column} is {label!r}, which means that the label is missing"
    if not label.isprintable() or "/" in label or "\\" in label:
        return f"{column} is {label!r}, expected printable characters without '/' and '\\'"
    return ""


def refuse_if_any(source: Path, problems: Sequence[str]) -> None:
    """Raise an error with all problems of a source, if there are any.

    Raises:
        DataError: ``problems`` is not empty. The message lists ten problems and the number of the others.
    """
    if problems:
        hidden = len(problems) - _MOST_PROBLEMS
        more = [f"and {hidden} more"] if hidden > 0 else []
        raise DataError("\n  ".join([f"{source} cannot be imported:", *problems[:_MOST_PROBLEMS], *more]))
