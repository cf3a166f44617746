"""The section about a single result in the HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import CzslkitError, shortened
from ..foreign_files import parse_json
from ..result_store import Result
from ..sizes import format_bytes
from .kept_resamples import Interval
from .resamples import Attached

DETAILS_FILE = "details.json"
DETAILS_FORMAT = 1  # format of details.json
MOST_ROWS = 20  # largest number of rows in a table of details
MOST_CHARACTERS = 20_000  # largest length of a section
#: Largest number of columns of such a table, of characters in a field of it, and of bytes in the file.
_MOST_COLUMNS, _LONGEST_TEXT, _LARGEST_FILE = 20, 300, 4 << 20
#: Keys of a result that are shown as JSON, in this order.
_SECTIONS = (
    *("stale", "metrics", "recipe", "preset", "published", "config", "protocol", "depends"),
    *("versions", "training", "timing", "finished"),
)


def cell_details(result: Result, intervals: Mapping[str, Interval], attached: Attached | None) -> dict[str, Any]:
    """Return the content that :func:`czslkit.report.page.as_page` shows for a result; a long text is cut.

    Args:
        result: a result as the store returns it.
        intervals: 95 % interval of each resampled metric, empty without numbers per image.
        attached: returns the files of the result, as :meth:`Store.attached`; without it the page has no tables.

    Returns:
        ``sections`` (title -> text), ``tables`` (each with title, columns and rows of texts) and ``traceback``.
    """
    sections = {key: _shortened(json.dumps(result[key], indent=1)) for key in _SECTIONS if result.get(key)}
    if intervals:
        sections["95% intervals"] = json.dumps(intervals)
    tables: list[dict[str, Any]] = []
    if attached and result["status"] == "done":
        try:
            content = read_details(result, attached)
            tables = _detail_tables(parse_json(content), f"{result['cell']['world']}.{DETAILS_FILE}") if content else []
        except (CzslkitError, ValueError) as error:
            sections["details"] = str(error)
    traceback = _shortened((result.get("error") or {}).get("traceback") or "")
    return {"sections": sections, "tables": tables, "traceback": traceback}


def pair_accuracy(result: Result, attached: Attached | None) -> float | None:
    """Return the accuracy of the pairs at bias 0 in the details of a finished result, None if it has no such number."""
    try:
        content = read_details(result, attached) if attached and result["status"] == "done" else None
        accuracy = parse_json(content)["accuracy_of_top_k_at_zero"]["1"] if content else None
    except (CzslkitError, KeyError, TypeError, ValueError):  # the page says what is wrong with the details
        return None
    return accuracy if isinstance(accuracy, float) and 0 <= accuracy <= 1 else None


def read_details(result: Result, attached: Attached) -> bytes | None:
    """Return the content of a result's file of details, None if the result has none.

    Raises:
        CzslkitError: the file is missing, changed or too large.
    """
    content = attached(result, DETAILS_FILE)
    if content and len(content) > _LARGEST_FILE:
        raise CzslkitError(f"{DETAILS_FILE} has {format_bytes(len(content))}, expected at most 4 MB")
    return content


def _detail_tables(details: Any, file: str) -> list[dict[str, Any]]:
    """Return the tables of a file of details; a long table is cut to the ``MOST_ROWS`` rows with the most images.

    Raises:
        CzslkitError: the file has another format.
    """
    if not isinstance(details, Mapping) or details.get("format") != DETAILS_FORMAT:
        raise CzslkitError(f"{file} does not have format {DETAILS_FORMAT}")
    try:
        tables = [_top_k_table(details)]
        tables += [
            _detail_table(name, table)
            for name, table in details.items()
            if isinstance(table, Mapping) and "rows" in table
        ]
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise CzslkitError(
            f"{file} is not as czslkit writes it: {type(error).__name__}: {shortened(str(error))}"
        ) from error
    return tables


def _shortened(text: str) -> str:
    """Return a text, cut to ``MOST_CHARACTERS``."""
    more = len(text) - MOST_CHARACTERS
    return (
        text if more <= 0 else f"{text[:MOST_CHARACTERS]}\n... and {more:,} more characters in the file of the result"
    )


def _detail_table(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    if len(table["columns"]) > _MOST_COLUMNS:
        raise ValueError(f"{name} has {len(table['columns'])} columns")
    images = table["columns"].index("images")
    rows = sorted(table["rows"], key=lambda row: -row[images])[:MOST_ROWS]
    total = len(table["rows"])
    cut = f": the {len(rows)} of {total} rows with the most images" if len(rows) < total else ""
    return {
        "title": name.replace("_", " ") + cut,
        "columns": [column.replace("_", " ") for column in table["columns"]],
        "rows": [[_printed(value) for value in row[:_MOST_COLUMNS]] for row in rows],
    }


def _top_k_table(details: Mapping[str, Any]) -> dict[str, Any]:
    biases = ", ".join(f"{name.replace('_', ' ')} is {float(bias):.4g}" for name, bias in details["biases"].items())
    accuracies = details["accuracy_of_top_k_at_zero"]
    return {
        "title": f"accuracy of the best k pairs at bias 0, % (in the tables below, bias {biases})",
        "columns": [f"k = {k}" for k in accuracies],
        "rows": [[_printed(accuracy) for accuracy in accuracies.values()]],
    }


def _printed(value: Any) -> str:
    """Return a fraction in percent, a flag as seen or unseen, and any other value as text."""
    if isinstance(value, bool):
        return "seen" if value else "unseen"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)[:_LONGEST_TEXT]
