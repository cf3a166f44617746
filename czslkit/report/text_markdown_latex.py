"""Blocks of a table written as text and Markdown, and numbers with their marks, also in LaTeX."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..metrics.names import METRICS
from ..terminal import encodable
from .escaping import escape_latex, escape_markdown
from .grids import TIED_MARK, Block, Grid, Number

WIDTH = 100  # columns of a text for a terminal of unknown width
_NARROWEST = 40  # fewest columns in which notes are wrapped
#: Sentence below a table in Markdown, LaTeX and HTML.
RANKS_SENTENCE = "In each column, the best number is bold and the second best is underlined."


def as_text(blocks: Sequence[Block], color: bool = False, width: int | None = None, encoding: str = "utf-8") -> str:
    """Write blocks for a terminal; a grid that is too wide is written one column at a time.

    Args:
        blocks: what to write.
        color: mark the best numbers by bold and underlined type instead of asterisks and underscores.
        width: columns of the terminal, in which notes and sentences are wrapped; None wraps none, and splits grids that
            are wider than ``WIDTH``.
        encoding: of the terminal; characters that it does not have are replaced by ASCII.
    """
    ranked = any(block.has_ranks for block in blocks)
    mark = ansi if color or not ranked else asterisks
    parts: list[list[str]] = []
    for block in blocks:
        pad = " " if block.has_ties else ""
        for grid in (_encodable_grid(grid, encoding) for grid in block.grids):
            lines = _text_lines(grid, mark, pad)
            fits = max(map(_visible_width, lines)) <= (width or WIDTH)
            parts += [lines] if fits else [_text_lines(part, mark, pad) for part in grid.split()]
        best, second = mark(Number("best", rank=1)), mark(Number("second best", rank=2))
        ranks_sentence = [f"In each column, the {best} and the {second} number are marked."] if block.has_ranks else []
        sentences = [encodable(text, encoding) for text in (*block.caption, *ranks_sentence, *block.all_notes)]
        parts.append(_wrapped(sentences, width) if width else sentences)
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def as_markdown(blocks: Sequence[Block]) -> str:
    """Write blocks in GitHub's dialect of Markdown."""
    parts = []
    for block in blocks:
        for grid in block.grids:
            head = [grid.corner, *(f"{world} {name}" for _, world in grid.columns for name in METRICS)]
            rule = ["---", *["---:"] * (len(head) - 1)]
            rows = [[escape_markdown(label), *map(markdown_number, numbers)] for label, numbers in grid.rows]
            lines = [[escape_markdown(name) for name in head], rule, *rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts.append(escape_markdown(" ".join(caption_with_ranks(block))))
        if block.all_notes:
            parts.append("\n".join("- " + escape_markdown(note).replace("\n", "\\\n") for note in block.all_notes))
    return "\n\n".join(parts) + "\n"


def caption_with_ranks(block: Block) -> list[str]:
    """Return the caption of a block, with the sentence on bold and underlined numbers if there are any."""
    return [*block.caption, *([RANKS_SENTENCE] if block.has_ranks else [])]


def asterisks(number: Number, pad: str = "") -> str:
    """Return a number between marks of equal width; ``pad`` keeps the place of a tie mark."""
    text, after = number.text, TIED_MARK if number.tied else pad
    return (f" {text}{after} ", f"*{text}*{after}", f"_{text}_{after}")[number.rank]


def ansi(number: Number, pad: str = "") -> str:
    """Return a number in bold or underlined type for a terminal; ``pad`` keeps the place of a tie mark."""
    text, after = number.text, TIED_MARK if number.tied else pad
    return (text, f"\x1b[1m{text}\x1b[0m", f"\x1b[4m{text}\x1b[0m")[number.rank] + after


def markdown_number(number: Number) -> str:
    """Return a number in bold or underlined type for Markdown."""
    text = escape_markdown(number.text)
    marked = (text, f"**{text}**", f"<u>{text}</u>")[number.rank]
    return marked + (escape_markdown(TIED_MARK) if number.tied else "")


def latex_number(number: Number) -> str:
    """Return a number in bold or underlined type for LaTeX."""
    text = escape_latex(number.text)
    marked = (text, rf"\textbf{{{text}}}", rf"\underline{{{text}}}")[number.rank]
    if number.span > 1:
        return rf"\multicolumn{{{number.span}}}{{c}}{{{marked}}}"
    return marked + (escape_latex(TIED_MARK) if number.tied else "")


def _text_lines(grid: Grid, mark: Callable[[Number, str], str], pad: str) -> list[str]:
    """Return the lines of a grid, numbers aligned to the right and each world above its numbers."""
    from tabulate import tabulate

    names = list(METRICS) * len(grid.columns)
    head = ["method".ljust(len(grid.corner)), *(mark(Number(name), pad) for name in names)]
    lines = [head, *([label, *(mark(number, pad) for number in numbers)] for label, numbers in grid.rows)]
    table = tabulate(
        lines,
        tablefmt="plain",
        colalign=["left", *["right"] * len(names)],
        disable_numparse=True,
        preserve_whitespace=True,
    )
    widths = [max(map(_visible_width, cells)) for cells in zip(*lines, strict=True)]
    n = len(METRICS)
    spans = [sum(widths[i : i + n]) + 2 * (n - 1) for i in range(1, len(widths), n)]
    worlds = [f" {world} ".center(span, "-") for (_, world), span in zip(grid.columns, spans, strict=True)]
    return ["  ".join([grid.corner.ljust(widths[0]), *worlds]).rstrip(), *table.splitlines()]


def _encodable_grid(grid: Grid, encoding: str) -> Grid:
    """Return a grid with the characters of an encoding, before its columns are aligned."""
    rows = [
        (encodable(label, encoding), [replace(number, text=encodable(number.text, encoding)) for number in numbers])
        for label, numbers in grid.rows
    ]
    return replace(grid, rows=rows)


def _wrapped(sentences: Sequence[str], width: int) -> list[str]:
    """Return sentences and notes in lines that fit a terminal; names and paths are not divided."""
    return [
        part
        for line in "\n".join(sentences).split("\n")
        for part in textwrap.wrap(
            line,
            max(width, _NARROWEST),
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def _visible_width(text: str) -> int:
    return len(re.sub(r"\x1b\[\d+m", "", text))
