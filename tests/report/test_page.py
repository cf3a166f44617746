"""The HTML page."""

from __future__ import annotations

import html
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from czslkit.report.table import Table

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
        if tag not in ("meta",):
            self.open.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href"}

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
    assert not {"script", "img", "svg", "i", "b"} & set(page.tags)
    assert "<script>a_b&c|50%#$~^\\{x}" in page.text
    assert "<img>: <svg>" in page.text


def test_html_has_the_details_of_each_cell(result: Make, failed: Make) -> None:
    text = Table([result(), failed(DIVERGED, method="msci")]).to_html()
    page = Page(text)
    assert page.open == []
    assert page.tags.count("details") == 2
    assert html.escape('"train_s": 12.3', quote=True).replace("&quot;", "&#34;") in text
    assert "csp on demo (closed, seed 0): done" in page.text
    assert "msci on demo (closed, seed 0): failed" in page.text
