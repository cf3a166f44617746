"""Marks, alignment and escaped names in text and Markdown, and marks in every format."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest

from czslkit.report.grids import Block, Grid, Number
from czslkit.report.page import html_number
from czslkit.report.table import Table
from czslkit.report.text_markdown_latex import WIDTH, ansi, as_text, asterisks, latex_number, markdown_number

Make = Callable[..., dict[str, Any]]
MakeTable = Callable[..., Table]
DIVERGED = {"type": "TrainingError", "message": "loss is nan\nat step 3", "traceback": "Traceback ..."}
HOSTILE = "\x1b[31m<script>a_b&c|50%#$~^\\{x}\x1b[0m"


MARKS = {
    asterisks: [" 1 ", " 1~ ", "*1*", "_1_ ", "*1*~"],
    ansi: ["1", "1~", "\x1b[1m1\x1b[0m", "\x1b[4m1\x1b[0m ", "\x1b[1m1\x1b[0m~"],
    markdown_number: ["1", "1\\~", "**1**", "<u>1</u>", "**1**\\~"],
    latex_number: ["1", r"1\textasciitilde{}", r"\textbf{1}", r"\underline{1}", r"\textbf{1}\textasciitilde{}"],
    html_number: ["1", "1~", "<b>1</b>", "<u>1</u>", "<b>1</b>~"],
}


@pytest.mark.parametrize("mark", MARKS)
def test_the_mark_of_a_tie_follows_the_number(mark: Any) -> None:
    numbers = [Number("1"), Number("1", tied=True), Number("1", 1), Number("1", 2), Number("1", 1, tied=True)]
    pads = ["", "", "", " ", ""] if mark in (asterisks, ansi) else []
    marked = list(map(mark, numbers, pads) if pads else map(mark, numbers))
    assert [str(text) for text in marked] == MARKS[mark]


@pytest.mark.parametrize("color", [False, True])
def test_numbers_line_up_whether_marked_or_not(color: bool) -> None:
    numbers = [Number("71.5", 1, tied=True), Number("71.4", 2), Number("9.0", tied=True), Number("1.0")]
    grid = Grid("demo", [("demo", "closed")], [(f"row {i}", [number] * 4) for i, number in enumerate(numbers)])
    text = re.sub(r"\x1b\[\d+m", "", as_text([Block([grid], [], [])], color))
    places = {line.rindex(".") for line in text.splitlines() if "row" in line}
    assert len(places) == 1
    assert text.splitlines()[1].rindex("AUC") + 2 == places.pop() + 1  # the names end where the numbers do


@pytest.mark.parametrize(
    ("render", "best", "second"),
    [
        (lambda table: table.to_text(), "*41.0*", "_40.0_"),
        (lambda table: table.to_text(color=True), "\x1b[1m41.0\x1b[0m", "\x1b[4m40.0\x1b[0m"),
        (lambda table: table.to_markdown(), "**41.0**", "<u>40.0</u>"),
        (lambda table: table.to_latex(), r"\textbf{41.0}", r"\underline{40.0}"),
        (lambda table: table.to_html(), "<b>41.0</b>", "<u>40.0</u>"),
    ],
)
def test_each_format_has_its_marks(render: Any, best: str, second: str, result: Make) -> None:
    text = render(Table([result("csp", auc=0.40), result("msci", auc=0.41), result("clip", auc=0.39)]))
    assert text.count(best) == 1
    assert text.count(second) == 1


def test_text_fits_a_terminal_and_lines_up(result: Make) -> None:
    cells = itertools.product(("a_rather_long_name", "csp"), ("mit-states", "demo"), ("closed", "open"), range(3))
    table = Table([result(*cell, auc=0.1 + 0.2 * cell[3]) for cell in cells])
    blocks = table.to_text().split("\n\n")[:-1]
    assert len(blocks) == 4  # two datasets, each too wide for both worlds at once
    for block in blocks:
        lines = block.splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert lines[2].index("±") == lines[3].index("±")
    colored = re.sub(r"\x1b\[\d+m", "", table.to_text(color=True)).split("\n\n")[:-1]
    widths = {len(line) for block in colored for line in block.splitlines()}
    assert widths == {len("a_rather_long_name") + len("  70.0 ± 0.0" * 3 + "  30.0 ± 20.0")}


def test_markdown_has_as_many_cells_in_every_line(result: Make, failed: Make) -> None:
    text = Table([result("csp"), result("msci", world="open"), failed(DIVERGED, method="a|b")]).to_markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {10}
    assert lines[0].startswith("| demo | closed S | closed U | closed H | closed AUC | open S |")


def test_text_stays_aligned_if_the_terminal_lacks_a_sign(result: Make) -> None:
    table = Table([result("csp", seed=seed, auc=0.4 + 0.02 * seed) for seed in (0, 1)] + [result("msci", auc=0.05)])
    text = table.to_text(encoding="ascii")
    assert text.isascii()
    assert "*41.0 +- 1.4*" in text
    assert len({len(row) for row in text.split("\n\n")[0].splitlines()[2:]}) == 1


def test_text_fits_the_terminal(result: Make) -> None:
    table = Table([result("csp", world=world) for world in ("closed", "open")])
    wide, narrow = table.to_text(width=200), table.to_text(width=50)
    assert wide.splitlines()[0].count("closed") == wide.splitlines()[0].count("open") == 1
    assert "open" not in narrow.splitlines()[0]
    assert max(map(len, narrow.splitlines())) <= 50
    assert narrow.split("\n\n")[-1].split() == wide.split("\n\n")[-1].split()


def test_markdown_shows_hostile_names_as_they_are(result: Make) -> None:
    text = Table([result(HOSTILE)]).to_markdown()
    assert r"| &lt;script&gt;a\_b&amp;c\|50\%\#\$\~^\\\{x\} | 70.0 |" in text


@pytest.mark.parametrize(
    ("render", "mark"),
    [
        (lambda table: table.to_text(color=True), "\x1b[4m40.0\x1b[0m~"),
        (lambda table: table.to_markdown(), "<u>40.0</u>\\~ |"),
        (lambda table: table.to_latex(), r"\underline{40.0}\textasciitilde{} \\"),
        (lambda table: table.to_html(), "<td><u>40.0</u>~</td>"),
    ],
)
def test_each_format_marks_ties_and_explains_the_mark(render: Any, mark: str, compared_table: MakeTable) -> None:
    text = render(compared_table())
    assert text.count(mark) == 1
    assert "not significantly below the best of their column" in text
