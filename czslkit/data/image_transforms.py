"""Turn an image into a normalised tensor: resize and crop it, and augment it for training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from ..types import Preprocessing
from .images import decoded

VERSION = 1
"""Raise it when these functions or ``images`` give other pixels for the same file, so that caches are made again."""

_FLIP_CHANCE = 0.5
_PERSPECTIVE_CHANCE = 0.5
_DISTORTION = 0.5  # largest move of a corner, as a share of half a side
_DEGREES = 5.0  # largest rotation in either direction


def read_square(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return the pixels of an image file, resized and cropped, ``[size, size, 3]``.

    Raises:
        DataError: the image cannot be read.
    """
    with decoded(path) as image:
        return np.asarray(resize_and_crop(image, preprocessing))


def resize_and_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return an image as a square of ``preprocessing.size`` pixels: resized, padded where too short, cropped."""
    size, side = preprocessing.size, math.floor(preprocessing.size / preprocessing.crop)
    resized = [side]  # the shorter side; the other one follows
    if preprocessing.mode == "squash":
        resized = [side, side]
    elif preprocessing.mode == "longest":
        ratio = max(image.size) / side
        resized = [max(1, round(length / ratio)) for length in (image.height, image.width)]
    image = tv.resize(image, resized, InterpolationMode(preprocessing.interpolation))
    across, down = (max(size - length, 0) for length in image.size)
    if across or down:
        borders = [across // 2, down // 2, (across + 1) // 2, (down + 1) // 2]
        image = tv.pad(image, borders, fill=preprocessing.fill)
    return tv.center_crop(image, [size, size])


def augment(image: Image.Image, generator: Generator) -> Image.Image:
    """Flip an image, change its perspective and rotate it, each at random. Keep the size and fill empty parts black.

    Probabilities and order are the same as in torchvision's ``RandomHorizontalFlip``, ``RandomPerspective`` and
    ``RandomRotation(5)``, but the random numbers come from ``generator``.
    """
    if torch.rand(1, generator=generator) < _FLIP_CHANCE:
        image = tv.hflip(image)
    if torch.rand(1, generator=generator) < _PERSPECTIVE_CHANCE:
        image = tv.perspective(image, *_perspective_corners(*image.size, generator), InterpolationMode.BILINEAR, fill=0)
    angle = torch.empty(1).uniform_(-_DEGREES, _DEGREES, generator=generator).item()
    return tv.rotate(image, angle, InterpolationMode.NEAREST, fill=0)


def to_normalized_tensor(
    image: Image.Image | NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], out: Tensor | None = None
) -> Tensor:
    """Return an RGB image as ``[3, H, W]`` float, bit-equal to torchvision's ``ToTensor`` and ``Normalize``.

    Args:
        image: an RGB image, or its pixels ``[H, W, 3]``.
        mean: mean of each channel, on a scale from 0 to 1; it is subtracted.
        std: standard deviation of each channel; the difference is divided by it.
        out: ``[3, H, W]`` float to write to and return; by default a new tensor.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    channel_mean, channel_std = (torch.tensor(tuple(values))[:, None, None] for values in (mean, std))
    out = torch.empty(pixels.shape) if out is None else out
    return out.copy_(pixels).div_(255).sub_(channel_mean).div_(channel_std)


def _perspective_corners(width: int, height: int, generator: Generator) -> tuple[list[list[int]], list[list[int]]]:
    """Return the corners of an image, clockwise from the upper left, and the random points inside to move them to."""
    limits = [int(_DISTORTION * (side // 2)) + 1 for side in (width, height)]
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    moved = [[_move_inwards(at, n, generator) for at, n in zip(corner, limits, strict=True)] for corner in corners]
    return corners, moved


def _move_inwards(coordinate: int, limit: int, generator: Generator) -> int:
    """Move a coordinate, 0 or the largest one, by less than ``limit`` towards the middle of the image."""
    lowest = coordinate - limit + 1 if coordinate else 0
    return int(torch.randint(lowest, lowest + limit, (1,), generator=generator))
