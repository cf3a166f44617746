"""Random variations of training images: of one image with Pillow, and of a whole batch on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

#: Where images are augmented: ``cpu`` in the processes that read them, ``device`` in batches on the method's device.
AugmentOn = Literal["cpu", "device"]

_FLIP_CHANCE = 0.5
_PERSPECTIVE_CHANCE = 0.5
_DISTORTION = 0.5  # largest move of a corner, as a share of half a side
_DEGREES = 5.0  # largest rotation in either direction
_NO_PERSPECTIVE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
_AT_A_TIME = 16  # images of a batch that are varied at a time, which takes about 7 MB each at 224 pixels


class Variation(NamedTuple):
    """The random numbers of one variation of an image."""

    flipped: bool
    corners: list[list[int]] | None  # where the corners move, clockwise from the upper left; None if they stay
    degrees: float  # counter-clockwise rotation, after the corners have moved


class Variations(NamedTuple):
    """The variations of several images as tensors; entries of each image say where an output pixel is read."""

    flipped: Tensor  # [B] bool
    perspective: Tensor  # [B, 8] float64, a projective map from output to input coordinates
    rotation: Tensor  # [B, 6] int32, an affine map from output to input pixels in units of 1/65536


def draw_variation(width: int, height: int, generator: Generator) -> Variation:
    """Draw the variation of an image.

    Probabilities, order and random numbers are those of torchvision's ``RandomHorizontalFlip``, ``RandomPerspective``
    and ``RandomRotation(5)``, but the numbers come from ``generator``.
    """
    flipped = bool(torch.rand(1, generator=generator) < _FLIP_CHANCE)
    moves = bool(torch.rand(1, generator=generator) < _PERSPECTIVE_CHANCE)
    corners = _moved_corners(width, height, generator) if moves else None
    return Variation(flipped, corners, torch.empty(1).uniform_(-_DEGREES, _DEGREES, generator=generator).item())


def augment(image: Image.Image, variation: Variation) -> Image.Image:
    """Flip an image, change its perspective and rotate it. Keep the size and fill empty parts black."""
    if variation.flipped:
        image = tv.hflip(image)
    if variation.corners:
        corners = _corners(*image.size)
        image = tv.perspective(image, corners, variation.corners, InterpolationMode.BILINEAR, fill=0)
    return tv.rotate(image, variation.degrees, InterpolationMode.NEAREST, fill=0)


def stack_variations(variations: Sequence[Variation], size: int) -> Variations:
    """Return the variations of square images of ``size`` pixels as tensors for :func:`augment_batch`."""
    perspective = torch.tensor(_NO_PERSPECTIVE, dtype=torch.float64).repeat(len(variations), 1)
    moved = [n for n, variation in enumerate(variations) if variation.corners]
    if moved:
        targets = torch.tensor([variations[n].corners for n in moved], dtype=torch.float64)
        perspective[moved] = _projective_maps(torch.tensor(_corners(size, size), dtype=torch.float64), targets)
    return Variations(
        torch.tensor([variation.flipped for variation in variations]),
        perspective,
        torch.tensor([_rotation(variation.degrees, size) for variation in variations], dtype=torch.int32),
    )


def augment_batch(images: Tensor, variations: Variations) -> Tensor:
    """Return every image of a batch as :func:`augment` does, computed on the device of the batch.

    The pixels are those of Pillow, apart from rare ones that differ by 1 where a device rounds in another way. MPS
    computes with float32, all other devices with float64.

    Args:
        images: ``[B, 3, size, size]`` uint8, on any device.
        variations: a variation for each image, on the CPU.

    Returns:
        ``[B, 3, size, size]`` uint8. The device is not waited for if ``variations`` are in pinned memory.
    """
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    flipped, perspective, rotation = (
        values.to(images.device, non_blocking=True)
        for values in (variations.flipped, variations.perspective.to(exact), variations.rotation)
    )
    parts = (values.split(_AT_A_TIME) for values in (images, flipped, perspective, rotation))
    return torch.cat([_varied(*part) for part in zip(*parts, strict=True)])


def _varied(images: Tensor, flipped: Tensor, perspective: Tensor, rotation: Tensor) -> Tensor:
    """Return varied images. A rotation only chooses pixels, so the perspective is computed for the chosen pixels.

    Args:
        images: ``[B, 3, H, W]`` uint8.
        flipped, perspective, rotation: as in :class:`Variations`, on the same device.
    """
    (count, channels, height, width), device = images.shape, images.device
    x, y = torch.arange(width, device=device), torch.arange(height, device=device)[:, None]
    a, b, c, d, e, f = rotation[..., None, None].unbind(1)
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16  # [B, H, W]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    a, b, c, d, e, f, g, h = perspective[..., None, None].unbind(1)
    across, down = (at.to(perspective.dtype) + 0.5 for at in (column, row))
    scale = g * across + h * down + 1
    across, down = (a * across + b * down + c) / scale, (d * across + e * down + f) / scale
    inside &= (across >= 0) & (across < width) & (down >= 0) & (down < height)
    across, down = (torch.where(inside, at, 0.5) - 0.5 for at in (across, down))
    left, top = across.floor(), down.floor()
    columns = [(left + step).clamp(0, width - 1).long() for step in (0, 1)]
    columns = [torch.where(flipped[:, None, None], width - 1 - at, at) for at in columns]
    rows = [(top + step).clamp(0, height - 1).long() * width for step in (0, 1)]
    flat, across, down = images.flatten(2), (across - left)[:, None], (down - top)[:, None]

    def between(row: Tensor) -> Tensor:
        one, other = (
            flat.gather(2, (row + column).view(count, 1, -1).expand(-1, channels, -1)).view(images.shape).to(left.dtype)
            for column in columns
        )
        return one + (other - one) * across

    upper, lower = map(between, rows)
    return ((upper + (lower - upper) * down) * inside[:, None]).to(torch.uint8)


def _corners(width: int, height: int) -> list[list[int]]:
    """Return the corners of an image, clockwise from the upper left."""
    return [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]


def _moved_corners(width: int, height: int, generator: Generator) -> list[list[int]]:
    """Return random points inside of an image to move its corners to."""
    limits = [int(_DISTORTION * (side // 2)) + 1 for side in (width, height)]
    return [
        [_move_inwards(at, n, generator) for at, n in zip(corner, limits, strict=True)]
        for corner in _corners(width, height)
    ]


def _move_inwards(coordinate: int, limit: int, generator: Generator) -> int:
    """Move a coordinate, 0 or the largest one, by less than ``limit`` towards the middle of the image."""
    lowest = coordinate - limit + 1 if coordinate else 0
    return int(torch.randint(lowest, lowest + limit, (1,), generator=generator))


def _projective_maps(corners: Tensor, moved: Tensor) -> Tensor:
    """Return maps ``[n, 8]`` from moved corners ``[n, 4, 2]`` to the corners ``[4, 2]``, rounded as in torchvision.

    With a map (a, b, c, d, e, f, g, h), the point (x, y) comes from the point with coordinates
    (a x + b y + c) / (g x + h y + 1) and (d x + e y + f) / (g x + h y + 1).
    """
    ones, zeros = (
        torch.ones(*moved.shape[:2], 1, dtype=moved.dtype),
        torch.zeros(*moved.shape[:2], 3, dtype=moved.dtype),
    )
    place = torch.cat([moved, ones], 2)  # [n, 4, 3]
    equations = [
        torch.cat([*terms, -corners[:, axis, None] * moved], 2)
        for axis, terms in enumerate(((place, zeros), (zeros, place)))
    ]
    known = torch.cat([corners[:, 0], corners[:, 1]]).expand(len(moved), 8)
    return torch.linalg.solve(torch.cat(equations, 1), known).float().double()


def _rotation(degrees: float, size: int) -> list[int]:
    """Return the map from output to input pixels of a rotation around the centre, as Pillow rounds it to 1/65536.

    >>> _rotation(0.0, 224)
    [65536, 0, 32768, 0, 65536, 32768]
    """
    angle = -math.radians(degrees % 360)
    cos, sin, centre = round(math.cos(angle), 15), round(math.sin(angle), 15), size / 2
    rows = []
    for one, other in ((cos, sin), (round(-math.sin(angle), 15), cos)):
        shift = one * -centre + other * -centre + 0.0 + centre
        rows += [one, other, shift + one * 0.5 + other * 0.5]
    return [math.floor(value * 65536 + 0.5) for value in rows]
