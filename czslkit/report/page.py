"""An HTML page with the blocks of a table and the details of every cell; the page needs no other file."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..metrics.names import METRICS
from .grids import TIED_MARK, Block, Number
from .text_markdown_latex import caption_with_ranks

DETAIL_BYTES = 1_000_000  # largest size of the details of all cells


@dataclass(frozen=True)
class Cell:
    """A cell in the list below the tables."""

    name: str
    status: str
    file: str  # path of its result below the folder of results
    details: Callable[[], Mapping[str, Any]]  # returns sections, tables and traceback, as ``cell_details``


def as_page(blocks: Sequence[Block], cells: Sequence[Cell]) -> str:
    """Write blocks and cells as an HTML page.

    The details of all cells together have at most ``DETAIL_BYTES``: those of failed cells first, then in the order of
    the cells. The page says how many are left out, and names the files of all cells.

    Args:
        blocks: the tables.
        cells: the cells; the page shows their details when unfolded.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_escape_for_text)
    template = environment.from_string(_DETAILS)
    details: dict[int, Markup] = {}
    size = 0
    for i in sorted(range(len(cells)), key=lambda i: cells[i].status == "done"):
        rendered = template.render(cell=cells[i].details())
        size += len(rendered.encode())
        if size > DETAIL_BYTES:
            break
        details[i] = Markup(rendered)
    return environment.from_string(_PAGE).render(
        blocks=blocks, metrics=list(METRICS), cells=cells, details=details, caption=caption_with_ranks, mark=html_number
    )


def _escape_for_text(value: Any) -> Any:
    """Return a text escaped for the inside of an element, where quotation marks need no escape and stay short."""
    return Markup(html.escape(value, quote=False)) if type(value) is str else value


def html_number(number: Number) -> Markup:
    """Return a number in bold or underlined type for HTML."""
    marked = (Markup("{}"), Markup("<b>{}</b>"), Markup("<u>{}</u>"))[number.rank].format(number.text)
    return marked + (TIED_MARK if number.tied else "")


_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>czslkit results</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1.5em 0; border-block: 2px solid; }
th, td { padding: .2em .7em; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; }
thead tr:first-child th { text-align: center; }
thead tr:last-child th { border-bottom: 1px solid; }
li, pre { white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
</style>
<h1>czslkit results</h1>
{% for block in blocks %}
{% for grid in block.grids %}
<table>
<thead>
<tr><th>{{ grid.corner }}</th>
{%- for _, world in grid.columns %}<th colspan="{{ metrics | length }}">{{ world }}</th>{% endfor %}</tr>
<tr><th>method</th>
{%- for _ in grid.columns %}{% for name in metrics %}<th>{{ name }}</th>{% endfor %}{% endfor %}</tr>
</thead>
{% for label, numbers in grid.rows %}
<tr><th>{{ label }}</th>{% for number in numbers if number.span %}
<td{% if number.span > 1 %} colspan="{{ number.span }}"{% endif %}>{{ mark(number) }}</td>
{%- endfor %}</tr>
{% endfor %}
</table>
{% endfor %}
<p>{{ caption(block) | join(" ") }}</p>
{% if block.all_notes %}
<ul>
{% for note in block.all_notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% endif %}
{% endfor %}
<h2>Cells</h2>
{% if details | length < cells | length %}
<p>To keep the page short, it has the details of {{ details | length }} of {{ cells | length }} cells, failed ones \
first. All details are in the files that are named here, which are below the folder of results. A page of fewer cells \
(czslkit report RUNS --methods NAME --datasets NAME) has the details of each.</p>
{% endif %}
{% for cell in cells %}
{% if loop.index0 in details %}
<details><summary>{{ cell.name }}: {{ cell.status }}</summary>
{{ details[loop.index0] }}
</details>
{% else %}
<div>{{ cell.name }}: {{ cell.status }}: {{ cell.file }}</div>
{% endif %}
{% endfor %}
</html>
"""
_DETAILS = """\
{% for table in cell.tables %}
<h4>{{ table.title }}</h4>
<table>
<tr>{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}
<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endfor %}
{% for section, text in cell.sections.items() %}
<h4>{{ section }}</h4>
<pre>{{ text }}</pre>
{% endfor %}
{% if cell.traceback %}
<pre>{{ cell.traceback }}</pre>
{% endif %}
"""
