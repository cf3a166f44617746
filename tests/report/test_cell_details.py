from __future__ import annotations

import json
from typing import Any

import pytest

from czslkit.errors import CzslkitError
from czslkit.evaluation import details
from czslkit.report import cell_details as module
from czslkit.report.cell_details import MOST_CHARACTERS, MOST_ROWS, cell_details
from czslkit.report.grids import Block
from czslkit.report.page import Cell, Page, as_page

RESULT: dict[str, Any] = {
    "cell": {"method": "csp", "dataset": "demo", "world": "closed", "seed": 0, "config_id": "a"},
    "status": "done",
    "metrics": {"auc": 0.4},
}
DETAILS = {
    "format": 1,
    "bins": "exact",
    "biases": {"zero": 0.0, "best_hm": "inf"},
    "accuracy_of_top_k_at_zero": {"1": 0.51, "3": 0.79125},
    "confused_at_zero": {"columns": ["attribute", "predicted attribute", "images"], "rows": [["wet", "<b>dry", 7]]},
    "pairs": {
        "columns": ["attribute", "object", "seen", "images", "accuracy_at_zero"],
        "rows": [["wet", f"thing {i}", i % 2 == 0, i, 0.25] for i in range(50)],
    },
}


def details_of(content: bytes | None = None, **changed: Any) -> dict[str, Any]:
    result = {**RESULT, **changed}
    return cell_details(result, {}, lambda _, name: content if "details" in name else None)


def test_tables_of_details_are_shown_in_words_and_percent() -> None:
    guesses, confused, pairs = details_of(json.dumps(DETAILS).encode())["tables"]
    assert guesses == {
        "title": "accuracy of the best k pairs at bias 0, % (in the tables below, bias zero is 0, best hm is inf)",
        "columns": ["k = 1", "k = 3"],
        "rows": [["51.0", "79.1"]],
    }
    assert confused == {
        "title": "confused at zero",
        "columns": ["attribute", "predicted attribute", "images"],
        "rows": [["wet", "<b>dry", "7"]],
    }
    assert pairs["rows"][0] == ["wet", "thing 49", "unseen", "49", "25.0"]


def test_a_long_table_is_cut_to_the_rows_of_the_most_images() -> None:
    pairs = details_of(json.dumps(DETAILS).encode())["tables"][-1]
    assert pairs["title"] == "pairs: the 20 of 50 rows with the most images"
    assert [int(row[3]) for row in pairs["rows"]] == list(range(49, 49 - MOST_ROWS, -1))


def test_the_page_shows_names_as_text() -> None:
    cell = Cell("csp", RESULT["cell"], "done", lambda: details_of(json.dumps(DETAILS).encode()))
    page = as_page(Page([Block([], [], [])], [cell]))
    assert "&lt;b&gt;dry" in page and "<b>" not in page
    assert page.count("<table") == page.count("</table>") == 4


def test_a_result_without_details_has_no_tables() -> None:
    for cell in (details_of(), cell_details(RESULT, {}, None), details_of(status="failed", metrics={})):
        assert cell["tables"] == []
        assert "details" not in cell["sections"]


def test_a_file_that_cannot_be_read_is_named() -> None:
    assert "Expecting value" in details_of(b"torn")["sections"]["details"]

    def gone(result: Any, name: str) -> bytes:
        raise CzslkitError(f"closed.{name} cannot be read: No such file")

    cell = cell_details(RESULT, {}, gone)
    assert cell["sections"]["details"] == "closed.details.json cannot be read: No such file"


def test_the_format_is_the_one_that_is_written() -> None:
    assert module.DETAILS_FORMAT == details.FORMAT == DETAILS["format"]


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"format": 2}'])
def test_details_of_another_format_are_not_shown(content: bytes) -> None:
    cell = details_of(content)
    assert cell["tables"] == []
    assert cell["sections"]["details"] == "closed.details.json does not have format 1"


def test_a_long_text_is_cut() -> None:
    cell = details_of(status="failed", error={"traceback": "x" * (MOST_CHARACTERS + 1234)}, config={"a": "y" * 30_000})
    assert cell["traceback"] == "x" * MOST_CHARACTERS + "\n... and 1,234 more characters in the file of the result"
    assert len(cell["sections"]["config"]) < MOST_CHARACTERS + 100
