"""Our numbers beside those that a recipe was published with; pure functions of results."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from ..errors import CzslkitError
from ..metrics.names import METRICS
from .expected import world_problems

WHAT = ("ours", "published", "difference")


@dataclass(frozen=True)
class Comparison:
    """One row of a table on one dataset in one world; every number in percent, by the names of ``METRICS``."""

    row: str
    dataset: str
    world: str
    ours: Mapping[str, float | None]  # mean over the finished seeds
    published: Mapping[str, float]
    source: str
    spread: Mapping[str, float] = field(default_factory=dict)  # of the published numbers; empty if none was
    spread_is: str = ""  # such as "standard error over 5 random seeds"
    disagreement: str = ""  # what else is printed elsewhere
    recipe: str = ""
    changed: tuple[str, ...] = ()  # settings that are not the recipe's
    unlike: str = ""  # how the candidates are not those of the published numbers

    def difference(self, name: str) -> float | None:
        """In percentage points; positive where ours is higher."""
        ours = self.ours[name]
        return None if ours is None else ours - self.published[name]

    def shown(self, what: str) -> list[str]:
        """A line of numbers as printed, with as many decimals as the published number needs, but at least one.

        >>> ours, published = dict.fromkeys(METRICS, 7.04), dict.fromkeys(METRICS, 7.5)
        >>> row = Comparison("clip", "cgqa", "open", ours, published, "a table", spread={"S": 0.25})
        >>> [row.shown(what)[0] for what in WHAT]
        ['7.0', '7.5 ± 0.25', '-0.5']
        """
        return [self._shown(what, name) for name in METRICS]

    def cells(self) -> dict[str, float | str | None]:
        """For a line of CSV: fractions, as the metrics are there."""
        cells: dict[str, float | str | None] = {}
        for name, metric in METRICS.items():
            three = self.published[name], self.spread.get(name), self.difference(name)
            for what, value in zip(("published", "spread", "difference"), three, strict=True):
                cells[f"{metric}_{what}"] = None if value is None else round(value / 100, 9)
        return {**cells, "published_source": self.source, "changed": ", ".join(self.changed)}

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        said = asdict(self)
        return {"method": said.pop("row"), **said, "difference": {name: self.difference(name) for name in METRICS}}

    def _shown(self, what: str, name: str) -> str:
        published, spread = self.published[name], self.spread.get(name)
        if what == "published":
            return _printed(published) + ("" if spread is None else f" ± {_printed(spread)}")
        value = self.ours[name] if what == "ours" else self.difference(name)
        if value is None:
            return "-"
        decimals = len(_printed(published).partition(".")[2])
        rounded = round(value, decimals) + 0.0  # no "-0.0"
        return f"{rounded:+.{decimals}f}" if what == "difference" else f"{rounded:.{decimals}f}"


def comparisons(labels: Sequence[str], results: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """One for each row, dataset and world that has finished results with published numbers, in the order given.

    Args:
        labels: the row of each result.
        results: as the store returns them; what is published is read from the first of a row.

    Raises:
        CzslkitError: what a result calls published is nothing of the kind.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for label, result in zip(labels, results, strict=True):
        if result["status"] == "done":
            groups[label, result["cell"]["dataset"], result["cell"]["world"]].append(result)
    found = []
    for (row, dataset, world), of_row in groups.items():
        told = next((result for result in of_row if result.get("published")), None)
        if told is None:
            continue
        published, recipe = told["published"], told.get("recipe") or {}
        if problems := world_problems("published", published):
            raise CzslkitError(f"{row} on {dataset} ({world}): {'; '.join(problems)}")
        spread = dict(published.get("spread") or {})
        found.append(
            Comparison(
                row,
                dataset,
                world,
                {name: _percent(of_row, metric) for name, metric in METRICS.items()},
                {name: published[name] for name in METRICS},
                published["source"],
                spread={name: spread[name] for name in METRICS if name in spread},
                spread_is=spread.get("what", ""),
                disagreement=published.get("disagreement", ""),
                recipe=str(recipe.get("name", "")),
                changed=tuple(map(str, recipe.get("changed", ()))),
                unlike=_unlike(told.get("protocol") or {}),
            )
        )
    return found


def lines(
    found: Sequence[Comparison], rows: Sequence[str], columns: Sequence[tuple[str, str]]
) -> list[tuple[str, list[str]]]:
    """Three lines for each of the rows with published numbers in a column: ours, as published, and the difference.

    Args:
        found: the comparisons.
        rows: the rows of the table, in its order.
        columns: datasets and worlds, in the order of the table; what was not published is a dash.
    """
    known = {(one.row, (one.dataset, one.world)): one for one in found}
    nothing = ["-"] * len(METRICS)
    lines = []
    for row in rows:
        of_row = [known.get((row, column)) for column in columns]
        if any(of_row):
            shown = {what: [one.shown(what) if one else nothing for one in of_row] for what in WHAT}
            lines += [(f"{row}: {what}", list(chain.from_iterable(cells))) for what, cells in shown.items()]
    return lines


def caption(rows: Sequence[Comparison]) -> list[str]:
    """What the numbers of a comparison are and where the published ones are from, a sentence each."""
    said = ["Ours beside what was published, in percent, and the difference in percentage points."]
    if spreads := _told(rows, lambda row: row.spread_is):
        said.append(f"± of published numbers: {spreads}.")
    said.append(f"Published numbers: {_told(rows, lambda row: row.source)}.")
    said.append("Settings are those of the recipe unless a note says otherwise.")
    return said


def notes(rows: Sequence[Comparison]) -> list[str]:
    """Settings that are not the recipe's, and published numbers that are not the same everywhere."""
    changed = {
        f"{row.row} on {row.dataset}: {', '.join(row.changed)} changed from recipe {row.recipe}": None
        for row in rows
        if row.changed
    }
    return [
        *changed,
        *(f"{r.row} on {r.dataset} ({r.world}): {r.unlike}" for r in rows if r.unlike),
        *(f"{r.row} on {r.dataset} ({r.world}) as published: {r.disagreement}" for r in rows if r.disagreement),
    ]


def _unlike(protocol: Mapping[str, Any]) -> str:
    missing = str(protocol.get("feasibility", "")).startswith("missing")
    return "every pair is a candidate here, though the recipe has a feasibility threshold" if missing else ""


def _percent(results: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    values = [value for result in results if (value := result["metrics"].get(metric)) is not None]
    return 100 * statistics.fmean(values) if values else None


def _printed(value: float) -> str:
    """As papers print it: one decimal, or two where one would not say it all."""
    return f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"


def _told(rows: Sequence[Comparison], about: Callable[[Comparison], str]) -> str:
    """Each text that ``about`` gives, after the rows that it is about unless it is about all."""
    of: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if text := about(row):
            of[text].append(row.row)
    everyone = {row.row for row in rows}
    if len(of) == 1 and set(*of.values()) == everyone:
        return next(iter(of))
    return "; ".join(f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in of.items())
