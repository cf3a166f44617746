"""Tables of recorded results, compared with the tables of an earlier version that did not use pandas."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from czslkit.report.table import Table
from czslkit.result_store import Store

RECORDED = Path(__file__).parent / "recorded"


def recorded_table(*, intervals: bool = False) -> Table:
    store = Store(RECORDED / "runs")
    return Table(store.results(), attached=store.attached, intervals=intervals)


def grids(text: str) -> list[str]:
    """Return the text without the caption."""
    return text.split("\n\n")[:-1]


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, (dict, list)):
        yield path, tree
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(value, f"{path}/{key}")


@pytest.mark.parametrize(("file", "intervals"), [("table.txt", False), ("intervals.txt", True)])
def test_text_has_not_changed(file: str, intervals: bool) -> None:
    recorded = (RECORDED / file).read_text(encoding="utf-8")
    assert grids(recorded_table(intervals=intervals).to_text()) == grids(recorded)


def test_markdown_has_not_changed() -> None:
    recorded = (RECORDED / "table.md").read_text(encoding="utf-8")
    assert grids(recorded_table().to_markdown()) == grids(recorded)


def test_latex_has_the_same_rows() -> None:
    """The rows are those of the first layout, which had a float with both worlds and no names in papers."""
    now, recorded = (
        [line for line in text.splitlines() if re.search(r" & .*\d\.\d.* \\\\$", line)]
        for text in (recorded_table().to_latex(), (RECORDED / "table.tex").read_text(encoding="utf-8"))
    )
    assert now == recorded and len(now) >= 4


def test_csv_has_the_same_numbers_and_new_columns_for_settings() -> None:
    rows = list(csv.DictReader(io.StringIO(recorded_table().to_csv())))
    recorded = list(csv.DictReader(io.StringIO((RECORDED / "table.csv").read_text(encoding="utf-8"))))
    settings = ["low_layers", "high_layers", "heads", "layers", "dropout", "fusion", "train.epochs"]
    assert list(rows[0]) == ["method", *settings, *list(recorded[0])[1:]]
    for row, before in zip(rows, recorded, strict=True):
        for column, text in before.items():
            if column.endswith(("_mean", "_low", "_high")):
                assert float(row[column]) == pytest.approx(float(text), rel=1e-12)
            else:
                assert row[column] == text


def test_json_has_the_same_numbers() -> None:
    now, recorded = (
        {path: value for path, value in leaves(json.loads(text)) if not path.startswith("/caption")}
        for text in (recorded_table().to_json(), (RECORDED / "table.json").read_text(encoding="utf-8"))
    )
    assert list(now) == list(recorded)
    for path, value in recorded.items():
        assert now[path] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), path
