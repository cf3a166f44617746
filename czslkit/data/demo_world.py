"""The demo world: small rendered pictures of shapes (objects) with surface finishes (states).

A state is visible only in detail a few pixels wide, an object only in its outline. Where the object lies, its size,
turn, colour, lighting, background and clutter are drawn independently of state and object, so nothing but the finish
tells the state. Objects have strong colours, backgrounds pale ones. Every picture has a random generator of its own,
derived from what it is a picture of: the world needs no files, and a picture does not depend on which others were
rendered before it.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.floating[Any]]
Points = list[tuple[float, float]]
Pair = tuple[str, str]

SIZE = 64
ATTRS: tuple[str, ...] = (
    "bubbly",
    "cracked",
    "dotted",
    "furry",
    "plaid",
    "rusty",
    "sandy",
    "scratched",
    "striped",
    "wavy",
    "wet",
    "woven",
)
OBJS: tuple[str, ...] = ("arrow", "bottle", "cross", "crown", "fish", "heart", "house", "moon", "ring", "star")
COLOURS: dict[str, float] = {
    "red": 0.0,
    "orange": 0.075,
    "yellow": 0.15,
    "green": 0.34,
    "teal": 0.5,
    "blue": 0.61,
    "purple": 0.76,
    "pink": 0.9,
}
"""Hue of each colour a scene can have, in turns of the colour wheel."""

SPLITS: tuple[str, ...] = ("train", "val", "test")
PER_PAIR: dict[str, int] = {"train": 40, "val": 15, "test": 20}
"""Pictures of each pair of a split."""

_TRAIN_PAIRS = 66
_SEEN = {"val": 18, "test": 20}
_UNSEEN = {"val": 18, "test": 20}
_MIN_PARTNERS = 4
_DRAWN = 4 * SIZE  # outlines are drawn this wide and then reduced, for smooth edges
_ROWS, _COLS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) - (SIZE - 1) / 2


@dataclass(frozen=True)
class Scene:
    """All that varies between two pictures of one pair, except noise and the details of the finish."""

    colour: str
    """Key of ``COLOURS``."""
    backdrop: str
    """Key of ``COLOURS``, never ``colour``."""
    centre: tuple[float, float]
    """Right and down, in pixels from the middle of the picture."""
    radius: float
    """Of the circle round the object, in pixels."""
    turn: float
    """Of the outline, in radians."""
    grain: float
    """Direction of the finish, in radians."""
    pitch: float
    """Scale of the finish; 1 is its ordinary size."""
    contrast: float
    """Of the finish; 1 is the strongest."""


def split_pairs(seed: int = 0) -> dict[str, tuple[Pair, ...]]:
    """The pairs in each split, sorted; 16 of the 120 products are in none.

    The products are shuffled until the first 66, the training pairs, give every state and every object at least four
    partners. Of the rest, the first 18 are unseen pairs of validation and the next 20 of test. The seen pairs of
    validation and test are 18 and 20 others of the shuffled training pairs.

    >>> {split: len(pairs) for split, pairs in split_pairs().items()}
    {'train': 66, 'val': 36, 'test': 40}
    """
    products = list(itertools.product(ATTRS, OBJS))
    rng = np.random.default_rng([seed, len(products)])
    order = [products[i] for i in rng.permutation(len(products))]
    while _fewest_partners(order[:_TRAIN_PAIRS]) < _MIN_PARTNERS:
        order = [products[i] for i in rng.permutation(len(products))]
    train, unseen = order[:_TRAIN_PAIRS], order[_TRAIN_PAIRS:]
    val = train[: _SEEN["val"]] + unseen[: _UNSEEN["val"]]
    test = train[_SEEN["val"] :][: _SEEN["test"]] + unseen[_UNSEEN["val"] :][: _UNSEEN["test"]]
    return {"train": tuple(sorted(train)), "val": tuple(sorted(val)), "test": tuple(sorted(test))}


def instances(seed: int = 0) -> Iterator[tuple[str, str, str, int]]:
    """Every picture of the dataset as ``(split, attr, obj, index)``: what ``render_instance`` takes."""
    for split, pairs in split_pairs(seed).items():
        for attr, obj in pairs:
            for index in range(PER_PAIR[split]):
                yield split, attr, obj, index


def render_instance(split: str, attr: str, obj: str, index: int, seed: int = 0) -> Image.Image:
    """The picture of one of ``instances(seed)``, the same whenever it is asked for.

    Raises:
        ValueError: no such split, state or object.
    """
    _known("split", split, SPLITS)
    _known("state", attr, ATTRS)
    _known("object", obj, OBJS)
    rng = np.random.default_rng([seed, SPLITS.index(split), ATTRS.index(attr), OBJS.index(obj), index])
    return render(attr, obj, rng)


def render(state: str, obj: str, rng: np.random.Generator) -> Image.Image:
    """A new picture of a pair, 64 x 64 RGB.

    Raises:
        ValueError: no such state or object.
    """
    return paint(state, obj, draw_scene(rng), rng)


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene for whatever pair; ``paint`` makes the picture."""
    colour, backdrop = rng.choice(list(COLOURS), size=2, replace=False)
    radius = rng.uniform(25, 31)
    slack = 34 - radius
    return Scene(
        colour=str(colour),
        backdrop=str(backdrop),
        centre=(rng.uniform(-slack, slack), rng.uniform(-slack, slack)),
        radius=radius,
        turn=rng.uniform(-0.3, 0.3),
        grain=rng.uniform(-0.4, 0.4),
        pitch=rng.uniform(0.9, 1.15),
        contrast=rng.uniform(0.65, 1.0),
    )


def paint(state: str, obj: str, scene: Scene, rng: np.random.Generator) -> Image.Image:
    """The picture of a pair in a scene, 64 x 64 RGB; ``rng`` makes noise, clutter and the details of the finish.

    Raises:
        ValueError: no such state or object.
    """
    _known("state", state, ATTRS)
    _known("object", obj, OBJS)
    mask = _mask(obj, scene)
    picture = _backdrop(scene, rng)
    picture += mask[..., None] * (_surface(state, scene, mask, rng) - picture)
    picture += rng.normal(0, 0.02, picture.shape).astype(np.float32)
    return Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8))


def _known(kind: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise ValueError(f"no {kind} named {name!r} in the demo world. Known: {', '.join(names)}.")


def _fewest_partners(pairs: list[Pair]) -> int:
    words = [word for pair in pairs for word in pair]
    return min(words.count(word) for word in ATTRS + OBJS)


# The scene ------------------------------------------------------------------------------------------------------------


def _rgb(colour: str, saturation: float, value: float, rng: np.random.Generator) -> Floats:
    hue = (COLOURS[colour] + rng.uniform(-0.02, 0.02)) % 1
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def _surface(state: str, scene: Scene, mask: Floats, rng: np.random.Generator) -> Floats:
    """Colour of the object everywhere, ``[64, 64, 3]``: its finish evened out over the outline, then lit."""
    relief = FINISHES[state](*_along_grain(scene), rng)
    relief = relief - (relief * mask).sum() / mask.sum()
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.004)
    light = 1 + slope * (np.cos(angle) * _COLS + np.sin(angle) * _ROWS) + 0.55 * scene.contrast * relief
    return _rgb(scene.colour, rng.uniform(0.5, 0.85), rng.uniform(0.6, 0.8), rng) * light[..., None]


def _along_grain(scene: Scene) -> tuple[Floats, Floats]:
    """Coordinates of every pixel along and across the grain, in pixels of an ordinary finish."""
    cos, sin = np.cos(scene.grain) / scene.pitch, np.sin(scene.grain) / scene.pitch
    return (cos * _COLS + sin * _ROWS).astype(np.float32), (cos * _ROWS - sin * _COLS).astype(np.float32)


def _backdrop(scene: Scene, rng: np.random.Generator) -> Floats:
    """A pale colour gradient with a few flat blots and bars, ``[64, 64, 3]``."""
    first, second = (_rgb(scene.backdrop, rng.uniform(0.1, 0.35), rng.uniform(0.25, 0.95), rng) for _ in range(2))
    angle = rng.uniform(0, 2 * np.pi)
    along = 0.5 + (np.cos(angle) * _COLS + np.sin(angle) * _ROWS) / (1.5 * SIZE)
    picture = first + along[..., None] * (second - first)
    clutter = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(clutter)
    for _ in range(rng.integers(0, 5)):
        x, y, w, h = rng.uniform((-8, -8, 4, 4), (SIZE, SIZE, 20, 20))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((x, y, x + w, y + h), fill=int(rng.integers(90, 200)))
    blots = np.asarray(clutter.filter(ImageFilter.BoxBlur(0.7)), np.float32)[..., None] / 255
    return picture + blots * (_rgb(scene.backdrop, rng.uniform(0.1, 0.35), rng.uniform(0.2, 1.0), rng) - picture)


# Objects --------------------------------------------------------------------------------------------------------------


def _mask(obj: str, scene: Scene) -> Floats:
    """How much of each pixel the object covers, ``[64, 64]`` in [0, 1]."""
    drawn = Image.new("L", (_DRAWN, _DRAWN))
    draw = ImageDraw.Draw(drawn)
    for points, filled in OUTLINES[obj]:
        draw.polygon(_placed(points, scene), fill=255 if filled else 0)
    return np.asarray(drawn.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255


def _placed(points: Points, scene: Scene) -> Points:
    cos, sin, scale = np.cos(scene.turn), np.sin(scene.turn), _DRAWN / SIZE
    (right, down), half = scene.centre, SIZE / 2
    return [
        (
            float(scale * (half + right + scene.radius * (cos * x - sin * y))),
            float(scale * (half + down + scene.radius * (sin * x + cos * y))),
        )
        for x, y in points
    ]


def _ellipse(x: float, y: float, wide: float, high: float) -> Points:
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return [(float(x + wide * np.cos(t)), float(y + high * np.sin(t))) for t in turns]


def _star() -> Points:
    turns = np.pi * (np.arange(10) / 5 - 0.5)
    return [(float(r * np.cos(t)), float(r * np.sin(t))) for t, r in zip(turns, [1.0, 0.48] * 5, strict=True)]


def _heart() -> Points:
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    down = 13 * np.cos(turns) - 5 * np.cos(2 * turns) - 2 * np.cos(3 * turns) - np.cos(4 * turns)
    return [(float(x), float(y)) for x, y in zip(15.5 * np.sin(turns) ** 3 / 17, -down / 17 - 0.12, strict=True)]


def _moon() -> Points:
    outer, inner = np.linspace(0.75, 2 * np.pi - 0.75, 40), np.linspace(2 * np.pi - 1.15, 1.15, 40)
    tips = [(float(np.cos(t) + 0.1), float(np.sin(t))) for t in outer]
    return tips + [(float(0.5 + 0.78 * np.cos(t) * 0.95), float(0.75 * np.sin(t))) for t in inner]


OUTLINES: dict[str, list[tuple[Points, bool]]] = {
    "arrow": [
        ([(0, -1), (0.85, 0), (0.38, 0), (0.38, 0.95), (-0.38, 0.95), (-0.38, 0), (-0.85, 0)], True),
    ],
    "bottle": [
        ([(-0.2, -1), (0.2, -1), (0.2, -0.5), (-0.2, -0.5)], True),
        ([(-0.2, -0.5), (0.2, -0.5), (0.52, -0.15), (0.52, 1), (-0.52, 1), (-0.52, -0.15)], True),
    ],
    "cross": [
        ([(-0.33, -0.95), (0.33, -0.95), (0.33, 0.95), (-0.33, 0.95)], True),
        ([(-0.95, -0.33), (0.95, -0.33), (0.95, 0.33), (-0.95, 0.33)], True),
    ],
    "crown": [
        ([(-0.9, -0.7), (-0.45, -0.1), (0, -0.85), (0.45, -0.1), (0.9, -0.7), (0.78, 0.7), (-0.78, 0.7)], True),
    ],
    "fish": [
        (_ellipse(-0.22, 0, 0.76, 0.52), True),
        ([(0.3, 0), (0.98, -0.58), (0.98, 0.58)], True),
    ],
    "heart": [(_heart(), True)],
    "house": [
        ([(0, -0.95), (0.95, -0.15), (-0.95, -0.15)], True),
        ([(-0.7, -0.2), (0.7, -0.2), (0.7, 0.85), (-0.7, 0.85)], True),
        ([(-0.18, 0.3), (0.18, 0.3), (0.18, 0.86), (-0.18, 0.86)], False),
    ],
    "moon": [(_moon(), True)],
    "ring": [(_ellipse(0, 0, 0.92, 0.92), True), (_ellipse(0, 0, 0.42, 0.42), False)],
    "star": [(_star(), True)],
}
"""Polygons of each object, drawn one over the other, filled or cut out; the unit is ``Scene.radius``, y points down."""


# Finishes: height of the surface at every pixel, about -1 to 1, from coordinates along and across the grain ----------


def _bubbly(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Thin rings of several sizes."""
    drop = _nearest(u, v, 8.0, rng)
    return 1.6 * np.exp(-(((drop.distance - 2.2 - 1.4 * drop.lot) / 0.75) ** 2)) - 0.5


def _cracked(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Dark lines where irregular cells meet."""
    drop = _nearest(u, v, 9.5, rng)
    return 0.45 - 1.7 * np.exp(-(((drop.further - drop.distance) / 1.3) ** 2))


def _dotted(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Round spots in straight rows."""
    pitch, right, down = 6.2, *rng.uniform(0, 6.2, 2)
    x, y = (u + right) % pitch - pitch / 2, (v + down) % pitch - pitch / 2
    return 1.4 * _edge(1.9 - np.hypot(x, y)) - 0.4


def _furry(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Short hairs that lie roughly one way."""
    bent = v + 1.5 * np.sin(u / 7 + rng.uniform(0, 6))
    return 0.5 * _noise(u / 7.0, bent / 1.35, rng)


def _plaid(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Broad bands with a thin line between, crossing at right angles."""
    return 0.5 * (_tartan(u + rng.uniform(0, 11)) + _tartan(v + rng.uniform(0, 11)))


def _rusty(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Ragged blots of many sizes."""
    height = _noise(u / 5.5, v / 5.5, rng) + 0.55 * _noise(u / 2.2, v / 2.2, rng)
    return 1.3 * _edge(2.5 * height) - 0.65


def _sandy(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Grains of one pixel."""
    return 0.55 * rng.normal(0, 1, u.shape).astype(np.float32)


def _scratched(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Thin straight lines at all angles."""
    height = np.zeros_like(u)
    for _ in range(14):
        angle, offset, middle = rng.uniform(0, np.pi), rng.uniform(-28, 28), rng.uniform(-20, 20)
        across = np.cos(angle) * u + np.sin(angle) * v - offset
        along = np.cos(angle) * v - np.sin(angle) * u - middle
        height = np.maximum(height, np.exp(-((across / 0.6) ** 2)) * _edge(rng.uniform(10, 22) - abs(along)))
    return 1.7 * height - 0.3


def _striped(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Straight parallel stripes."""
    return 0.7 * _wave(u / 5.5 + rng.random())


def _wavy(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Parallel stripes that swing from side to side."""
    bent = u + 2.2 * np.sin(2 * np.pi * (v / 13 + rng.random()))
    return 0.7 * _wave(bent / 5.5 + rng.random())


def _wet(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Scattered drops, each dark with a bright glint."""
    drop = _nearest(u, v, 9.0, rng)
    glint = np.hypot(drop.right + 1.0, drop.down + 1.0)
    return 0.3 - _edge(3.2 - drop.distance) + 2.2 * np.exp(-(glint**2))


def _woven(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Bands going over and under each other like a basket."""
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
    """A step from 0 to 1 about two units wide."""
    return ((inside + 1) / 2).clip(0, 1)


def _wave(turns: Floats) -> Floats:
    """A rounded square wave in -1 to 1."""
    return np.tanh(2.5 * np.sin(2 * np.pi * turns))


def _tartan(x: Floats) -> Floats:
    """One direction of a plaid, -1 to 1, repeating every 11 pixels."""
    x = x % 11
    return 1.0 - 2.0 * _edge(2.6 - abs(x - 3)) - 1.2 * np.exp(-(((x - 8.2) / 0.7) ** 2))


def _noise(x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Smooth noise of about unit deviation that changes over one unit of ``x`` and ``y``."""
    lattice = rng.normal(0, 1.6, (128, 128)).astype(np.float32)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = x - left, y - top
    right, down = right * right * (3 - 2 * right), down * down * (3 - 2 * down)
    upper = lattice[top % 128, left % 128] * (1 - right) + lattice[top % 128, (left + 1) % 128] * right
    lower = lattice[(top + 1) % 128, left % 128] * (1 - right) + lattice[(top + 1) % 128, (left + 1) % 128] * right
    return upper * (1 - down) + lower * down


@dataclass(frozen=True)
class _Drop:
    """Of randomly scattered points, the one nearest to each pixel; all ``[64, 64]``."""

    right: Floats
    """From the point to the pixel, along the grain."""
    down: Floats
    """From the point to the pixel, across the grain."""
    distance: Floats
    further: Floats
    """Distance of the second nearest point."""
    lot: Floats
    """A number of the point's own, in [0, 1)."""


def _nearest(u: Floats, v: Floats, spacing: float, rng: np.random.Generator) -> _Drop:
    """The nearest of a grid of points ``spacing`` apart, each displaced at random within its square."""
    points = rng.random((64, 64, 3)).astype(np.float32)
    column, row = np.floor(u / spacing).astype(int), np.floor(v / spacing).astype(int)
    around = np.array(list(itertools.product((-1, 0, 1), repeat=2)))[..., None, None]  # [9, 2, 1, 1]
    columns, rows = column + around[:, 0], row + around[:, 1]  # [9, 64, 64]
    near = points[rows % 64, columns % 64]
    right = u - spacing * (columns + 0.15 + 0.7 * near[..., 0])
    down = v - spacing * (rows + 0.15 + 0.7 * near[..., 1])
    squared = right * right + down * down
    nearest = squared.argmin(0)[None]
    right, down, lot, first = (np.take_along_axis(each, nearest, 0)[0] for each in (right, down, near[..., 2], squared))
    np.put_along_axis(squared, nearest, np.inf, 0)
    return _Drop(right=right, down=down, distance=np.sqrt(first), further=np.sqrt(squared.min(0)), lot=lot)
