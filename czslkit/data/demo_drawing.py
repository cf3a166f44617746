"""Draw the images of the demo world, 64 x 64 pixels, from a scene, the outline of an object and its finish.

A state is visible only in details that are a few pixels wide, an object only in its outline. The position, size,
rotation, colour and lighting of the object, the background and the clutter do not depend on state and object, so that
only the finish shows the state. Objects have strong colours, backgrounds have pale colours.
"""

from __future__ import annotations

import colorsys
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .demo_finishes import FINISHES, Floats

Points = list[tuple[float, float]]

SIZE = 64
"""Side of an image, in pixels."""
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
"""Hue of each colour of a scene, from 0 to 1 around the colour wheel."""

_DRAWN = 4 * SIZE  # pixels; outlines are drawn at this size and then reduced, for smooth edges
_ROWS, _COLS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) - (SIZE - 1) / 2


@dataclass(frozen=True)
class Scene:
    """Everything that varies between two images of one pair, except noise and the details of the finish."""

    colour: str
    """Colour of the object, a key of ``COLOURS``."""
    backdrop: str
    """Colour of the background, a key of ``COLOURS`` other than ``colour``."""
    centre: tuple[float, float]
    """Position of the object to the right and down, in pixels from the middle of the image."""
    radius: float
    """Radius of the circle around the object, in pixels."""
    turn: float
    """Rotation of the outline, in radians."""
    grain: float
    """Direction of the finish, in radians."""
    pitch: float
    """Scale of the finish; 1 is the ordinary size."""
    contrast: float
    """Contrast of the finish; 1 is the strongest."""


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a random scene, which ``paint`` can use for every pair."""
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
    """Return the image of a pair in a scene, 64 x 64 RGB.

    Args:
        state: a key of ``FINISHES``.
        obj: a key of ``OUTLINES``.
        scene: scene from ``draw_scene``.
        rng: source of the noise, the clutter and the details of the finish.

    Raises:
        ValueError: the state or the object is unknown.
    """
    check_name("state", state, FINISHES)
    check_name("object", obj, OUTLINES)
    mask = _mask(obj, scene)
    image = _backdrop(scene, rng)
    image += mask[..., None] * (_surface(state, scene, mask, rng) - image)
    image += rng.normal(0, 0.02, image.shape).astype(np.float32)
    return Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8))


def check_name(kind: str, name: str, names: Collection[str]) -> None:
    """Check that a name is one of ``names``.

    Raises:
        ValueError: the name is unknown; the message lists the known names.
    """
    if name not in names:
        raise ValueError(f"no {kind} named {name!r} in the demo world. Known: {', '.join(names)}.")


def _rgb(colour: str, saturation: float, value: float, rng: np.random.Generator) -> Floats:
    hue = (COLOURS[colour] + rng.uniform(-0.02, 0.02)) % 1
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def _surface(state: str, scene: Scene, mask: Floats, rng: np.random.Generator) -> Floats:
    """Return the colour of the object at every pixel, ``[64, 64, 3]``, with light and a finish of mean 0."""
    relief = FINISHES[state](*_along_grain(scene), rng)
    relief = relief - (relief * mask).sum() / mask.sum()
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.004)
    light = 1 + slope * (np.cos(angle) * _COLS + np.sin(angle) * _ROWS) + 0.55 * scene.contrast * relief
    return _rgb(scene.colour, rng.uniform(0.5, 0.85), rng.uniform(0.6, 0.8), rng) * light[..., None]


def _along_grain(scene: Scene) -> tuple[Floats, Floats]:
    """Return the coordinates of every pixel along and across the grain, in pixels of a finish of ordinary size."""
    cos, sin = np.cos(scene.grain) / scene.pitch, np.sin(scene.grain) / scene.pitch
    return (cos * _COLS + sin * _ROWS).astype(np.float32), (cos * _ROWS - sin * _COLS).astype(np.float32)


def _backdrop(scene: Scene, rng: np.random.Generator) -> Floats:
    """Return a pale colour gradient with a few flat ellipses and rectangles, ``[64, 64, 3]``."""
    first, second = (_rgb(scene.backdrop, rng.uniform(0.1, 0.35), rng.uniform(0.25, 0.95), rng) for _ in range(2))
    angle = rng.uniform(0, 2 * np.pi)
    along = 0.5 + (np.cos(angle) * _COLS + np.sin(angle) * _ROWS) / (1.5 * SIZE)
    image = first + along[..., None] * (second - first)
    clutter = Image.new("L", (SIZE, SIZE))
    draw = ImageDraw.Draw(clutter)
    for _ in range(rng.integers(0, 5)):
        x, y, w, h = rng.uniform((-8, -8, 4, 4), (SIZE, SIZE, 20, 20))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((x, y, x + w, y + h), fill=int(rng.integers(90, 200)))
    blots = np.asarray(clutter.filter(ImageFilter.BoxBlur(0.7)), np.float32)[..., None] / 255
    return image + blots * (_rgb(scene.backdrop, rng.uniform(0.1, 0.35), rng.uniform(0.2, 1.0), rng) - image)


def _mask(obj: str, scene: Scene) -> Floats:
    """Return the share of each pixel that the object covers, ``[64, 64]`` in [0, 1]."""
    drawn = Image.new("L", (_DRAWN, _DRAWN))
    draw = ImageDraw.Draw(drawn)
    for points, filled in OUTLINES[obj]:
        draw.polygon(_place(points, scene), fill=255 if filled else 0)
    return np.asarray(drawn.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255


def _place(points: Points, scene: Scene) -> Points:
    """Rotate, scale and move the points of an outline according to the scene; return them in pixels of the mask."""
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
"""Polygons of each object in drawing order, filled (True) or cut out. The unit is ``Scene.radius``, y points down."""
