"""The look of figures: sizes for a two-column paper, colours, texts and files. matplotlib is imported when drawing."""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..files import write_bytes
from .escaping import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9  # width of a column and of the text of a two-column paper, in inches
FONT, SMALL_FONT = 7, 6  # sizes of text, in points
INK, GRID = "#1a1a1b", "#8a8a8b"  # colours of text and frames, and of the lines of a grid
FILE_TYPES = ("pdf", "svg", "png")
#: Colours that readers who confuse hues can tell apart (Okabe and Ito, without yellow); the dashes differ, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6a6a6a", "#56b4e9", "#e69f00")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS, HATCHES = "os^Dvph", ("", "////", "....", "xxxx")
_LINE, _PANEL_HEIGHT = 0.12, 2.2  # heights of a line of text and of a panel, in inches
_LONGEST_NAME, _LETTERS_PER_INCH = 40, 18  # characters of a name, and about those of a line
_SVG_SALT = "czslkit"  # makes the names of parts of an SVG the same each time


class Look:
    """The colour, dashes, marker and hatch of a row; the looks of the first 28 rows differ."""

    def __init__(self, place: int) -> None:
        turn, number = divmod(place, len(COLOURS))
        self.colour = COLOURS[number]
        self.dashes = DASHES[(number + turn) % len(DASHES)]
        self.marker = MARKERS[(number + turn) % len(MARKERS)]
        self.hatch = HATCHES[turn % len(HATCHES)]


def new_axes(ax: Axes | None, wide: bool, height: float = _PANEL_HEIGHT) -> Axes:
    """Return the axes to draw on: those that are given, or those of a new figure.

    Args:
        ax: axes of the caller, whose style is kept.
        wide: make the figure as wide as the text of the paper instead of one column.
        height: of the figure in inches, without its legend.
    """
    return ax if ax is not None else panels(1, wide=wide, height=height)[0]


def panels(count: int, *, wide: bool = False, height: float = _PANEL_HEIGHT) -> list[Axes]:
    """Return the axes of a new figure with several panels, to be given to the functions of :mod:`czslkit.plot`.

    Args:
        count: number of panels; a column of the paper has one below the other, the width of its text up to three side
            by side.
        wide: make the figure 6.9 inches wide, the width of the text of a two-column paper, instead of 3.3, a column.
        height: of each panel in inches.
    """
    from matplotlib.figure import Figure

    columns = min(count, 3) if wide else 1
    lines = -(-count // columns)
    figure = Figure(figsize=(PAGE if wide else COLUMN, lines * height), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    for one in axes[:count]:
        _style(one)
    return axes[:count]


def _style(axes: Axes) -> None:
    """Give axes the fonts and thin lines of a small figure."""
    axes.tick_params(labelsize=FONT, width=0.5, length=2, colors=INK, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set(linewidth=0.5, edgecolor=INK, visible=side in ("left", "bottom"))
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set(fontsize=FONT, color=INK)
    axes.grid(True, linewidth=0.4, color=GRID, alpha=0.35)
    axes.set_axisbelow(True)


def finish(axes: Axes, *, own: bool, title: str, notes: Sequence[str]) -> Axes:
    """Add the title, the notes on what is missing and, in an own figure, the legend; return the axes.

    Args:
        axes: what is drawn.
        own: the figure is ours; it gets a legend below the axes and grows by the height of legend and notes.
        title: printed above the axes.
        notes: sentences; they stand below the label of the x-axis.
    """
    axes.title.set_text(shown(title, longest=100))  # set_title would change its font
    figure = axes.figure.figure
    letters = int(_LETTERS_PER_INCH * axes.get_position().width * figure.get_figwidth())
    lines = [line for note in notes for line in textwrap.wrap(shown(note, longest=200), letters)]
    axes.set_xlabel("\n".join([axes.get_xlabel(), *lines]).strip())
    if own:
        add_legend([axes])
    return axes


def add_legend(axes: Sequence[Axes]) -> None:
    """Add one legend for all panels of a figure below them; the figure grows by the legend and by the notes of panels.

    A row that several panels have is named once; without any row there is no legend.
    """
    figure = axes[0].figure.figure
    notes: dict[int, int] = {}  # lines of notes in each line of panels
    handles: dict[str, Any] = {}
    for panel in axes:
        place = panel.get_subplotspec()
        at = place.rowspan.start if place else 0
        notes[at] = max(notes.get(at, 0), panel.get_xlabel().count("\n"))
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.set_figheight(figure.get_figheight() + _LINE * sum(notes.values()))
    if not handles:
        return
    inches = (
        max(map(len, handles)) * SMALL_FONT / FONT / _LETTERS_PER_INCH + 0.52
    )  # of an entry with its line and the gap to the next
    columns = max(1, min(len(handles), int(figure.get_figwidth() / inches)))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        fontsize=SMALL_FONT,
        frameon=False,
        labelcolor=INK,
        handlelength=3.2,  # shows the dashes beside the marker
        columnspacing=1.0,
        borderaxespad=0.2,
    )
    lines = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + _LINE * lines)


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
    write_bytes(path, rendered(axes.figure.figure, kind))
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
    background, so that the figure suits a light and a dark page. The element has no date and no style sheet, refers to
    nothing outside of it, and its ``id`` attributes are its own on a page with several figures.
    """
    from xml.etree import ElementTree

    content = rendered(axes.figure.figure, "svg", transparent=True)
    mark = hashlib.sha256(content).hexdigest()[:8]
    svg = ElementTree.fromstring(content)
    for element in svg.iter():
        for child in [child for child in element if child.tag.endswith(("}metadata", "}style"))]:
            element.remove(child)
        element.tag = element.tag.rpartition("}")[2]
        found = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in found.items():
            value = re.sub(r" font-family: [^;]*;", "", value) if name == "style" else value
            value = re.sub(r"^#" if name == "href" else r"(?<=url\()#", f"#f{mark}-", value)
            element.set(name, f"f{mark}-{value}" if name == "id" else value.replace(INK, "currentColor"))
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    svg.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    return ElementTree.tostring(svg, encoding="unicode")


def rendered(figure: Figure, kind: str, *, dpi: int = 300, transparent: bool = False) -> bytes:
    """Return the content of the file of a figure, the same each time.

    Args:
        figure: what is drawn.
        kind: ``pdf``, ``svg`` or ``png``.
        dpi: dots per inch of PNG.
        transparent: leave out the white background.
    """
    out = io.BytesIO()
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    with own_settings(), _any_letters():
        figure.savefig(out, format=kind, dpi=dpi, metadata=undated, transparent=transparent)
    return out.getvalue()


@contextmanager
def own_settings() -> Iterator[None]:
    """Draw and write figures of the same size, whose labels are no LaTeX, whatever the user's matplotlibrc says."""
    from matplotlib import rc_context

    with rc_context(
        {
            "text.usetex": False,
            "savefig.bbox": "standard",
            "svg.fonttype": "none",
            "svg.hashsalt": _SVG_SALT,
            "pdf.fonttype": 42,
        }
    ):
        yield


@contextmanager
def _any_letters() -> Iterator[None]:
    """Draw letters that the font does not have as boxes, without a warning for each of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        yield
