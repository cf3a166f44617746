"""Blocks of a table in LaTeX: floats for each world that fit the text of an article, with names in papers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ..metrics.names import METRICS
from .escaping import escape_latex, printable
from .grids import TIED_MARK, Block, Grid, Number
from .paper_names import PaperName
from .text_markdown_latex import RANKS_SENTENCE, latex_number

TEXT_WIDTH = 345.0  # points, \textwidth of the class article with 10-point type
_LINES = 33  # lines of tables in a float; more would not leave a page room for the caption and a short note
_NOTE_LINES = 10  # lines of \\footnotesize in a short note; each line more takes the place of a line of tables
_NOTE_LINE = 330.0  # points of text in a line of \\footnotesize, without what line breaks leave empty
_NOTE_SCALE = 0.85  # widths of \\footnotesize relative to 10-point type
_LONGEST_NOTE, _LONGEST_NOTES = 300, 1200  # characters of one printed note, and of all of them
_HEAD_LINES = 3  # lines of the head of a table
_CITATION = " [99]"  # a printed citation, for the width of a label
_LONGEST_LABEL, _LONGEST_HEAD = 110.0, 150.0  # points; longer texts are broken into lines
_LONGEST_WORD = 16  # characters; longer words may be broken
#: Command of a type size, its widths relative to 10-point type, and the points on each side of a column.
_SIZES = (("", 1.0, 6.0), (r"\small", 0.925, 3.0), (r"\footnotesize", 0.85, 2.0))
_SCRIPT = 0.8  # widths of spreads below the means, in \\scriptsize, relative to 10-point type
#: Widths of letters in points of 10-point Computer Modern, where they differ from those of most letters.
_WIDTHS = dict.fromkeys("0123456789~", 5.05) | dict.fromkeys(".,:;'!|ijl", 2.9) | dict.fromkeys(" ()[]/-", 3.95)
_WIDTHS |= dict.fromkeys("mwMW@%", 10.3)


@dataclass(frozen=True)
class Names:
    """How the rows and the datasets of a table are written in a paper."""

    row: Callable[[str], tuple[PaperName, str]]  # from a label: the name of the method, and the text after it
    dataset: Callable[[str], PaperName]


@dataclass(frozen=True)
class _Layout:
    """How the numbers of a world are arranged."""

    datasets: int  # side by side
    below: bool  # whether spreads and intervals are below the means
    size: str
    scale: float
    gap: float  # points on each side of a column


def as_latex(blocks: Sequence[Block], names: Names, *, wide: bool = False) -> str:
    """Write a float for each world of each block; the document needs ``booktabs``.

    As many datasets are side by side as fit ``TEXT_WIDTH``; the others are below them.

    Args:
        blocks: what to write; a block has a grid for each world.
        names: how papers write methods and datasets.
        wide: use ``table*`` and small type, with spreads below the means if more datasets fit side by side then.
    """
    lines = [r"% needs \usepackage{booktabs}; the entries that are cited are in table.bib"]
    for block in blocks:
        first = ""
        for grid in block.grids:
            label = f"tab:{block.name}-{re.sub(r'[^A-Za-z0-9]+', '-', grid.corner)}"
            also = " and notes" if block.notes else ""
            text = " ".join([*block.caption, *_sentences(block.notes)])
            note = rf"Numbers{also} as in Table~\ref{{{first}}}." if first else _breakable(text)
            height = 1 if first else _points(text) * _NOTE_SCALE / _NOTE_LINE
            first = first or label
            caption = f"{block.title} in the {grid.corner} world." + (f" {RANKS_SENTENCE}" if block.has_ranks else "")
            lines += _floats(grid, names, label, _breakable(caption), note, height, wide)
        lines += [f"% {line}" for note in block.all_notes for line in note.split("\n")]
    return "\n".join(lines) + "\n"


def _sentences(notes: Sequence[str]) -> list[str]:
    """Return notes to print below a table; long ones are shortened, and those for which there is no room counted.

    >>> [len(sentence) for sentence in _sentences(["a", "b" * 500])]
    [2, 300]
    >>> _sentences(["a b"] * 2000)[-1]
    '1700 more notes are in the source of this table.'
    """
    sentences: list[str] = []
    for note in notes:
        line = " ".join(note.split())
        line = f"{line[: _LONGEST_NOTE - 1]}…" if len(line) >= _LONGEST_NOTE else f"{line.rstrip('.')}."
        if sum(map(len, sentences)) + len(line) > _LONGEST_NOTES:
            more = len(notes) - len(sentences)
            return [*sentences, f"{more} more note{'s are' if more > 1 else ' is'} in the source of this table."]
        sentences.append(line)
    return sentences


def _floats(grid: Grid, names: Names, label: str, caption: str, note: str, height: float, wide: bool) -> Iterator[str]:
    """Yield the lines of the floats of one world; further floats have only the rest of the rows.

    Args:
        height: lines of the note, about.
    """
    layout = _layout(grid, names, wide)
    kind = "table*" if wide else "table"
    for number, page in enumerate(_pages(grid, names, layout, height)):
        yield from (rf"\begin{{{kind}}}", r"\centering")
        own_caption = rf"Continuation of Table~\ref{{{label}}}." if number else caption
        yield rf"\caption{{{own_caption}}}"
        yield rf"\label{{{label}{f'-{number + 1}' if number else ''}}}\medskip"
        yield from [rf"{layout.size}\setlength{{\tabcolsep}}{{{layout.gap:g}pt}}"] * bool(layout.size)
        for i, part in enumerate(page):
            yield from ["", r"\medskip"] * bool(i)
            yield from _tabular(part, names, layout)
        if not number:
            yield from ("", r"\smallskip", rf"\parbox{{\linewidth}}{{\footnotesize\raggedright {note}}}")
        yield rf"\end{{{kind}}}"


def _pages(grid: Grid, names: Names, layout: _Layout, note: float) -> list[list[Grid]]:
    """Return the grids of each float: parts of the columns and, if a page has no room for them, of the rows.

    Args:
        note: lines of the note in the first float, about.
    """
    pages: list[list[Grid]] = [[]]
    room = _LINES - max(0, math.ceil(note) - _NOTE_LINES)
    for part in grid.split(layout.datasets):
        start = 0
        for i, (label, numbers) in enumerate(part.rows):
            height = max(
                max(len(_parts(number)) for number in numbers) if layout.below else 1,
                1 + int(1.2 * _points(_shown(*names.row(label))) / _LONGEST_LABEL),
            )
            head = _HEAD_LINES if i == start else 0
            if head + height > room and (pages[-1] or i > start):
                if i > start:
                    pages[-1].append(Grid(part.corner, part.columns, part.rows[start:i]))
                pages.append([])
                start, room, head = i, _LINES, _HEAD_LINES
            room -= head + height
        pages[-1].append(Grid(part.corner, part.columns, part.rows[start:]))
    return pages


def _layout(grid: Grid, names: Names, wide: bool) -> _Layout:
    """Return the first layout that fits, by the number of datasets side by side; the smallest one if none fits."""
    counts = range(len(grid.columns), 0, -1)
    # Where there is no need for few lines, spreads stay beside the means.
    orders = product(counts, (False, True)) if wide else [*product(counts, (False,)), (1, True)]
    layouts = [_Layout(n, below, *size) for n, below in orders for size in _SIZES[1 if wide else 0 :]]
    fitting = (one for one in layouts if all(_width(p, names, one) <= TEXT_WIDTH for p in grid.split(one.datasets)))
    return next(fitting, layouts[-1])


def _width(grid: Grid, names: Names, layout: _Layout) -> float:
    """Return the width of a grid in points, estimated from the letters."""
    labels = [_points("Method"), *(min(_points(_shown(*names.row(label))), _LONGEST_LABEL) for label, _ in grid.rows)]
    heads, n = [layout.scale * _points(name) for name in METRICS] * len(grid.columns), len(METRICS)
    numbers = [[_number_width(number, layout) for number in row] for _, row in grid.rows]
    widths = [max(column) for column in zip(heads, *numbers, strict=True)]
    total = layout.scale * max(labels)
    for i, (dataset, _) in enumerate(grid.columns):
        head = layout.scale * min(_points(_shown(names.dataset(dataset))), _LONGEST_HEAD)
        total += max(head, sum(widths[n * i : n * i + n]) + 2 * layout.gap * (n - 1))
    return total + 2 * layout.gap * (len(grid.columns) + 1)


def _number_width(number: Number, layout: _Layout) -> float:
    """Return the width of a number in points, in each of the columns that it spans."""
    mean, *rest = _parts(number) if layout.below else [number.text]
    bold = 1.15 if number.rank == 1 else 1.0
    tie = _points(TIED_MARK) if number.tied else 0
    width = max([layout.scale * (bold * _points(mean) + tie), *(_SCRIPT * _points(text) for text in rest)])
    return width / max(number.span, 1)


def _points(text: str) -> float:
    """Return the width of a text in points of 10-point Computer Modern, rounded up."""
    return sum(_WIDTHS.get(c, 5.6 if c.islower() else 7.9) for c in text)


def _tabular(grid: Grid, names: Names, layout: _Layout) -> list[str]:
    n = len(METRICS)
    starts = range(2, 2 + n * len(grid.columns), n)
    heads = [_named(names.dataset(dataset), "", _LONGEST_HEAD, layout.scale) for dataset, _ in grid.columns]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * n * len(grid.columns)}}}",
        r"\toprule",
        " & ".join(["", *(rf"\multicolumn{{{n}}}{{c}}{{{head}}}" for head in heads)]) + r" \\",
        " ".join(rf"\cmidrule(lr){{{start}-{start + n - 1}}}" for start in starts),
        " & ".join(["Method", *list(METRICS) * len(grid.columns)]) + r" \\",
        r"\midrule",
    ]
    for label, numbers in grid.rows:
        name = _named(*names.row(label), _LONGEST_LABEL, layout.scale)
        lines += _row(name, numbers, layout.below)
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _row(label: str, numbers: Sequence[Number], below: bool) -> list[str]:
    """Return the line of a row, and with ``below`` the lines with its spreads and intervals."""
    if not below:
        return [" & ".join([label, *(latex_number(number) for number in numbers if number.span)]) + r" \\"]
    parts = [_parts(number) for number in numbers]
    means = [latex_number(replace(n, text=p[0])) for p, n in zip(parts, numbers, strict=True) if n.span]
    lines = [" & ".join([label, *means]) + r" \\"]
    for i in range(1, max(map(len, parts))):
        texts = [rf"{{\scriptsize {escape_latex(p[i])}}}" if len(p) > i else "" for p in parts]
        lines.append(" & ".join(["", *texts]) + r" \\")
    return lines


def _parts(number: Number) -> list[str]:
    """Return the parts of a printed number: the mean, the spread and the interval, or a verdict and its mark."""
    return re.split(r" (?=[±\[(])", number.text.replace("± ", "±"))


def _shown(name: PaperName, rest: str = "") -> str:
    return name.display_name + (_CITATION if name.key else "") + rest


def _named(name: PaperName, rest: str, longest: float, scale: float) -> str:
    """Return a name with its citation and the text after it, in several lines if it is longer than ``longest``."""
    text = _breakable(printable(name.display_name)) + (rf"~\cite{{{name.key}}}" if name.key else "") + _breakable(rest)
    if _points(_shown(name, rest)) <= longest:
        return text
    return rf"\parbox[t]{{{longest * scale:.0f}pt}}{{\raggedright {text}\strut}}"


def _breakable(text: str) -> str:
    """Return LaTeX that shows a text whose long words may be broken."""
    words = re.split(r"(\s+)", text)
    pieces = [[w[i : i + 8] for i in range(0, len(w), 8)] if len(w) > _LONGEST_WORD else [w] for w in words]
    return "".join(r"\allowbreak{}".join(map(escape_latex, word)) for word in pieces)
