"""Our numbers compared with the numbers that a recipe's paper published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import CzslkitError
from ..metrics.names import METRICS
from ..options import flatten
from ..result_store import Result
from .arrangement import Arrangement, Column
from .escaping import printable
from .expected import world_problems
from .grids import Number

KINDS = ("ours", "published", "difference", "verdict")  # the lines of a comparison
NOT_COMPARABLE = "NOT COMPARABLE"  # verdict on numbers that were measured on other data, or with other candidates
_MOST_COUNTS = 3  # largest number of unexpected counts of a dataset in a note; the others are counted
_OTHER_DATA = "other data"
_CHANGED = "(changed)"  # after a verdict on numbers that were made with other settings than those of the recipe
#: Settings that the closed world does not depend on, unless the open world selects the epoch.
_ONLY_OPEN = {"eval.threshold", "eval.feasibility", "eval.infeasible"}
_WEIGHT_FILES = (".pt", ".pth", ".bin", ".safetensors")  # endings of backbones that may be copies of the recipe's


@dataclass(frozen=True)
class Obstacle:
    """Why our numbers cannot be compared with published ones."""

    words: str  # in place of the differences
    reason: str  # a sentence


@dataclass(frozen=True)
class Comparison:
    """Our numbers and the published numbers of one row in one dataset and world, by the names of ``METRICS``."""

    label: str
    dataset: str
    world: str
    ours: Mapping[str, float | None]  # percent, mean over the finished seeds
    published: Mapping[str, float | None]  # percent; None if the number is not published
    source: str
    spread: Mapping[str, float] = field(default_factory=dict)  # published spread, percent; empty if there is none
    spread_meaning: str = ""  # such as "standard error over 5 random seeds"
    disagreement: str = ""  # a text on other published values
    recipe: str = ""
    changed: tuple[str, ...] = ()  # settings that differ from the recipe
    depends_on_changed: bool = False  # whether the numbers may depend on the changed settings
    seeds: int = 1  # number of finished seeds
    own_spread: Mapping[str, float | None] = field(default_factory=dict)  # standard deviation over the seeds, percent
    obstacle: Obstacle | None = None  # why the numbers cannot be compared

    def difference(self, name: str) -> float | None:
        """Return ours minus published, in percentage points; None if they cannot be compared."""
        ours, published = self.ours[name], self.published[name]
        return None if ours is None or published is None or self.obstacle else ours - published

    def verdict(self, name: str) -> str:
        """Return ``within``, ``above`` or ``below`` the published number, ``-`` if one of them is missing.

        Ours is within the published or our own spread if the difference, as it is printed, is not larger than one of
        them. Without any spread, only an equal number is within. ``(changed)`` follows if the numbers may depend on
        settings that differ from the recipe. It is ``NOT_COMPARABLE`` if there is an obstacle.

        >>> ours, published = dict.fromkeys(METRICS, 7.04), dict.fromkeys(METRICS, 7.5)
        >>> [Comparison("a", "b", "open", ours, published, "c", spread={"S": s}).verdict("S") for s in (0.4, 0.5)]
        ['below', 'within']
        """
        if self.obstacle:
            return NOT_COMPARABLE
        if (difference := self.difference(name)) is None:
            return "-"
        printed = round(difference, self._decimals(name))
        known = [spread for spread in (self.spread.get(name), self.own_spread.get(name)) if spread is not None]
        is_within = abs(printed) <= max(known, default=0) + 1e-9  # 0.3 is larger than 30.3 - 30
        verdict = "within" if is_within else "above" if printed > 0 else "below"
        return f"{verdict} {_CHANGED}" if self.depends_on_changed else verdict

    def numbers(self, kind: str) -> list[Number]:
        """Return the cells of a line; an obstacle is one text in place of all differences or verdicts."""
        if self.obstacle and kind in ("difference", "verdict"):
            text = self.obstacle.words if kind == "difference" else NOT_COMPARABLE
            return [Number(text, span=len(METRICS)), *[Number("", span=0)] * (len(METRICS) - 1)]
        return [Number(text) for text in self.printed(kind)]

    def printed(self, kind: str) -> list[str]:
        """Return one line of numbers; each has the decimals of its published number, but at least one.

        Args:
            kind: one of ``KINDS``.

        >>> ours, published = dict.fromkeys(METRICS, 7.04), dict.fromkeys(METRICS, 7.5)
        >>> row = Comparison("clip", "cgqa", "open", ours, published, "a table", spread={"S": 0.25})
        >>> [row.printed(kind)[0] for kind in KINDS]
        ['7.0', '7.5 ± 0.25', '-0.5', 'below']
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
            columns[f"{metric}_verdict"] = self._exported_verdict(name)
        texts = {"published_source": self.source, "changed": ", ".join(self.changed)}
        return {**columns, **texts, "not_comparable": self.obstacle.reason if self.obstacle else ""}

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
            "unlike": self.obstacle.reason if self.obstacle else "",
            "difference": {name: self.difference(name) for name in METRICS},
            "seeds": self.seeds,
            "own_spread": dict(self.own_spread),
            "verdict": {name: self._exported_verdict(name) for name in METRICS},
        }

    def _exported_verdict(self, name: str) -> str | None:
        """Return the verdict, None if our number or the published one is missing."""
        return None if None in (self.ours[name], self.published[name]) else self.verdict(name)

    def _printed_number(self, kind: str, name: str) -> str:
        published, spread = self.published[name], self.spread.get(name)
        if kind == "published":
            if published is None:
                return "-"
            return as_papers_print(published) + ("" if spread is None else f" ± {as_papers_print(spread)}")
        if kind == "verdict":
            return self.verdict(name)
        value = self.ours[name] if kind == "ours" else self.difference(name)
        if value is None:
            return "-"
        decimals = self._decimals(name)
        rounded = round(value, decimals) + 0.0  # no "-0.0"
        if kind == "difference":
            return f"{rounded:+.{decimals}f}"
        own = self.own_spread.get(name)
        return f"{rounded:.{decimals}f}" + ("" if own is None else f" ± {own:.{decimals}f}")

    def _decimals(self, name: str) -> int:
        return len(as_papers_print(self.published[name] or 0).partition(".")[2])


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
        stds = {name: arrangement.std(key, metric) for name, metric in METRICS.items()}
        spread = dict(published.get("spread") or {})
        found.append(
            Comparison(
                label,
                dataset,
                world,
                _percentages(means),
                {name: published[name] for name in METRICS},
                published["source"],
                spread={name: spread[name] for name in METRICS if spread.get(name) is not None},
                spread_meaning=spread.get("what", ""),
                disagreement=published.get("disagreement", ""),
                recipe=str(recipe.get("name", "")),
                changed=_changed(result),
                depends_on_changed=any(_depends_on_changed(results[i]) for i in cells),
                seeds=len(cells),
                own_spread=_percentages(stds),
                obstacle=_obstacle([results[i] for i in cells]),
            )
        )
    return found


def comparison_rows(
    found: Sequence[Comparison], labels: Sequence[str], columns: Sequence[Column]
) -> list[tuple[str, list[Number]]]:
    """Return a row for each of ``KINDS`` and each label with published numbers in a column.

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
        counts = sorted({comparison.seeds for comparison in in_row if comparison})
        seeds = (
            f"{counts[0]} seed{'s' if counts[0] > 1 else ''}"
            if len(counts) == 1
            else f"{counts[0]} to {counts[-1]} seeds"
        )
        for kind in KINDS:
            cells = [comparison.numbers(kind) if comparison else [Number("-")] * len(METRICS) for comparison in in_row]
            name = f"{label}: {kind}" + (f", {seeds}" if kind == "verdict" else "")
            rows.append((name, [number for numbers in cells for number in numbers]))
    return rows


def published_caption(found: Sequence[Comparison]) -> list[str]:
    """Return sentences that explain the numbers of the comparisons and name the sources of the published ones."""
    sentences = ["Our numbers and the published numbers are percentages; the difference is in percentage points."]
    if spreads := text_by_label((c.label, c.spread_meaning) for c in found):
        sentences.append(f"The ± of the published numbers is: {spreads}.")
    sentences.append(f"The published numbers are from: {text_by_label((c.label, c.source) for c in found)}.")
    if comparable := [comparison for comparison in found if not comparison.obstacle]:
        sentences.append(
            "The verdict is 'within' if the difference, as printed, is at most the published spread or the standard "
            "deviation over our seeds, else 'above' or 'below'."
        )
        if any(comparison.depends_on_changed for comparison in comparable):
            sentences.append(f"'{_CHANGED}' marks verdicts on numbers with settings that differ from the recipe.")
        without = [c for c in comparable if not c.spread and all(s is None for s in c.own_spread.values())]
        if without:
            places = ", ".join(f"{c.label} on {c.dataset} ({c.world})" for c in without)
            known = f" of {places}" if len(without) < len(comparable) else ""
            sentences.append(f"No spread is known{known}: none is published, and one seed has none.")
    sentences.append("All settings are those of the recipe unless a note names a change.")
    return sentences


def published_notes(found: Sequence[Comparison]) -> list[str]:
    """Return notes on other data and candidates, on changed settings and on published numbers that disagree."""
    changed = {
        f"{c.label} on {c.dataset}: {', '.join(c.changed)} changed from recipe {c.recipe}": None
        for c in found
        if c.changed
    }
    obstacles: dict[str, None] = {}
    for c in found:
        if c.obstacle:
            place = c.dataset if c.obstacle.words == _OTHER_DATA else f"{c.label} on {c.dataset} ({c.world})"
            obstacles[f"{place}: {c.obstacle.reason}"] = None
    return [
        *obstacles,
        *changed,
        *(f"{c.label} on {c.dataset} ({c.world}) as published: {c.disagreement}" for c in found if c.disagreement),
    ]


def _obstacle(results: Sequence[Result]) -> Obstacle | None:
    """Return why the results of an entry cannot be compared with published numbers; None if they can."""
    for result in results:
        if counts := result.get("data_differences"):
            listed = list(map(str, counts)) if isinstance(counts, list) else [str(counts)]
            more = [f"and {len(listed) - _MOST_COUNTS} more"] if len(listed) > _MOST_COUNTS else []
            reason = f"the data are not the published ones: {', '.join([*listed[:_MOST_COUNTS], *more])}"
            return Obstacle(_OTHER_DATA, reason)
    for result in results:
        if obstacle := _other_candidates(result) or _other_backbone(result):
            return obstacle
    return None


def _other_candidates(result: Result) -> Obstacle | None:
    """Return an obstacle if the open world has no threshold, or other feasibility scores, unlike in the recipe."""
    protocol, changed = result.get("protocol") or {}, _changed(result)
    feasibility = printable(str(protocol.get("feasibility", "")))
    if feasibility.startswith("missing"):
        reason = "every pair is a candidate here, although the recipe has a feasibility threshold"
        return Obstacle("no threshold", reason)
    if result["cell"]["world"] != "open":
        return None
    if protocol.get("threshold") is None and "eval.threshold" in changed:
        reason = "every pair is a candidate here, because eval.threshold is null, unlike in the recipe"
        return Obstacle("no threshold", reason)
    if protocol.get("threshold") is not None and "eval.feasibility" in changed:
        return Obstacle("other feasibility", f"the feasibility is from {feasibility}, not from that of the recipe")
    return None


def _other_backbone(result: Result) -> Obstacle | None:
    """Return an obstacle if a model with another name is in place of the backbone of the recipe."""
    backbone = flatten(result.get("config") or {}).get("options.backbone", "another one").strip('"')
    if "backbone" not in _changed(result) or backbone.endswith(_WEIGHT_FILES):
        return None
    return Obstacle("other backbone", f"the backbone is {backbone}, not that of the recipe")


def _changed(result: Result) -> tuple[str, ...]:
    """Return the settings of a result that differ from its recipe."""
    return tuple(map(str, (result.get("recipe") or {}).get("changed", ())))


def _depends_on_changed(result: Result) -> bool:
    """Return whether the numbers of a result may depend on the settings that differ from its recipe."""
    selects_open = flatten(result.get("config") or {}).get("train.select_world") == '"open"'
    uses_all = result["cell"]["world"] == "open" or selects_open
    return any(uses_all or key not in _ONLY_OPEN for key in _changed(result))


def _percentages(fractions: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else 100 * value for name, value in fractions.items()}


def as_papers_print(value: float) -> str:
    """Return a percentage with one decimal, or with two if one decimal would lose a digit."""
    return f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"


def text_by_label(texts: Iterable[tuple[str, str]]) -> str:
    """Return texts, each after its labels; a text that all labels share has no labels.

    >>> text_by_label([("csp", "Table 1"), ("clip", "Table 2"), ("coop", "Table 1")])
    'csp, coop: Table 1; clip: Table 2'
    """
    labels_by_text: dict[str, list[str]] = defaultdict(list)
    everyone: set[str] = set()
    for label, text in texts:
        everyone.add(label)
        if text:
            labels_by_text[text].append(label)
    if len(labels_by_text) == 1 and set(*labels_by_text.values()) == everyone:
        return next(iter(labels_by_text))
    return "; ".join(f"{', '.join(dict.fromkeys(labels))}: {text}" for text, labels in labels_by_text.items())
