"""The report: one HTML page that needs no other file, with tables, figures, test images and the details of every cell.

Its template, style and script are in the folder ``page_template``.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..metrics.names import METRICS
from ..sizes import counted, format_duration
from .gallery import OUTCOMES, Gallery
from .grids import TIED_MARK, Block, Number
from .labels import cell_name
from .protocol import Fact
from .text_markdown_latex import caption_with_ranks
from .thumbnails import MOST_BYTES, SIDE

if TYPE_CHECKING:
    from jinja2 import Environment, Template

DETAIL_BYTES = 1_000_000  # largest size of the details of all cells
FIGURE_BYTES = 2_000_000  # largest size of all figures
_TEMPLATES = Path(__file__).parent / "page_template"


@dataclass(frozen=True)
class Cell:
    """A cell of the page."""

    label: str
    place: Mapping[str, Any]  # the cell of its result: dataset, world, seed, config_id
    status: str
    details: Callable[[], Mapping[str, Any]]  # returns sections, tables and traceback, as ``cell_details``
    timing: Mapping[str, float] = field(default_factory=dict)  # seconds: train_s and eval_s

    @property
    def name(self) -> str:
        """The name of the cell for readers."""
        return cell_name(self.label, self.place)


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    title: str
    svg: str  # an inline SVG; empty if the figure could not be drawn
    gap: str = ""  # why it could not be drawn


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        blocks: the tables.
        cells: every cell, in the order of the table.
        galleries: test images and predictions of the datasets.
        protocol: how each dataset and world was measured, by dataset and world.
        environment: versions and devices.
        figures: figures by dataset; those of all datasets have the key ``""``.
    """

    blocks: Sequence[Block]
    cells: Sequence[Cell]
    galleries: Sequence[Gallery] = ()
    protocol: Mapping[tuple[str, str], Sequence[Fact]] = field(default_factory=dict)
    environment: Sequence[Fact] = ()
    figures: Mapping[str, Sequence[Figure]] = field(default_factory=dict)

    @property
    def datasets(self) -> list[str]:
        """The datasets, in the order of the table."""
        return list(dict.fromkeys(cell.place["dataset"] for cell in self.cells))

    def trainings(self, dataset: str) -> list[list[tuple[int, Cell]]]:
        """Return the cells of a dataset with their numbers; the worlds of one training are together."""
        found: dict[tuple[Any, ...], list[tuple[int, Cell]]] = {}
        for i, cell in enumerate(self.cells):
            if cell.place["dataset"] == dataset:
                found.setdefault((cell.label, cell.place["config_id"], cell.place["seed"]), []).append((i, cell))
        return list(found.values())

    @staticmethod
    def seconds(cells: Sequence[tuple[int, Cell]], name: str) -> float | None:
        """Return how long the ``train_s`` or ``eval_s`` of a training took, None if it is not known.

        Worlds that were evaluated in one pass have the same time; of worlds in several passes it is the sum.
        """
        return sum({cell.timing[name] for _, cell in cells if name in cell.timing}) or None


def as_page(page: Page) -> str:
    """Write a page as HTML.

    The details of all cells together have at most ``DETAIL_BYTES``: those of failed cells first, then in the order of
    the cells. Figures have at most ``FIGURE_BYTES``, and thumbnails the size that ``thumbnails.py`` states. The page
    says what is left out. No part of it can run a script or ask for a file: its policy allows only its own script.
    """
    environment = _environment()
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        page=page,
        metrics=list(METRICS),
        details=_details(page.cells, environment.get_template("cell.html")),
        drawn=_drawn(page.figures),
        style=Markup(style),
        script=Markup(script),
        script_digest=digest,
        caption=caption_with_ranks,
        mark=html_number,
        duration=format_duration,
        counted=counted,
        outcomes=OUTCOMES,
        thumbnail={"side": SIDE, "bytes": MOST_BYTES},
    )


def _environment() -> Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escape_for_text,
        undefined=jinja2.StrictUndefined,
    )


def _details(cells: Sequence[Cell], template: Template) -> dict[int, Markup]:
    """Return the details of the cells that fit on the page, by the number of the cell."""
    details: dict[int, Markup] = {}
    size = 0
    for i in sorted(range(len(cells)), key=lambda i: cells[i].status == "done"):
        rendered = template.render(cell=cells[i].details())
        size += len(rendered.encode())
        if size > DETAIL_BYTES:
            break
        details[i] = Markup(rendered)
    return details


def _drawn(figures: Mapping[str, Sequence[Figure]]) -> dict[str, list[tuple[Figure, Markup]]]:
    """Return the figures by dataset with their SVG, which is empty for those that do not fit on the page."""
    size = 0
    found: dict[str, list[tuple[Figure, Markup]]] = {}
    for dataset, several in figures.items():
        for figure in several:
            size += len(figure.svg)
            fits = size <= FIGURE_BYTES
            found.setdefault(dataset, []).append((figure, Markup(figure.svg if fits else "")))
    return found


def _escape_for_text(value: Any) -> Any:
    """Return a text escaped for the inside of an element, where quotation marks need no escape and stay short."""
    return Markup(html.escape(value, quote=False)) if type(value) is str else value


def html_number(number: Number) -> Markup:
    """Return a number in bold or underlined type for HTML; its spread stands below it on a narrow screen."""
    value, plus_minus, spread = number.text.partition(" ± ")
    marked = (Markup("{}"), Markup("<b>{}</b>"), Markup("<u>{}</u>"))[number.rank].format(value)
    marked += TIED_MARK if number.tied else ""
    return marked + Markup(" <small>± {}</small>").format(spread) if plus_minus else marked
