"""Draw attention as a heat map over a grey picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import CzslkitError

Floats = NDArray[np.floating[Any]]

PANEL = 224  # side of the picture and of every map in a drawing, in pixels
_MAX_OPACITY = 0.8  # opacity of the heat map where attention is largest
#: RGB of nine colours whose lightness rises in even steps from black to pale yellow: matplotlib's ``inferno`` (CC0).
_ANCHORS = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
     (249, 201, 50), (252, 255, 164)]
)  # fmt: skip


def colours(heat: Floats) -> Floats:
    """Return the RGB colours from 0 to 255, ``[..., 3]``, of heat values from 0 to 1, ``[...]``.

    >>> colours(np.array([0.0, 1.0])).tolist()
    [[0.0, 0.0, 4.0], [252.0, 255.0, 164.0]]
    """
    steps = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(heat, steps, channel) for channel in _ANCHORS.T], -1)


def heat_map(attention: Tensor, size: int = PANEL) -> Floats:
    """Return the attention to the patches of an image as heat from 0 to 1.

    Args:
        attention: ``[T]``, attention to the class token, then to a square of patches row by row.
        size: side of the result, in pixels.

    Returns:
        ``[size, size]``, interpolated bilinearly between patches: 0 at the smallest attention, 1 at the largest, and 0
        everywhere if all patches get the same attention.

    Raises:
        CzslkitError: the patches do not form a square.

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
    # scaling to 0 and 1 would turn rounding errors of equal attention into a visible pattern
    if spread <= 1e-5 * abs(patches).max():
        return np.zeros((size, size), np.float32)
    grid = Image.fromarray(((patches - patches.min()) / spread).reshape(side, side))
    return np.asarray(grid.resize((size, size), Image.Resampling.BILINEAR))


def overlay(picture: Image.Image, attention: Tensor, size: int = PANEL) -> Image.Image:
    """Return a picture in grey, ``size`` x ``size`` pixels, with the heat map of ``attention`` ``[T]`` over it.

    Raises:
        CzslkitError: the patches do not form a square.
    """
    return blend(np.asarray(resize(picture.convert("L"), size), np.float32), heat_map(attention, size))


def blend(grey: Floats, heat: Floats) -> Image.Image:
    """Return grey values from 0 to 255 with heat from 0 to 1 over them, both ``[H, W]``.

    Heat 0 leaves the grey value unchanged; heat 1 covers it with an opacity of 0.8.
    """
    opacity = (_MAX_OPACITY * heat)[..., None]
    return Image.fromarray(((1 - opacity) * grey[..., None] + opacity * colours(heat)).round().astype(np.uint8))


def resize(picture: Image.Image, size: int) -> Image.Image:
    """Return a picture resized to ``size`` x ``size`` pixels."""
    return picture.resize((size, size), Image.Resampling.BICUBIC)
