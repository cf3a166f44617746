"""The attention to the patches of an image as heat."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import CzslkitError

Floats = NDArray[np.floating[Any]]

PANEL = 224  # side of a map, in pixels


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
