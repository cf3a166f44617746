"""What a method's texts read in an image, drawn over it: one picture with a row for every pair."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import CzslkitError
from ..types import Explanation, PairSpace

Floats = NDArray[np.floating[Any]]

PANEL = 224  # side of the image and of every map, in pixels; so are the others
_MARGIN, _GAP, _GROUP_GAP = 16, 6, 22
_HEADING, _TEXT = 19, 14  # font sizes
_LINE = 19
_BAR = 10
_ROW = 30 + _LINE + PANEL + _LINE + 6 + _BAR + _LINE + 18
#: Nine colours whose lightness rises in even steps from black to pale yellow, those of matplotlib's ``inferno`` (CC0).
_ANCHORS = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
     (249, 201, 50), (252, 255, 164)]
)  # fmt: skip
#: Of the stages in a bar: told apart by everyone who tells light from dark.
_STAGES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")
_INK, _FAINT = "#1a1a1a", "#6a6a6a"


def colours(heat: Floats) -> Floats:
    """RGB from 0 to 255 of values from 0 to 1, ``[...]`` to ``[..., 3]``.

    >>> colours(np.array([0.0, 1.0])).tolist()
    [[0.0, 0.0, 4.0], [252.0, 255.0, 164.0]]
    """
    steps = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(heat, steps, channel) for channel in _ANCHORS.T], -1)


def heat_map(attention: Tensor, size: int = PANEL) -> Floats:
    """Attention ``[T]`` over the class token and a square of patches as ``[size, size]``, bilinear between patches.

    From 0 where the least attention is to 1 where the most is; 0 throughout if all patches get the same.

    Raises:
        CzslkitError: the patches are no square.

    >>> import torch
    >>> heat_map(torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1]), 4)[0].round(2).tolist()
    [1.0, 0.75, 0.25, 0.0]
    """
    patches = attention[1:].detach().float().cpu().numpy()
    side = math.isqrt(len(patches))
    if not side or side**2 != len(patches):
        raise CzslkitError(
            f"{len(patches)} patches cannot be drawn: expected a square of them after the class token, such as 7 x 7"
        )
    spread = patches.max() - patches.min()
    # shares of the same size differ by rounding; stretched, that would look like something
    if spread <= 1e-5 * abs(patches).max():
        return np.zeros((size, size), np.float32)
    grid = Image.fromarray(((patches - patches.min()) / spread).reshape(side, side))
    return np.asarray(grid.resize((size, size), Image.Resampling.BILINEAR))


def overlay(picture: Image.Image, attention: Tensor, size: int = PANEL) -> Image.Image:
    """A picture without its colours, ``size`` x ``size``, under the heat of ``attention`` ``[T]``.

    Raises:
        CzslkitError: the patches are no square.
    """
    return _heated(np.asarray(_resized(picture.convert("L"), size), np.float32), heat_map(attention, size))


def best(explanation: Explanation, image: int = 0, top: int | None = None) -> list[int]:
    """Rows of ``explanation.pairs``, the highest ranked first; of equals the first."""
    order: list[int] = explanation.ranked[image].argsort(descending=True, stable=True).tolist()
    return order[:top]


def draw(
    picture: Image.Image, explanation: Explanation, space: PairSpace, *, image: int = 0, top: int | None = None
) -> Image.Image:
    """A row for every pair: the picture, a map for every stage and branch, and the stages' shares.

    Args:
        picture: what the method saw, before it was normalised; a square.
        explanation: of the picture, and perhaps of others.
        space: the names of attributes and objects.
        image: which image of the explanation the picture is.
        top: highest-ranked pairs to draw; all if None.

    Raises:
        CzslkitError: the patches are no square.
    """
    rows = best(explanation, image, top)
    stages = list(explanation.attention)
    branches = list(explanation.attention[stages[0]])
    width = 2 * _MARGIN + PANEL + len(branches) * (_GROUP_GAP + _group(len(stages)))
    caption = list(_caption(width, several=len(stages) > 1))
    sheet = Image.new("RGB", (width, 2 * _MARGIN + len(rows) * _ROW + (len(caption) + 1) * _LINE), "white")
    pen = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        y = _MARGIN + i * _ROW
        attr, obj = explanation.pairs[row].tolist()
        names = {"pair": f"{space.attrs[attr]} {space.objs[obj]}", "attr": space.attrs[attr], "obj": space.objs[obj]}
        heading = f"{i + 1}.  {names['pair']}     score {explanation.ranked[image, row]:.3f}"
        _write(pen, (_MARGIN, y), heading, width - 2 * _MARGIN, _HEADING)
        _write(pen, (_MARGIN, y + 30), "image", PANEL, fill=_FAINT)
        sheet.paste(_resized(picture.convert("RGB"), PANEL), (_MARGIN, y + 30 + _LINE))
        for j, branch in enumerate(branches):
            x = _MARGIN + PANEL + _GROUP_GAP + j * (_GROUP_GAP + _group(len(stages)))
            text = {"pair": row, "attr": attr, "obj": obj}[branch]
            for k, stage in enumerate(stages):
                attention = explanation.attention[stage][branch][image, text]
                _map(sheet, (x + k * (PANEL + _GAP), y + 30), picture, attention, f"{names[branch]}: {stage}")
            if len(stages) > 1:
                shares = {stage: float(explanation.share[stage][branch][image, text]) for stage in stages}
                _bar(pen, (x, y + 30 + _LINE + PANEL + _LINE + 6), _group(len(stages)), shares)
    y = sheet.height - _MARGIN - (len(caption) + 1) * _LINE
    _ramp(sheet, (_MARGIN, y))
    for i, line in enumerate(caption, 1):
        _write(pen, (_MARGIN, y + i * _LINE), line, width, fill=_FAINT)
    return sheet


def _group(stages: int) -> int:
    """Width of the maps of one branch."""
    return stages * PANEL + (stages - 1) * _GAP


def _map(sheet: Image.Image, at: tuple[int, int], picture: Image.Image, attention: Tensor, title: str) -> None:
    """One overlay with its title above, and below it what its scale hides."""
    (x, y), pen = at, ImageDraw.Draw(sheet)
    sheet.paste(overlay(picture, attention), (x, y + _LINE))
    _write(pen, (x, y), title, PANEL)
    patches = attention[1:]
    note = f"patches {100 * patches.min():.2f}-{patches.max():.2%}, class token {attention[0]:.1%}"
    _write(pen, (x, y + _LINE + PANEL + 2), note, PANEL, 12, _FAINT)


def _bar(pen: ImageDraw.ImageDraw, at: tuple[int, int], width: int, shares: dict[str, float]) -> None:
    """The stages' shares side by side, with their numbers below."""
    (x, y), start, label = at, 0.0, float(at[0])
    for colour, (stage, share) in zip(_STAGES * len(shares), shares.items(), strict=False):
        end = start + share
        if share:
            pen.rectangle((x + round(start * width), y, x + round(end * width) - 1, y + _BAR - 1), fill=colour)
        text = f"{stage} {share:.0%}"
        pen.rectangle((round(label), y + _BAR + 7, round(label) + 8, y + _BAR + 15), fill=colour)
        _write(pen, (round(label) + 13, y + _BAR + 3), text, width)
        start, label = end, label + _font(_TEXT).getlength(text) + 30


def _ramp(sheet: Image.Image, at: tuple[int, int]) -> None:
    """The colours of the maps, from least to greatest."""
    (x, y), pen, height = at, ImageDraw.Draw(sheet), 12
    _write(pen, (x, y), "least attention", PANEL, fill=_FAINT)
    x += round(_font(_TEXT).getlength("least attention")) + 8
    heat = np.tile(np.linspace(0, 1, PANEL), (height, 1))
    sheet.paste(_heated(np.full_like(heat, 127), heat), (x, y + 3))
    _write(pen, (x + PANEL + 8, y), "most", PANEL, fill=_FAINT)


def _caption(width: int, *, several: bool) -> Iterator[str]:
    """What the picture means, in lines of ``width`` pixels."""
    yield from _wrapped(
        "Maps: how much a text attends to each patch, mean over heads and layers. Every map runs from its own least "
        "to its own greatest value, bilinear between patches; maps do not compare by brightness. The class token is "
        "not drawn; below each map stands what its patches and the class token get.",
        width,
    )
    if several:
        yield from _wrapped(
            "Bars: share of each stage in what the image did to a text (norm of what the stage added, as weighted by "
            "the fusion). Shares have no sign.",
            width,
        )


def _heated(grey: Floats, heat: Floats) -> Image.Image:
    """Grey values from 0 to 255 under heat from 0 to 1: none leaves them as they are, the most all but hides them."""
    opacity = (0.8 * heat)[..., None]
    return Image.fromarray(((1 - opacity) * grey[..., None] + opacity * colours(heat)).round().astype(np.uint8))


def _wrapped(text: str, width: int) -> list[str]:
    letters = (width - 2 * _MARGIN) * len(text) / _font(_TEXT).getlength(text)
    return textwrap.wrap(text, max(20, int(0.95 * letters)))


def _write(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, size: int = _TEXT, fill: str = _INK
) -> None:
    """One line, cut to ``width`` pixels."""
    font = _font(size)
    if font.getlength(text) > width:
        while text and font.getlength(f"{text}...") > width:
            text = text[:-1]
        text = f"{text}..."
    pen.text(at, text, fill=fill, font=font)


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _resized(picture: Image.Image, size: int) -> Image.Image:
    return picture.resize((size, size), Image.Resampling.BICUBIC)
