"""The look of figures: sizes for a two-column paper, colours, texts and files. matplotlib is imported when drawing."""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..files import unfinished
from .escaping import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9  # width of a column and of the text of a two-column paper, in inches
FONT, SMALL_FONT = 7, 6  # sizes of text, in points
INK, GRID = "#1a1a1b", "#8a8a8b"  # colours of text and frames, and of the lines of a grid
FILE_TYPES = ("pdf", "svg", "png")
#: Colours that readers who confuse hues can tell apart (Okabe and Ito, without yellow); the dashes differ, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a6a6a")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS, HATCHES = "os^Dvph", ("", "////", "....", "xxxx")
_LONGEST_NAME, _LINE = 40, 18  # characters of a name, and of a line of notes for each inch of a figure
_SVG_SALT = "czslkit"  # makes the names of parts of an SVG the same each time


class Look:
    """The colour, dashes, marker and hatch of a row; each of many rows has its own combination."""

    def __init__(self, place: int) -> None:
        turn = place // len(COLOURS)
        self.colour = COLOURS[place % len(COLOURS)]
        self.dashes = DASHES[(place + turn) % len(DASHES)]
        self.marker = MARKERS[(place + turn) % len(MARKERS)]
        self.hatch = HATCHES[turn % len(HATCHES)]


def new_axes(ax: Axes | None, wide: bool, height: float | None = None) -> Axes:
    """Return the axes to draw on: those that are given, or those of a new figure.

    Args:
        ax: axes of the caller, whose style is kept.
        wide: make the figure as wide as the text of the paper instead of one column.
        height: of the figure in inches; 0.8 of the width of a column if None.
    """
    if ax is not None:
        return ax
    figure = new_figure(wide, height or 0.8 * COLUMN)
    axes: Axes = figure.subplots()
    style(axes)
    return axes


def new_figure(wide: bool, height: float) -> Figure:
    """Return an empty figure of the width of a column, or of the text of the paper; ``height`` is in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(PAGE if wide else COLUMN, height), layout="constrained")


def style(axes: Axes) -> None:
    """Give axes the fonts and thin lines of a small figure."""
    axes.tick_params(labelsize=FONT, width=0.5, length=2, colors=INK, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set(linewidth=0.5, edgecolor=INK, visible=side in ("left", "bottom"))
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set(fontsize=FONT, color=INK)
    axes.grid(True, linewidth=0.4, color=GRID, alpha=0.35)
    axes.set_axisbelow(True)


def finish(axes: Axes, *, own: bool, title: str, notes: Sequence[str], legend: bool = True) -> Axes:
    """Add the title, the notes on what is missing and, in an own figure, the legend; return the axes.

    Args:
        axes: what is drawn.
        own: the figure is ours, and gets a legend below the axes.
        title: printed above the axes.
        notes: sentences; they stand below the label of the x-axis.
        legend: whether the figure needs a legend.
    """
    axes.set_title(shown(title, longest=100))
    if notes:
        inches = axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]
        lines = [line for note in notes for line in textwrap.wrap(shown(note, longest=200), int(_LINE * inches))]
        axes.set_xlabel("\n".join([axes.get_xlabel(), *lines]).strip())
    if own and legend:
        add_legend(axes.figure, [axes])  # type: ignore[arg-type]
    return axes


def add_legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """Add one legend for all panels of a figure below them; a row that several panels have is named once."""
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    longest = max(map(len, handles)) * 0.6 * SMALL_FONT / 72 + 0.45  # inches of an entry, about
    columns = max(1, min(len(handles), int(figure.get_figwidth() / longest)))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        fontsize=SMALL_FONT,
        frameon=False,
        labelcolor=INK,
        handlelength=2.4,
        columnspacing=1.0,
        borderaxespad=0.2,
    )


def shown(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return a name as matplotlib shows it letter by letter: on one line, cut if it is long, and never as a formula.

    >>> shown("price in $"), shown("_private"), shown("a" * 9, longest=5)
    ('price in \\\\$', ' _private', 'aaaa…')
    """
    text = printable(text)
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # matplotlib leaves out labels that start with _


def save(axes: Axes, file: str | Path) -> Path:
    """Write the figure of some axes to a file, which is either the old file or the whole new one.

    The same figure gives the same bytes. Text stays text: fonts are embedded in PDF as TrueType, and SVG has letters.

    Args:
        axes: axes of the figure, as the functions of :mod:`czslkit.plot` return them.
        file: a name that ends in ``.pdf``, ``.svg`` or ``.png``; PNG has 300 dots per inch.

    Returns:
        The path of the file.

    Raises:
        ConfigError: the name has another ending.
    """
    path = Path(file)
    kind = checked_file_type(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(path) as made:
        made.write_bytes(_rendered(axes, kind))
    return path


def checked_file_type(path: Path) -> str:
    """Return the type of the file of a figure, from its ending.

    Raises:
        ConfigError: figures cannot be written as files of this type.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FILE_TYPES:
        raise ConfigError(
            [f"a figure cannot be written to {path.name!r}: expected a name that ends in .pdf, .svg or .png"]
        )
    return kind


def figure_svg(axes: Axes) -> str:
    """Return the figure of some axes as an ``<svg>`` element for an HTML page.

    Text stays text, in the font of the page. Text and frames have the colour of the page's text, and there is no
    background, so that the figure suits a light and a dark page. The element has no date, refers to nothing outside of
    it, and its ``id`` attributes are its own on a page with several figures.
    """
    text = _rendered(axes, "svg", transparent=True).decode()
    svg = text[text.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg))
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r' id="([\w.-]+)"', lambda match: f' id="f{mark}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#([\w-]+)', rf"\1#f{mark}-\2", svg)
    return svg.replace(INK, "currentColor")


def _rendered(axes: Axes, kind: str, *, transparent: bool = False) -> bytes:
    """Return the content of the file of a figure."""
    from matplotlib import rc_context

    out = io.BytesIO()
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": _SVG_SALT, "pdf.fonttype": 42}), _any_letters():
        axes.figure.savefig(out, format=kind, dpi=300, metadata=undated, transparent=transparent)
    return out.getvalue()


@contextmanager
def _any_letters() -> Iterator[None]:
    """Draw letters that the font does not have as boxes, without a warning for each of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        yield
