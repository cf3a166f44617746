"""An HTML page with the blocks of a table and the details of every cell; the page needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ..metrics.names import METRICS
from .grids import TIED_MARK, Block, Number
from .text_markdown_latex import caption_with_ranks


def as_page(blocks: Sequence[Block], cells: Sequence[Mapping[str, Any]]) -> str:
    """Write blocks and cells as an HTML page.

    Args:
        blocks: the tables.
        cells: name, status, sections, tables and traceback of each cell, as
            :func:`czslkit.report.cell_details.cell_details` returns them; the page shows them when unfolded.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(
        blocks=blocks, metrics=list(METRICS), cells=cells, caption=caption_with_ranks, mark=html_number
    )


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
<tr><th>{{ label }}</th>{% for number in numbers %}<td>{{ mark(number) }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endfor %}
<p>{{ caption(block) | join(" ") }}</p>
{% if block.notes %}
<ul>
{% for note in block.notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% endif %}
{% endfor %}
<h2>Cells</h2>
{% for cell in cells %}
<details><summary>{{ cell.name }}: {{ cell.status }}</summary>
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
</details>
{% endfor %}
</html>
"""
