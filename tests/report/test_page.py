"""The HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from czslkit.report import page
from czslkit.report.page_figures import page_figures
from czslkit.report.table import Table
from czslkit.result_store import Store

from .many_cells import SHAPES, write_many_cells

Make = Callable[..., dict[str, Any]]
MakeTable = Callable[..., Table]
DIVERGED = {"type": "TrainingError", "message": "loss is nan\nat step 3", "traceback": "Traceback ..."}
HOSTILE = "\x1b[31m<script>a_b&c|50%#$~^\\{x}\x1b[0m"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for name, value in attrs:
            assert name != "href" or value.startswith("#")
            assert name != "src" or value.startswith("data:image/jpeg;base64,")
            assert not name.startswith("on")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_the_intervals_of_each_seed(compared_table: MakeTable) -> None:
    text = html.unescape(compared_table().to_html())
    low, high = compared_table().arrangement.frame.loc[0, ["auc_low", "auc_high"]]
    assert f'"auc": [{low}, {high}]' in text


def test_html_shows_hostile_content_as_text(result: Make, failed: Make) -> None:
    wicked = result(HOSTILE, dataset="<b>", world="<i>", config={"options": {"x": "</pre><script>"}})
    error = {"type": "<img>", "message": "<svg>", "traceback": "</pre><script>"}
    page = Page(Table([wicked, failed(error, config_id="bbbbbbbb", seed=1)]).to_html())
    assert page.open == []
    assert page.tags.count("script") == 1
    assert not {"img", "svg", "i", "b"} & set(page.tags)
    assert "<script>a_b&c|50%#$~^\\{x}" in page.text
    assert "<img>: <svg>" in page.text


def test_html_has_the_details_of_each_cell(result: Make, failed: Make) -> None:
    text = Table([result(), failed(DIVERGED, method="msci")]).to_html()
    page = Page(text)
    assert page.open == []
    assert page.tags.count("article") == 2
    assert '"train_s": 12.3' in text
    assert "csp on demo (closed, seed 0): done" in page.text
    assert "msci on demo (closed, seed 0): failed" in page.text


def test_a_page_of_few_cells_leaves_no_details_out(result: Make) -> None:
    text = Table([result(seed=seed) for seed in range(5)]).to_html()
    assert text.count("<article") == 5 and "keep the page short" not in text


def test_details_that_do_not_fit_are_left_out_and_said_where_they_are(
    result: Make, failed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [result(seed=seed, config={"text": "&" * 900}) for seed in range(4)]
    table = Table([*long, failed(DIVERGED, seed=9, config={"text": "&" * 900})])
    monkeypatch.setattr(page, "DETAIL_BYTES", 17_000)  # three times 900 * len("&amp;") and other sections
    text = table.to_html()
    shown = Page(text)
    assert shown.open == [] and shown.tags.count("article") == 3
    assert "it has the details of 3 of 5 cells, failed ones\nfirst" in shown.text
    unfolded = re.findall(r'id="cell-(\d)">\n<h3>.*seed (\d)\): (done|failed)</h3>', text)
    assert unfolded == [("4", "9", "failed"), ("0", "0", "done"), ("1", "1", "done")]
    assert re.findall('href="#cell-(.)"', text) == ["0", "1", "4"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_page_of_many_cells_reads_few_details(tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_many_cells(tmp_path, 300, shape)
    store = Store(tmp_path)
    read = []

    def attached(found: Any, name: str) -> bytes | None:
        read.extend([name] * (name == "details.json"))
        return store.attached(found, name) if name == "details.json" else None

    monkeypatch.setattr(page, "DETAIL_BYTES", 50_000)
    table = Table(store.results(), attached=attached)
    read.clear()
    text = table.to_html()
    assert len(read) < 20
    monkeypatch.setattr(page, "DETAIL_BYTES", 0)
    assert len(text) - len(table.to_html()) <= 50_000 + 20 * 150


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_page_of_2000_cells_has_less_than_6_mb(tmp_path: Path, shape: str) -> None:
    write_many_cells(tmp_path, 2000, shape)
    store = Store(tmp_path)
    table = Table(store.results(), attached=store.attached)
    text = table.to_html(figures=page_figures(table))
    assert "<svg" in text and len(text.encode()) < 6_000_000


def test_figures_that_do_not_fit_are_left_out(result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "FIGURE_BYTES", 20)
    figures = {"": [page.Figure("one", "<svg>1</svg>"), page.Figure("two", "<svg>2</svg>")], "demo": []}
    text = Table([result()]).to_html(figures=figures)
    assert "<svg>1</svg>" in text and "<svg>2</svg>" not in text
    assert "Left out, to keep the page short: czslkit plot draws it." in text


def test_figures_of_some_rows_say_so_and_gaps_have_their_reason(result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("czslkit.report.page_figures.MOST_ROWS", 1)
    figures = page_figures(Table([result(), result("msci")]))
    assert figures[""][0].title == "AUC: closed world, the 1 of 2 rows with the highest AUC"
    confusion = figures["demo"][-1]
    assert "highest AUC" not in confusion.title
    assert "no details.json is stored" in confusion.gap
    monkeypatch.setattr("czslkit.report.page_figures.MOST_ROWS", 2)
    assert page_figures(Table([result(), result("msci")]))[""][0].title == "AUC: closed world"


def test_each_training_has_its_time(result: Make) -> None:
    slow = result(seed=1) | {"timing": {"train_s": 7200.0, "eval_s": 30.0}}
    opened = result(seed=1, world="open") | {"timing": {"train_s": 7200.0, "eval_s": 30.0}}
    text = Table([result(), slow, opened]).to_html().split('<section id="cells">')[1]
    assert re.findall(r'data-value="(.*?)">(.*?)</td>', text) == [
        ("12.3", "12 s"), ("-1", "–"), ("7200.0", "2 h"), ("30.0", "30 s"),
    ]  # fmt: skip
