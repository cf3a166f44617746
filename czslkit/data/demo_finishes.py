"""The finishes of the demo world: one function for each state draws the surface that shows the state.

A finish is the height of the surface at every pixel, about -1 to 1, ``[64, 64]``. It is computed from the coordinates
of the pixels along (``u``) and across (``v``) the grain, in pixels of a finish of ordinary size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def _bubbly(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw thin rings of several sizes."""
    point = _nearest_point(u, v, 8.0, rng)
    return 1.6 * np.exp(-(((point.distance - 2.2 - 1.4 * point.random) / 0.75) ** 2)) - 0.5


def _cracked(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw dark lines where irregular cells meet."""
    point = _nearest_point(u, v, 9.5, rng)
    return 0.45 - 1.7 * np.exp(-(((point.second_distance - point.distance) / 1.3) ** 2))


def _dotted(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw round spots in straight rows."""
    pitch, right, down = 6.2, *rng.uniform(0, 6.2, 2)
    x, y = (u + right) % pitch - pitch / 2, (v + down) % pitch - pitch / 2
    return 1.4 * _edge(1.9 - np.hypot(x, y)) - 0.4


def _furry(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw short hairs in roughly one direction."""
    bent = v + 1.5 * np.sin(u / 7 + rng.uniform(0, 6))
    return 0.5 * _noise(u / 7.0, bent / 1.35, rng)


def _plaid(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw broad bands and thin lines that cross at right angles."""
    return 0.5 * (_tartan(u + rng.uniform(0, 11)) + _tartan(v + rng.uniform(0, 11)))


def _rusty(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw ragged blots of many sizes."""
    height = _noise(u / 5.5, v / 5.5, rng) + 0.55 * _noise(u / 2.2, v / 2.2, rng)
    return 1.3 * _edge(2.5 * height) - 0.65


def _sandy(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw grains of one pixel."""
    return 0.55 * rng.normal(0, 1, u.shape).astype(np.float32)


def _scratched(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw thin straight lines at all angles."""
    height = np.zeros_like(u)
    for _ in range(14):
        angle, offset, middle = rng.uniform(0, np.pi), rng.uniform(-28, 28), rng.uniform(-20, 20)
        across = np.cos(angle) * u + np.sin(angle) * v - offset
        along = np.cos(angle) * v - np.sin(angle) * u - middle
        height = np.maximum(height, np.exp(-((across / 0.6) ** 2)) * _edge(rng.uniform(10, 22) - abs(along)))
    return 1.7 * height - 0.3


def _striped(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw straight parallel stripes."""
    return 0.7 * _wave(u / 5.5 + rng.random())


def _wavy(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw parallel stripes that swing from side to side."""
    bent = u + 2.2 * np.sin(2 * np.pi * (v / 13 + rng.random()))
    return 0.7 * _wave(bent / 5.5 + rng.random())


def _wet(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw scattered drops, each dark with a bright glint."""
    point = _nearest_point(u, v, 9.0, rng)
    glint = np.hypot(point.right + 1.0, point.down + 1.0)
    return 0.3 - _edge(3.2 - point.distance) + 2.2 * np.exp(-(glint**2))


def _woven(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Draw bands going over and under each other like a basket."""
    x, y = (u + rng.uniform(0, 12)) / 6, (v + rng.uniform(0, 12)) / 6
    over = (np.floor(x) + np.floor(y)) % 2 == 0
    return np.where(over, abs(np.sin(np.pi * y)), abs(np.sin(np.pi * x))) * 1.6 - 1 + 0.25 * over


FINISHES: dict[str, Callable[[Floats, Floats, np.random.Generator], Floats]] = {
    "bubbly": _bubbly,
    "cracked": _cracked,
    "dotted": _dotted,
    "furry": _furry,
    "plaid": _plaid,
    "rusty": _rusty,
    "sandy": _sandy,
    "scratched": _scratched,
    "striped": _striped,
    "wavy": _wavy,
    "wet": _wet,
    "woven": _woven,
}


def _edge(inside: Floats) -> Floats:
    """Return a step from 0 to 1 that is about two units wide around 0."""
    return ((inside + 1) / 2).clip(0, 1)


def _wave(turns: Floats) -> Floats:
    """Return a rounded square wave in -1 to 1, with one period for each unit of ``turns``."""
    return np.tanh(2.5 * np.sin(2 * np.pi * turns))


def _tartan(x: Floats) -> Floats:
    """Return one direction of a plaid, -1 to 1, which repeats every 11 pixels."""
    x = x % 11
    return 1.0 - 2.0 * _edge(2.6 - abs(x - 3)) - 1.2 * np.exp(-(((x - 8.2) / 0.7) ** 2))


def _noise(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Return smooth noise with a deviation of about 1, which changes over one unit of ``x`` and ``y``."""
    lattice = rng.normal(0, 1.6, (128, 128)).astype(np.float32)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = x - left, y - top
    right, down = right * right * (3 - 2 * right), down * down * (3 - 2 * down)
    upper = lattice[top % 128, left % 128] * (1 - right) + lattice[top % 128, (left + 1) % 128] * right
    lower = lattice[(top + 1) % 128, left % 128] * (1 - right) + lattice[(top + 1) % 128, (left + 1) % 128] * right
    return upper * (1 - down) + lower * down


@dataclass(frozen=True)
class _NearestPoint:
    """The nearest of randomly scattered points, for every pixel; all values are ``[64, 64]``."""

    right: Floats
    """Distance from the point to the pixel along the grain."""
    down: Floats
    """Distance from the point to the pixel across the grain."""
    distance: Floats
    """Distance from the point to the pixel."""
    second_distance: Floats
    """Distance from the second nearest point to the pixel."""
    random: Floats
    """Random number of the point, in [0, 1)."""


def _nearest_point(u: Floats, v: Floats, spacing: float, rng: np.random.Generator) -> _NearestPoint:
    """Find the nearest point of a grid with ``spacing``, whose points are displaced at random within the grid cells."""
    points = rng.random((64, 64, 3)).astype(np.float32)
    column, row = np.floor(u / spacing).astype(int), np.floor(v / spacing).astype(int)
    around = np.array(list(itertools.product((-1, 0, 1), repeat=2)))[..., None, None]  # [9, 2, 1, 1]
    columns, rows = column + around[:, 0], row + around[:, 1]  # [9, 64, 64]
    near = points[rows % 64, columns % 64]
    right = u - spacing * (columns + 0.15 + 0.7 * near[..., 0])
    down = v - spacing * (rows + 0.15 + 0.7 * near[..., 1])
    squared = right * right + down * down
    nearest = squared.argmin(0)[None]
    right, down, random, first = (
        np.take_along_axis(values, nearest, 0)[0] for values in (right, down, near[..., 2], squared)
    )
    np.put_along_axis(squared, nearest, np.inf, 0)
    return _NearestPoint(
        right=right, down=down, distance=np.sqrt(first), second_distance=np.sqrt(squared.min(0)), random=random
    )
