"""Our numbers compared with the numbers that a recipe's paper published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import CzslkitError
from ..metrics.names import METRICS
from ..result_store import Result
from .arrangement import Arrangement, Column
from .expected import world_problems
from .grids import Number

KINDS = ("ours", "published", "difference")  # the lines of a comparison


@dataclass(frozen=True)
class Comparison:
    """Our numbers and the published numbers of one row in one dataset and world, by the names of ``METRICS``."""

    label: str
    dataset: str
    world: str
    ours: Mapping[str, float | None]  # percent, mean over the finished seeds
    published: Mapping[str, float]  # percent
    source: str
    spread: Mapping[str, float] = field(default_factory=dict)  # published spread, percent; empty if there is none
    spread_meaning: str = ""  # such as "standard error over 5 random seeds"
    disagreement: str = ""  # a text on other published values
    recipe: str = ""
    changed: tuple[str, ...] = ()  # settings that differ from the recipe
    candidates_note: str = ""  # a sentence on a difference between our candidates and the published ones

    def difference(self, name: str) -> float | None:
        """Return ours minus published, in percentage points."""
        ours = self.ours[name]
        return None if ours is None else ours - self.published[name]

    def printed(self, kind: str) -> list[str]:
        """Return one line of numbers; each has the decimals of its published number, but at least one.

        Args:
            kind: one of ``KINDS``.

        >>> ours, published = dict.fromkeys(METRICS, 7.04), dict.fromkeys(METRICS, 7.5)
        >>> row = Comparison("clip", "cgqa", "open", ours, published, "a table", spread={"S": 0.25})
        >>> [row.printed(kind)[0] for kind in KINDS]
        ['7.0', '7.5 ± 0.25', '-0.5']
        """
        return [self._printed_number(kind, name) for name in METRICS]

    def csv_columns(self) -> dict[str, float | str | None]:
        """Return the columns of a line of CSV; numbers are fractions there, as the metrics are."""
        columns: dict[str, float | str | None] = {}
        for name, metric in METRICS.items():
            numbers = {
                "published": self.published[name],
                "spread": self.spread.get(name),
                "difference": self.difference(name),
            }
            for kind, value in numbers.items():
                columns[f"{metric}_{kind}"] = None if value is None else round(value / 100, 9)
        return {**columns, "published_source": self.source, "changed": ", ".join(self.changed)}

    def as_dict(self) -> dict[str, Any]:
        """Return all values, ready for JSON."""
        return {
            "method": self.label,
            "dataset": self.dataset,
            "world": self.world,
            "ours": dict(self.ours),
            "published": dict(self.published),
            "source": self.source,
            "spread": dict(self.spread),
            "spread_is": self.spread_meaning,
            "disagreement": self.disagreement,
            "recipe": self.recipe,
            "changed": list(self.changed),
            "unlike": self.candidates_note,
            "difference": {name: self.difference(name) for name in METRICS},
        }

    def _printed_number(self, kind: str, name: str) -> str:
        published, spread = self.published[name], self.spread.get(name)
        if kind == "published":
            return _as_papers_print(published) + ("" if spread is None else f" ± {_as_papers_print(spread)}")
        value = self.ours[name] if kind == "ours" else self.difference(name)
        if value is None:
            return "-"
        decimals = len(_as_papers_print(published).partition(".")[2])
        rounded = round(value, decimals) + 0.0  # no "-0.0"
        return f"{rounded:+.{decimals}f}" if kind == "difference" else f"{rounded:.{decimals}f}"


def comparisons(arrangement: Arrangement, results: Sequence[Result]) -> list[Comparison]:
    """Return a comparison for each entry of a table that has finished results and published numbers.

    Args:
        arrangement: the entries.
        results: the result of each row of ``arrangement.frame``; the published numbers of an entry come from its first
            finished result that has them.

    Raises:
        CzslkitError: the section ``published`` of a result is malformed.
    """
    found = []
    for key, cells in arrangement.finished.items():
        result = next((results[i] for i in cells if results[i].get("published")), None)
        if result is None:
            continue
        label, dataset, world = key
        published, recipe = result["published"], result.get("recipe") or {}
        if problems := world_problems("published", published):
            raise CzslkitError(f"{label} on {dataset} ({world}): {'; '.join(problems)}")
        means = {name: arrangement.mean(key, metric) for name, metric in METRICS.items()}
        spread = dict(published.get("spread") or {})
        found.append(
            Comparison(
                label,
                dataset,
                world,
                {name: None if mean is None else 100 * mean for name, mean in means.items()},
                {name: published[name] for name in METRICS},
                published["source"],
                spread={name: spread[name] for name in METRICS if name in spread},
                spread_meaning=spread.get("what", ""),
                disagreement=published.get("disagreement", ""),
                recipe=str(recipe.get("name", "")),
                changed=tuple(map(str, recipe.get("changed", ()))),
                candidates_note=_candidates_note(result.get("protocol") or {}),
            )
        )
    return found


def comparison_rows(
    found: Sequence[Comparison], labels: Sequence[str], columns: Sequence[Column]
) -> list[tuple[str, list[Number]]]:
    """Return three rows for each label with published numbers in a column: ours, published and the difference.

    Args:
        found: the comparisons.
        labels: the rows of the table, in order.
        columns: the columns of the table, in order; a column without published numbers gets dashes.
    """
    by_place = {(comparison.label, (comparison.dataset, comparison.world)): comparison for comparison in found}
    rows = []
    for label in labels:
        in_row = [by_place.get((label, column)) for column in columns]
        if not any(in_row):
            continue
        for kind in KINDS:
            printed = [comparison.printed(kind) if comparison else ["-"] * len(METRICS) for comparison in in_row]
            rows.append((f"{label}: {kind}", [Number(text) for texts in printed for text in texts]))
    return rows


def published_caption(found: Sequence[Comparison]) -> list[str]:
    """Return sentences that explain the numbers of the comparisons and name the sources of the published ones."""
    sentences = ["Our numbers and the published numbers are percentages; the difference is in percentage points."]
    if spreads := _text_by_label(found, lambda comparison: comparison.spread_meaning):
        sentences.append(f"The ± of the published numbers is: {spreads}.")
    sentences.append(f"The published numbers are from: {_text_by_label(found, lambda comparison: comparison.source)}.")
    sentences.append("All settings are those of the recipe unless a note names a change.")
    return sentences


def published_notes(found: Sequence[Comparison]) -> list[str]:
    """Return notes on changed settings, on different candidates and on published numbers that disagree."""
    changed = {
        f"{c.label} on {c.dataset}: {', '.join(c.changed)} changed from recipe {c.recipe}": None
        for c in found
        if c.changed
    }
    return [
        *changed,
        *(f"{c.label} on {c.dataset} ({c.world}): {c.candidates_note}" for c in found if c.candidates_note),
        *(f"{c.label} on {c.dataset} ({c.world}) as published: {c.disagreement}" for c in found if c.disagreement),
    ]


def _candidates_note(protocol: Mapping[str, Any]) -> str:
    missing = str(protocol.get("feasibility", "")).startswith("missing")
    return "every pair is a candidate here, although the recipe has a feasibility threshold" if missing else ""


def _as_papers_print(value: float) -> str:
    """Return a percentage with one decimal, or with two if one decimal would lose a digit."""
    return f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"


def _text_by_label(found: Sequence[Comparison], text_of: Callable[[Comparison], str]) -> str:
    """Return the texts of all comparisons, each after its labels; a text that all labels share has no labels."""
    labels_by_text: dict[str, list[str]] = defaultdict(list)
    for comparison in found:
        if text := text_of(comparison):
            labels_by_text[text].append(comparison.label)
    everyone = {comparison.label for comparison in found}
    if len(labels_by_text) == 1 and set(*labels_by_text.values()) == everyone:
        return next(iter(labels_by_text))
    return "; ".join(f"{', '.join(dict.fromkeys(labels))}: {text}" for text, labels in labels_by_text.items())
