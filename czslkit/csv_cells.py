"""Cells of CSV files that no spreadsheet takes for a formula. It does not import torch."""

from __future__ import annotations

from typing import Any

#: First characters of a text that a spreadsheet reads as a formula, also in their full-width forms.
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_cell(value: Any) -> Any:
    """Return the value of a cell; a text that would be a formula gets an apostrophe before it. Numbers stay numbers.

    >>> [csv_cell(value) for value in ("=1+1", "-0.5", -0.5, "csp", None)]
    ["'=1+1", '-0.5', -0.5, 'csp', None]
    """
    if not isinstance(value, str) or not value.startswith(_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return f"'{value}" if value[0].isspace() else value
