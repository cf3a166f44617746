"""Turn an image into a normalised tensor: resize and crop it, and scale its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from ..types import Preprocessing
from .images import decoded

VERSION = 1
"""Raise it when these functions or ``images`` give other pixels for the same file, so that caches are made again."""


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


def pixel_tensor(image: Image.Image | NDArray[np.uint8]) -> Tensor:
    """Return an RGB image, or its pixels ``[H, W, 3]``, as ``[3, H, W]`` uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_normalized(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return pixels as float, bit-equal to torchvision's ``ToTensor`` and ``Normalize`` on the CPU.

    Args:
        pixels: ``[..., 3, H, W]`` uint8, on the device to compute on, which is not waited for.
        mean: mean of each channel, on a scale from 0 to 1; it is subtracted.
        std: standard deviation of each channel; the difference is divided by it.
    """
    # CUDA would multiply by 1/255 for a plain number, and wait for values that are copied from the CPU.
    white, *channels = (torch.full((), value, device=pixels.device) for value in (255.0, *mean, *std))
    channel_mean, channel_std = torch.stack(channels).view(2, 3, 1, 1)
    values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    return values.div_(white).sub_(channel_mean).div_(channel_std)


def to_normalized_tensor(image: Image.Image | NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return an RGB image, or its pixels ``[H, W, 3]``, as ``[3, H, W]`` float; see :func:`to_normalized`."""
    return to_normalized(pixel_tensor(image), mean, std)
