"""Published numbers of many methods beside ours: rows of papers that were not measured here."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..metrics.names import METRICS, WORLDS
from ..options import flatten
from ..result_store import Result
from .arrangement import Column
from .escaping import printable
from .grids import Number
from .paper_names import PaperName
from .published import as_papers_print, text_by_label

#: The image encoder of the rows that are shown; others of the file are not comparable with them.
BACKBONE = "CLIP ViT-L/14"
_MARK = "published"
_FOLDER = Path(__file__).with_name("published_numbers")
_OWN_NAMES = ("ViT-L-14", "vit_large_patch14")  # in settings of that encoder
_UNKNOWN_VENUE = "venue not stated in text"


@dataclass(frozen=True)
class PublishedRow:
    """The numbers that a paper printed for one method in one dataset and world.

    They are in percent, by the names of ``METRICS``; a number that the source does not print is absent.
    """

    method: str
    venue: str
    year: str
    dataset: str
    world: str
    numbers: Mapping[str, float]
    source: str
    spread: Mapping[str, float] = field(default_factory=dict)
    spread_meaning: str = ""
    disagreement: str = ""  # a text on other published values

    @property
    def label(self) -> str:
        """The label of the row in a table.

        >>> PublishedRow("CSP", "ICLR", "2023", "cgqa", "open", {}, "a table").label
        'CSP (published)'
        """
        return f"{self.method} ({_MARK})"

    def number(self, name: str) -> Number:
        """Return the number of a metric, with its spread if that is published; a dash if there is none."""
        if name not in self.numbers:
            return Number("-")
        spread = f" ± {as_papers_print(self.spread[name])}" if name in self.spread else ""
        return Number(as_papers_print(self.numbers[name]) + spread)

    def csv_columns(self) -> dict[str, Any]:
        """Return the columns of a line of CSV; numbers are fractions there, as the metrics are."""
        columns: dict[str, Any] = {"method": self.label, "dataset": self.dataset, "world": self.world}
        columns |= {"done": 0, "failed": 0}
        for name, metric in METRICS.items():
            for kind, values in (("published", self.numbers), ("spread", self.spread)):
                columns[f"{metric}_{kind}"] = round(values[name] / 100, 9) if name in values else None
        return {**columns, "published_source": self.source}

    def as_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON."""
        return {
            "method": self.method,
            "venue": self.venue,
            "year": self.year,
            "dataset": self.dataset,
            "world": self.world,
            "measured_here": False,
            "backbone": BACKBONE,
            "published": dict(self.numbers),
            "source": self.source,
            "spread": dict(self.spread),
            "spread_is": self.spread_meaning,
            "disagreement": self.disagreement,
        }


@functools.cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Return the rows with the encoder ``BACKBONE``, in the order of the file, which is by year."""
    spreads = {_key(line): line for line in _lines("spreads")}
    others: dict[tuple[str, ...], list[str]] = {}
    for line in _lines("disagreements"):
        others.setdefault(_key(line), []).append(f"{line['column']} is {line['readings'].replace(' <- ', ' in ')}")
    found = []
    for line in _lines("results"):
        if line["backbone"] != BACKBONE:
            continue
        spread = spreads.get(_key(line), {})
        found.append(
            PublishedRow(
                line["method"],
                "" if line["venue"] == _UNKNOWN_VENUE else line["venue"],
                line["year"],
                line["dataset"],
                line["setting"],
                {name: float(line[name]) for name in METRICS if line[name]},
                line["source"],
                spread={name: float(spread[f"{name}_pm"]) for name in METRICS if spread.get(f"{name}_pm")},
                spread_meaning=spread.get("what_pm_is", ""),
                disagreement="; ".join(others.get(_key(line), ())),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class Literature:
    """The published rows of a table and the columns of the whole table."""

    columns: tuple[Column, ...]
    rows: tuple[PublishedRow, ...] = ()
    asked: bool = False  # False adds nothing to the table

    @classmethod
    def of(cls, columns: Sequence[Column], datasets: Sequence[str]) -> Literature:
        """Return the published rows of the columns of a table, and those of ``datasets``, which become columns, too."""
        known = {(row.dataset, row.world) for row in published_rows()}
        more = [(dataset, world) for dataset in datasets for world in WORLDS if (dataset, world) in known]
        shown = tuple(dict.fromkeys([*columns, *more]))
        return cls(shown, tuple(row for row in published_rows() if (row.dataset, row.world) in shown), asked=True)

    def in_grid(self, columns: Sequence[Column]) -> list[tuple[str, list[Number]]]:
        """Return a row of a grid for each method with published numbers in a column; other columns get dashes."""
        by_place = {(row.label, (row.dataset, row.world)): row for row in self.rows}
        labels = dict.fromkeys(row.label for row in self.rows if (row.dataset, row.world) in columns)
        found = []
        for label in labels:
            in_row = [by_place.get((label, column)) for column in columns]
            numbers = [row.number(name) if row else Number("-") for row in in_row for name in METRICS]
            found.append((label, numbers))
        return found

    def paper_names(self, known: Iterable[PaperName]) -> dict[str, tuple[PaperName, str]]:
        """Return the name in papers and the text after it for each label.

        Args:
            known: names of methods with their citation.
        """
        cited = {name.display_name: name for name in known}
        return {
            row.label: (cited.get(row.method, PaperName(row.method)), row.label.removeprefix(row.method))
            for row in self.rows
        }

    def caption(self) -> list[str]:
        """Return sentences that explain the rows; none if there are none."""
        if not self.rows:
            return []
        spreads = text_by_label((row.method, row.spread_meaning) for row in self.rows)
        return [
            f"Rows marked ({_MARK}) were not measured here: they are numbers of papers with {BACKBONE}, and have no "
            "rank; a dash stands for a number that is not published.",
            *([f"The ± of these rows is: {spreads}."] if spreads else []),
        ]

    def notes(self, labels: Sequence[str], results: Sequence[Result]) -> list[str]:
        """Return notes on the sources, on sources that disagree, and on results that the rows cannot be compared with.

        Args:
            labels: label of each result of the table.
            results: the results.
        """
        if not self.asked:
            return []
        known = {row.dataset for row in self.rows}
        unlike: dict[str, None] = {}
        for label, result in zip(labels, results, strict=True):
            dataset = result["cell"]["dataset"]
            if dataset not in known:
                continue
            if result.get("data_differences"):
                unlike[f"{dataset}: the data here are not those of the published rows"] = None
            used = printable(flatten(result.get("config") or {}).get("options.backbone", "").strip('"'))
            if used and not any(name in used for name in _OWN_NAMES):
                unlike[f"{label} on {dataset}: the backbone is {used}, that of the rows is {BACKBONE}"] = None
        absent = dict.fromkeys(dataset for dataset, _ in self.columns if dataset not in known)
        return [
            *(f"{dataset}: there are no published rows for it" for dataset in absent),
            *unlike,
            *(
                [f"published rows are from: {text_by_label((r.method, r.source) for r in self.rows)}"]
                if self.rows
                else []
            ),
            *(
                f"{r.method} on {r.dataset} ({r.world}) as published: {r.disagreement}"
                for r in self.rows
                if r.disagreement
            ),
        ]


def _key(line: Mapping[str, str]) -> tuple[str, ...]:
    return line["method"], line["setting"], line["dataset"]


def _lines(name: str) -> list[dict[str, str]]:
    """Return the lines of a shipped file by the names of their columns."""
    with (_FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
