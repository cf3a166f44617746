"""Draw an explanation as one sheet with a row for every pair.

A row shows the picture and, for each branch (pair, attribute, object), a map of every attention stage and a bar of the
contributions of all stages.
"""

from __future__ import annotations

import functools
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..types import Explanation, PairSpace
from .explanation import ranked_rows
from .heat import PANEL, blend, overlay, resize

Position = tuple[int, int]  # x and y of a top left corner on the sheet, in pixels

# lengths in pixels
_MARGIN, _GAP, _BRANCH_GAP = 16, 6, 22  # around the sheet, between maps, between branches
_HEADING_FONT, _FONT, _NOTE_FONT = 19, 14, 12
_HEADING, _LINE = 30, 19  # height of the heading of a row, and of any other line of text
_BAR = 10  # height of a bar
_MAP_HEIGHT = _LINE + PANEL + _LINE  # with the title above and the note below
_ROW = _HEADING + _MAP_HEIGHT + 6 + _BAR + _LINE + 18
#: Colour of each stage in a bar; they differ in lightness, so that readers who confuse hues can tell them apart.
_STAGE_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
_INK, _FAINT = "#1a1a1a", "#6a6a6a"  # colours of text


@dataclass(frozen=True)
class _Branch:
    """The words, attention and contributions of one text in one image, for one branch of one pair."""

    name: str  # the text's words
    attention: dict[str, Tensor]  # by stage, [T]
    contribution: dict[str, float]  # by stage, from 0 to 1


def draw(
    picture: Image.Image, explanation: Explanation, space: PairSpace, *, image: int = 0, top: int | None = None
) -> Image.Image:
    """Draw one image of an explanation, with a row for each pair, the highest-ranked pair first.

    Args:
        picture: the square picture that the method got, before normalisation.
        explanation: explanation of the picture and possibly of other images.
        space: the attributes and objects, for their names.
        image: index of the picture within the explanation.
        top: number of highest-ranked pairs to draw; all if None.

    Raises:
        CzslkitError: the patches do not form a square.
    """
    rows = ranked_rows(explanation, image, top)
    stages = len(explanation.attention)
    branches = len(next(iter(explanation.attention.values())))
    width = 2 * _MARGIN + PANEL + branches * (_BRANCH_GAP + _branch_width(stages))
    caption = _caption(width, several_stages=stages > 1)
    sheet = Image.new("RGB", (width, 2 * _MARGIN + len(rows) * _ROW + (len(caption) + 1) * _LINE), "white")
    for i, row in enumerate(rows):
        content = _branches(explanation, space, image, row)
        heading = f"{i + 1}.  {content[0].name}     score {explanation.ranked[image, row]:.3f}"
        _draw_row(sheet, _MARGIN + i * _ROW, picture, heading, content)
    _draw_caption(sheet, _MARGIN + len(rows) * _ROW, caption)
    return sheet


def _branches(explanation: Explanation, space: PairSpace, image: int, row: int) -> list[_Branch]:
    """Return the branches of one row of the sheet, the branch of the pair first."""
    attr, obj = explanation.pairs[row].tolist()
    names = {"pair": f"{space.attrs[attr]} {space.objs[obj]}", "attr": space.attrs[attr], "obj": space.objs[obj]}
    text_of_branch = {"pair": row, "attr": attr, "obj": obj}
    stages = list(explanation.attention)
    return [
        _Branch(
            names[branch],
            {stage: explanation.attention[stage][branch][image, text_of_branch[branch]] for stage in stages},
            {stage: float(explanation.contribution[stage][branch][image, text_of_branch[branch]]) for stage in stages},
        )
        for branch in explanation.attention[stages[0]]
    ]


def _draw_row(sheet: Image.Image, y: int, picture: Image.Image, heading: str, branches: list[_Branch]) -> None:
    """Draw the row of one pair, from ``y`` downwards."""
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN, y), heading, sheet.width - 2 * _MARGIN, _HEADING_FONT)
    y += _HEADING
    _write(pen, (_MARGIN, y), "image", PANEL, fill=_FAINT)
    sheet.paste(resize(picture.convert("RGB"), PANEL), (_MARGIN, y + _LINE))
    x = _MARGIN + PANEL
    for branch in branches:
        x += _BRANCH_GAP
        for i, (stage, attention) in enumerate(branch.attention.items()):
            _draw_map(sheet, (x + i * (PANEL + _GAP), y), picture, attention, f"{branch.name}: {stage}")
        width = _branch_width(len(branch.attention))
        if len(branch.attention) > 1:
            _draw_bar(pen, (x, y + _MAP_HEIGHT + 6), width, branch.contribution)
        x += width


def _branch_width(stages: int) -> int:
    """Return the width of the maps of one branch, in pixels."""
    return stages * PANEL + (stages - 1) * _GAP


def _draw_map(sheet: Image.Image, at: Position, picture: Image.Image, attention: Tensor, title: str) -> None:
    """Draw a heat map over the picture, with a title above it and the attention in numbers below it."""
    (x, y), pen = at, ImageDraw.Draw(sheet)
    sheet.paste(overlay(picture, attention), (x, y + _LINE))
    _write(pen, (x, y), title, PANEL)
    patches = attention[1:]
    note = f"patches {100 * patches.min():.2f}-{patches.max():.2%}, class token {attention[0]:.1%}"
    _write(pen, (x, y + _LINE + PANEL + 2), note, PANEL, _NOTE_FONT, _FAINT)


def _draw_bar(pen: ImageDraw.ImageDraw, at: Position, width: int, contribution: dict[str, float]) -> None:
    """Draw the contributions of the stages as parts of one bar, with a legend below."""
    (x, y), start, key_x = at, 0.0, float(at[0])
    for colour, (stage, part) in zip(_STAGE_COLOURS * len(contribution), contribution.items(), strict=False):
        end = start + part
        if part:
            pen.rectangle((x + round(start * width), y, x + round(end * width) - 1, y + _BAR - 1), fill=colour)
        text = f"{stage} {part:.0%}"
        pen.rectangle((round(key_x), y + _BAR + 7, round(key_x) + 8, y + _BAR + 15), fill=colour)
        _write(pen, (round(key_x) + 13, y + _BAR + 3), text, width)
        start, key_x = end, key_x + _font(_FONT).getlength(text) + 30


def _draw_caption(sheet: Image.Image, y: int, caption: list[str]) -> None:
    """Draw the colour scale of the maps and the lines of the caption, from ``y`` downwards."""
    pen = ImageDraw.Draw(sheet)
    _draw_colour_scale(sheet, (_MARGIN, y))
    for i, line in enumerate(caption, 1):
        _write(pen, (_MARGIN, y + i * _LINE), line, sheet.width, fill=_FAINT)


def _draw_colour_scale(sheet: Image.Image, at: Position) -> None:
    """Draw the colours of the maps, from least to most attention."""
    (x, y), pen, height = at, ImageDraw.Draw(sheet), 12
    _write(pen, (x, y), "least attention", PANEL, fill=_FAINT)
    x += round(_font(_FONT).getlength("least attention")) + 8
    heat = np.tile(np.linspace(0, 1, PANEL), (height, 1))
    sheet.paste(blend(np.full_like(heat, 127), heat), (x, y + 3))
    _write(pen, (x + PANEL + 8, y), "most", PANEL, fill=_FAINT)


def _caption(width: int, *, several_stages: bool) -> list[str]:
    """Return the text that explains the drawing, in lines of at most ``width`` pixels."""
    lines = _wrapped(
        "Maps: attention of a text to each patch, mean over heads and layers. Every map is scaled from its smallest to "
        "its largest value and interpolated between patches; the brightness of two maps cannot be compared. The class "
        "token is not drawn; the line below a map gives the attention to the patches and to the class token.",
        width,
    )
    if several_stages:
        lines += _wrapped(
            "Bars: contribution of each stage to the change of a text by the image (norm of the stage's addition, "
            "weighted by the fusion). Contributions have no sign.",
            width,
        )
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap a text in lines of at most ``width`` pixels, margins included."""
    letters = (width - 2 * _MARGIN) * len(text) / _font(_FONT).getlength(text)
    return textwrap.wrap(text, max(20, int(0.95 * letters)))


def _write(pen: ImageDraw.ImageDraw, at: Position, text: str, width: int, size: int = _FONT, fill: str = _INK) -> None:
    """Write one line of text, cut to ``width`` pixels."""
    font = _font(size)
    if font.getlength(text) > width:
        while text and font.getlength(f"{text}...") > width:
            text = text[:-1]
        text = f"{text}..."
    pen.text(at, text, fill=fill, font=font)


@functools.cache
def _font(size: int) -> Any:
    """Return Pillow's default font in a size."""
    return ImageFont.load_default(size)
