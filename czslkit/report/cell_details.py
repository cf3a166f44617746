"""What the page tells of a single result, behind its numbers in the table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import CzslkitError
from ..store import Result
from .significance import Attached, Findings

FILE = "details.json"
FORMAT = 1  # of that file
SHOWN = 20  # rows of a table of details
_BEHIND = (
    *("metrics", "recipe", "published", "config", "protocol", "depends"),
    *("versions", "training", "timing", "finished"),
)


def cell_details(
    name: str, label: str, result: Result, findings: Findings, attached: Attached | None
) -> dict[str, Any]:
    """A result as :func:`czslkit.report.rendering.as_page` shows it.

    Args:
        name: what it is called.
        label: its row.
        findings: of the table that it is in.
        attached: gives the files beside it.
    """
    cell = result["cell"]
    sections = {key: json.dumps(result[key], indent=1) for key in _BEHIND if result.get(key)}
    intervals = findings.of_seeds.get(((label, cell["dataset"], cell["world"]), cell["seed"]))
    if intervals:
        sections["95% intervals"] = json.dumps(intervals)
    tables: list[dict[str, Any]] = []
    if attached and result["status"] == "done":
        try:
            content = attached(result, FILE)
            tables = _tables(json.loads(content), f"{cell['world']}.{FILE}") if content else []
        except (CzslkitError, ValueError) as error:
            sections["details"] = str(error)
    traceback = (result.get("error") or {}).get("traceback")
    return {"name": name, "status": result["status"], "sections": sections, "tables": tables, "traceback": traceback}


def _tables(details: Any, file: str) -> list[dict[str, Any]]:
    """The tables of a cell's details, cut to ``SHOWN`` rows each: those of the most images.

    Raises:
        CzslkitError: they are not as this czslkit writes them.
    """
    if not isinstance(details, Mapping) or details.get("format") != FORMAT:
        raise CzslkitError(f"{file} is not of format {FORMAT}")
    biases = ", ".join(f"{at.replace('_', ' ')} is {float(bias):.4g}" for at, bias in details["biases"].items())
    guesses = details["accuracy_of_top_k_at_zero"]
    tables = [
        {
            "title": f"accuracy of the best k pairs at bias 0, % (biases below: {biases})",
            "columns": [f"k = {k}" for k in guesses],
            "rows": [[_shown(share) for share in guesses.values()]],
        }
    ]
    for name, table in details.items():
        if not isinstance(table, Mapping) or "rows" not in table:
            continue
        images = table["columns"].index("images")
        rows = sorted(table["rows"], key=lambda row: -row[images])[:SHOWN]
        cut = f", {len(rows)} of {len(table['rows'])}: those of the most images" * (len(rows) < len(table["rows"]))
        tables.append(
            {
                "title": name.replace("_", " ") + cut,
                "columns": [column.replace("_", " ") for column in table["columns"]],
                "rows": [[_shown(value) for value in row] for row in rows],
            }
        )
    return tables


def _shown(value: Any) -> str:
    """Shares in percent, as everywhere in the table; whether a pair is seen in words."""
    if isinstance(value, bool):
        return "seen" if value else "unseen"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)
