"""Marks and alignment; what tables say is tested in ``test_report.py``."""

from __future__ import annotations

from typing import Any

import pytest

from czslkit.report.rendering import Block, Grid, ansi, as_text, asterisks, html_mark, latex_mark, markdown_mark


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        (asterisks, [" 1 ", " 1~ ", "*1*", "_1_ ", "*1*~"]),
        (ansi, ["1", "1~", "\x1b[1m1\x1b[0m", "\x1b[4m1\x1b[0m ", "\x1b[1m1\x1b[0m~"]),
        (markdown_mark, ["1", "1\\~", "**1**", "<u>1</u>", "**1**\\~"]),
        (latex_mark, ["1", r"1\textasciitilde{}", r"\textbf{1}", r"\underline{1}", r"\textbf{1}\textasciitilde{}"]),
        (html_mark, ["1", "1~", "<b>1</b>", "<u>1</u>", "<b>1</b>~"]),
    ],
)
def test_a_number_stands_before_what_is_after_it(mark: Any, expected: list[str]) -> None:
    cases = [(0, ""), (0, "~"), (1, ""), (2, " "), (1, "~")]
    assert [str(mark("1", rank, after)) for rank, after in cases] == expected


@pytest.mark.parametrize("mark", [asterisks, ansi])
def test_numbers_line_up_whether_marked_or_not(mark: Any) -> None:
    shown = [mark("71.5", 1, "~"), mark("71.4", 2, " "), mark("9.0", 0, "~"), mark("1.0", 0, " ")]
    grid = Grid("demo", [("demo", "closed")], [(f"row {i}", [number] * 4) for i, number in enumerate(shown)], " ")
    lines = as_text([Block([grid], [], [])], mark).replace("\x1b[1m", "").replace("\x1b[4m", "").replace("\x1b[0m", "")
    places = {line.rindex(".") for line in lines.splitlines() if "row" in line}
    assert len(places) == 1
    assert lines.splitlines()[1].rindex("AUC") + 2 == places.pop() + 1  # the names end where the numbers do
