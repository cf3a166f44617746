"""How tables are drawn: as text, Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from ..metrics.names import METRICS

WIDTH = 100  # columns of a terminal

Column = tuple[str, str]  # dataset, world
#: A printed number, its rank (1 best, 2 second, 0 none) and what stands after it -> the number as marked. After a
#: number without a mark stands a blank where others of the table have one, and only text shows it.
Mark = Callable[[str, int, str], str]


@dataclass(frozen=True)
class Grid:
    """A table ready to be drawn: a label and the numbers of every column for each row, marked as the format has it."""

    corner: str  # the dataset, or the world
    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[str]]]
    after: str = ""  # what stands after the names of the columns: a blank where some numbers have a mark there

    def parts(self) -> list[Grid]:
        """A grid for each column."""
        n = len(METRICS)
        return [
            Grid(self.corner, [column], [(row, numbers[n * i : n * i + n]) for row, numbers in self.rows], self.after)
            for i, column in enumerate(self.columns)
        ]


@dataclass(frozen=True)
class Block:
    """Tables and what is said below them."""

    grids: Sequence[Grid]
    caption: Sequence[str]
    notes: Sequence[str]


def as_text(blocks: Sequence[Block], mark: Mark) -> str:
    """For a terminal: a grid is drawn whole, or a column at a time where that is wider than ``WIDTH``."""
    drawn: list[list[str]] = []
    for block in blocks:
        for grid in block.grids:
            whole = _drawn(grid, mark)
            fits = max(map(_width, whole)) <= WIDTH
            drawn += [whole] if fits else [_drawn(part, mark) for part in grid.parts()]
        drawn.append([*block.caption, *block.notes])
    return "\n\n".join("\n".join(lines) for lines in drawn) + "\n"


def as_markdown(blocks: Sequence[Block]) -> str:
    """In GitHub's dialect."""
    parts = []
    for block in blocks:
        for grid in block.grids:
            names = [f"{_markdown(world)} {name}" for _, world in grid.columns for name in METRICS]
            rule = ["---", *["---:"] * len(names)]
            body = [[_markdown(row), *numbers] for row, numbers in grid.rows]
            lines = [[_markdown(grid.corner), *names], rule, *body]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts.append(_markdown(" ".join(block.caption)))
        if block.notes:
            parts.append("\n".join("- " + _markdown(note).replace("\n", "\\\n") for note in block.notes))
    return "\n\n".join(parts) + "\n"


def as_latex(blocks: Sequence[Block]) -> str:
    """Floats with a tabular for each grid; needs ``booktabs``."""
    lines = ["% needs booktabs"]
    for block in blocks:
        lines += [r"\begin{table*}", r"\centering", rf"\caption{{{_latex(' '.join(block.caption))}}}"]
        for grid in block.grids:
            lines += [*_tabular(grid), ""]
        lines[-1] = r"\end{table*}"
        lines += [f"% {line}" for note in block.notes for line in note.split("\n")]
    return "\n".join(lines) + "\n"


def as_page(blocks: Sequence[Block], cells: Sequence[Mapping[str, Any]]) -> str:
    """A page that needs no other file.

    Args:
        cells: name, status, sections, tables and traceback of each, shown when unfolded.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(blocks=blocks, metrics=list(METRICS), cells=cells)


def _drawn(grid: Grid, mark: Mark) -> list[str]:
    """Lines of text, aligned to the right; the worlds stand above their numbers."""
    head = ("method", [mark(name, 0, grid.after) for _ in grid.columns for name in METRICS])
    lines = [[row, *numbers] for row, numbers in (head, *grid.rows)]
    widths = [max(map(_width, cells)) for cells in zip(*lines, strict=True)]
    widths[0] = max(widths[0], len(grid.corner))
    spans = [sum(widths[i : i + len(METRICS)]) + 2 * (len(METRICS) - 1) for i in range(1, len(widths), len(METRICS))]
    over = [f" {world} ".center(span, "-") for (_, world), span in zip(grid.columns, spans, strict=True)]
    aligned = [
        [line[0].ljust(widths[0]), *(" " * (w - _width(c)) + c for c, w in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return ["  ".join(line).rstrip() for line in [[grid.corner.ljust(widths[0]), *over], *aligned]]


def _tabular(grid: Grid) -> list[str]:
    n = len(METRICS)
    starts = range(2, 2 + n * len(grid.columns), n)
    spans = [rf"\multicolumn{{{n}}}{{c}}{{{_latex(dataset)}}}" for dataset, _ in grid.columns]
    return [
        rf"\begin{{tabular}}{{l{'r' * n * len(grid.columns)}}}",
        r"\toprule",
        " & ".join([_latex(f"{grid.corner} world"), *spans]) + r" \\",
        " ".join(rf"\cmidrule(lr){{{start}-{start + n - 1}}}" for start in starts),
        " & ".join(["Method", *list(METRICS) * len(grid.columns)]) + r" \\",
        r"\midrule",
        *(" & ".join([_latex(row), *numbers]) + r" \\" for row, numbers in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _width(text: str) -> int:
    return len(re.sub(r"\x1b\[\d+m", "", text))


def asterisks(text: str, rank: int, after: str = "") -> str:
    return (f" {text}{after} ", f"*{text}*{after}", f"_{text}_{after}")[rank]


def ansi(text: str, rank: int, after: str = "") -> str:
    return (text, f"\x1b[1m{text}\x1b[0m", f"\x1b[4m{text}\x1b[0m")[rank] + after


def markdown_mark(text: str, rank: int, after: str = "") -> str:
    text = _markdown(text)
    return (text, f"**{text}**", f"<u>{text}</u>")[rank] + _markdown(after.strip())


def latex_mark(text: str, rank: int, after: str = "") -> str:
    text = _latex(text)
    return (text, rf"\textbf{{{text}}}", rf"\underline{{{text}}}")[rank] + _latex(after.strip())


def html_mark(text: str, rank: int, after: str = "") -> Markup:
    return (Markup("{}{}"), Markup("<b>{}</b>{}"), Markup("<u>{}</u>{}"))[rank].format(text, after.strip())


def _markdown(text: str) -> str:
    r"""``text`` as Markdown that shows it.

    >>> print(_markdown("a_b|<i>"))
    a\_b\|&lt;i&gt;
    """
    return re.sub(r"([\\`*_{}\[\]#|~$%])", r"\\\1", html.escape(text, quote=False))


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "_&%#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {"[": "{[}", "*": "{*}", "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"}
)


def _latex(text: str) -> str:
    r"""``text`` as LaTeX that shows it.

    >>> print(_latex("a_b & 50%"))
    a\_b \& 50\%
    """
    return text.translate(_LATEX)


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
{% for row, numbers in grid.rows %}
<tr><th>{{ row }}</th>{% for number in numbers %}<td>{{ number }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endfor %}
<p>{{ block.caption | join(" ") }}</p>
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
