"""The comparison table of results, as text, Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import CzslkitError
from ..metrics.names import METRICS
from ..result_store import Result
from .arrangement import KEY_COLUMNS, Column, Key, arrange, percent
from .asked import Asked
from .caption import table_caption
from .cell_details import cell_details
from .comparability import first_difference
from .escaping import printable, printable_tree
from .export import as_csv, as_json
from .frame import cells_frame, metric_names
from .gallery import galleries
from .grids import Block, Grid, Number
from .labels import cell_name, paper_label, row_labels
from .latex import Names, as_latex
from .literature import Literature
from .notes import (
    checkpoint_notes,
    failure_notes,
    left_out_notes,
    missing_notes,
    recipe_notes,
    seen_accuracy_notes,
    stale_notes,
    undefined_notes,
    unfinished_notes,
)
from .page import Cell, Figure, Page, as_page
from .paper_names import PaperName
from .protocol import environment_facts, protocol_facts
from .published import comparison_rows, comparisons, published_caption, published_notes
from .resamples import Attached, Folder, Resamples, resampled_result
from .significance import significance
from .text_markdown_latex import as_markdown, as_text

_PRINTED_SECTIONS = (
    "cell",
    "config",
    "recipe",
    "preset",
    "published",
    "data_differences",
)  # sections of a result; their texts are made printable


class Table:
    """A table of methods in datasets and worlds; each configuration of a method is a row of its own.

    Attributes:
        results: the results in the table, with printable names.
        labels: the row label of each result.
        asked: the order of rows and columns, and the names in papers.
        arrangement: the entries of the table, and the frame of its cells.
        significance: intervals and differences to the best, for entries with numbers per image.
        comparisons: our numbers and the published numbers.
        literature: rows of papers that were not measured here, which the table shows below ours.
        attached: returns the files of a result, None without files.
    """

    def __init__(
        self,
        results: Iterable[Result],
        mixed: bool = False,
        *,
        attached: Attached | None = None,
        folder: Folder | None = None,
        intervals: bool = False,
        asked: Asked | None = None,
        published: bool = False,
    ) -> None:
        """Arrange results as a table.

        Args:
            results: results as the store returns them, in the order of the rows unless ``asked`` has another one.
            mixed: allow results that were not measured alike; the caption then names the first difference.
            attached: returns the files of a result, as :meth:`Store.attached`; without it the table has no intervals
                and no tie marks.
            folder: returns the folder of a cell, as :meth:`Store.folder`; numbers that take long are kept there,
                so that the next table needs less time.
            intervals: print the interval after each number.
            asked: the order of rows and columns, and the names in papers, which tables in LaTeX print.
            published: show the published rows of the literature, also of datasets in ``asked`` without results.

        Raises:
            CzslkitError: there are no results, a result occurs twice, or two results were not measured alike.
        """
        self.asked = asked or Asked()
        in_order = asked.sorted(results) if asked else results
        self.results = tuple(_with_printable_names(result) for result in in_order)
        if not self.results and not published:
            raise CzslkitError("there are no results to put in a table")
        self.labels = row_labels(self.results, self.asked.labels)
        self._difference = first_difference(self.labels, self.results)
        if self._difference and not mixed:
            raise CzslkitError(
                f"{self._difference}. Run one of them again, select results with --methods or --datasets, or allow "
                "both with --mixed."
            )
        self._resamples = [resampled_result(result, attached, folder) for result in self.results]
        frame = cells_frame(self.results, self._resamples, self.labels)
        for i in frame.index[frame.duplicated([*KEY_COLUMNS, "seed"])]:
            raise _occurs_twice(self.labels[i], self.results[i]["cell"])
        places = {label: self.asked.row_place(r["cell"]) for label, r in zip(self.labels, self.results, strict=True)}
        rows = sorted(places, key=places.__getitem__) if asked else None
        self.arrangement = arrange(frame, metric_names(self.results), rows)
        self.significance = significance(self.arrangement, self._resamples)
        self.comparisons = comparisons(self.arrangement, self.results)
        self.attached, self._intervals = attached, intervals
        columns = self.arrangement.columns
        self.literature = Literature.of(columns, self.asked.datasets) if published else Literature(columns)

    def caption(self) -> list[str]:
        """Return the sentences that explain the numbers."""
        own = table_caption(
            self.arrangement, self.significance, self.results, difference=self._difference, intervals=self._intervals
        )
        return own + self.literature.caption()

    def notes(self) -> list[str]:
        """Return notes on missing cells, seeds, metrics, comparisons and recipes, on stale results and on errors."""
        return [*self._notes_on_numbers(), *failure_notes(self.labels, self.results)]

    def _notes_on_numbers(self) -> list[str]:
        return [
            *missing_notes(self.asked.missing(self.results)),
            *unfinished_notes(self.arrangement),
            *map(printable, self.significance.notes),
            *undefined_notes(self.labels, self.results),
            *seen_accuracy_notes(self.labels, self.results, self.attached),
            *left_out_notes(self.results),
            *recipe_notes(self.labels, self.results),
            *checkpoint_notes(self.labels, self.results),
            *stale_notes(self.labels, self.results),
            *self.literature.notes(self.labels, self.results),
        ]

    def render(self, kind: str) -> str:
        """Write the table as ``text``, ``markdown``, ``csv``, ``latex``, ``bibtex``, ``json`` or ``html``."""
        rendered: str = getattr(self, f"to_{kind}")()
        return rendered

    def to_text(self, color: bool = False, width: int | None = None, encoding: str = "utf-8") -> str:
        """Write the table for a terminal, with a grid for each dataset, or for each world if that would be too wide.

        Args:
            color: mark the best numbers by bold and underlined type instead of asterisks and underscores.
            width: columns of the terminal, in which the text then fits; None wraps no note or sentence.
            encoding: of the terminal; characters that it does not have are replaced by ASCII.
        """
        return as_text(self._blocks("dataset"), color, width, encoding)

    def to_markdown(self) -> str:
        """Write the table in GitHub's dialect of Markdown, with a grid for each dataset."""
        return as_markdown(self._blocks("dataset"))

    def to_latex(self, wide: bool = False) -> str:
        """Write a float for each world that fits the text of an article, with names in papers; needs ``booktabs``.

        Args:
            wide: use ``table*`` and small type, with more datasets side by side.
        """
        methods = {
            label: paper_label(label, result["cell"], self.asked)
            for label, result in zip(self.labels, self.results, strict=True)
        } | self.literature.paper_names(self.asked.names.get("method", {}).values())

        def row(label: str) -> tuple[PaperName, str]:
            start, mark, kind = label.rpartition(": ")  # "csp: ours" in a comparison with published numbers
            name, rest = methods.get(label) or methods[start]
            return name, rest if label in methods else rest + mark + kind

        names = Names(row, lambda name: self.asked.name("dataset", name))
        return as_latex(self._blocks("world"), names, wide=wide)

    def to_bibtex(self) -> str:
        """Write the BibTeX entries that the table in LaTeX cites."""
        kinds = [(kind, result["cell"][kind]) for kind in ("method", "dataset") for result in self.results]
        published = self.literature.paper_names(self.asked.names.get("method", {}).values()).values()
        papers = [*(self.asked.name(kind, name) for kind, name in kinds), *(paper for paper, _ in published)]
        found = {paper.citation: None for paper in papers}
        return "\n\n".join(["% entries that table.tex cites", *(e for e in found if e.startswith("@"))]) + "\n"

    def to_html(self, data: Path | None = None, figures: Mapping[str, Sequence[Figure]] | None = None) -> str:
        """Write an HTML page that needs no other file, with test images and the details of each cell.

        Args:
            data: folder of all datasets, for the test images; None looks where they were when they were predicted.
            figures: figures by dataset; those of all datasets have the key ``""``.
        """
        cells = map(partial(_page_cell, self.attached), self.labels, self.results, self._resamples)
        shown = galleries(self.arrangement, self.results, self.attached, data)
        protocol = protocol_facts(self.labels, self.results)
        environment = environment_facts(self.labels, self.results)
        return as_page(Page(self._blocks("dataset"), list(cells), shown, protocol, environment, figures or {}))

    def to_csv(self) -> str:
        """Write a line for each row, dataset and world, with fractions in full precision.

        The columns are ``method``, the settings in which the results differ, ``dataset``, ``world``, the numbers of
        seeds ``done`` and ``failed``; for each metric ``mean``, ``std`` and ``n``, and with numbers per image ``low``,
        ``high`` and ``tied`` (not significantly below the best); published numbers, their spread and the difference.
        """
        return as_csv(self.arrangement, self.significance, self.comparisons, self.literature.rows)

    def to_json(self) -> str:
        """Write the numbers of :meth:`to_csv`, the metrics of each seed, the difference to the best and every error."""
        more = self.caption(), self.literature.rows
        return as_json(self.arrangement, self.significance, self.comparisons, self.results, *more)

    def _blocks(self, grid_for: str) -> list[Block]:
        """Return the table and, if there are published numbers, the comparison with them.

        Args:
            grid_for: ``dataset`` or ``world``: there is a grid for each dataset or for each world.
        """
        columns_by_corner: dict[str, list[Column]] = defaultdict(list)
        for dataset, world in self.literature.columns:
            columns_by_corner[dataset if grid_for == "dataset" else world].append((dataset, world))
        grids, published = [], []
        for corner, columns in columns_by_corner.items():
            labels = [label for label in self.arrangement.rows if grid_for == "world" or self._was_run(label, columns)]
            own = [(label, self._numbers(label, columns)) for label in labels]
            more = self.literature.in_grid(columns)
            grids.append(Grid(corner, columns, own + more, len(more)))
            if rows := comparison_rows(self.comparisons, self.arrangement.rows, columns):
                published.append(Grid(corner, columns, rows))
        errors = failure_notes(self.labels, self.results)
        blocks = [Block(grids, self.caption(), self._notes_on_numbers(), errors=errors)]
        if published:
            caption, notes = published_caption(self.comparisons), published_notes(self.comparisons)
            blocks.append(Block(published, caption, notes, "Our numbers and published numbers", "published"))
        return blocks

    def _was_run(self, label: str, columns: Sequence[Column]) -> bool:
        return any((label, *column) in self.arrangement.finished for column in columns)

    def _numbers(self, label: str, columns: Sequence[Column]) -> list[Number]:
        return [self._number((label, *column), metric) for column in columns for metric in METRICS.values()]

    def _number(self, key: Key, metric: str) -> Number:
        text = self.arrangement.printed(key, metric)
        interval = self.significance.interval(key, metric) if self._intervals else None
        if interval:
            text += f" [{', '.join(map(percent, interval))}]"
        return Number(text, self.arrangement.rank(key, metric), bool(self.significance.tied(key, metric)))


def _occurs_twice(label: str, cell: Mapping[str, Any]) -> CzslkitError:
    name = cell_name(label, cell)
    return CzslkitError(f"{name} occurs twice, each time with configuration {cell['config_id']}")


def _with_printable_names(result: Result) -> Result:
    return {**result, **{key: printable_tree(result[key]) for key in _PRINTED_SECTIONS if key in result}}


def _page_cell(attached: Attached | None, label: str, result: Result, found: Resamples | CzslkitError | None) -> Cell:
    intervals = found.intervals if isinstance(found, Resamples) else {}
    details = partial(cell_details, result, intervals, attached)
    return Cell(label, result["cell"], result["status"], details, result.get("timing") or {})
