"""Tables of results: a pure function of the result files, as text, Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ..errors import CzslkitError
from ..metrics.names import METRICS
from ..options import flatten
from ..store import Result, differences
from . import published, rendering
from .cell_details import cell_details
from .rendering import Block, Column, Grid, Mark
from .significance import MARK, Attached, Findings, findings

_CURVES = {
    "original": "area under the original ~20-bias curve",
    "exact": "area under the curve through every breakpoint",
}
_FEW = 3  # thresholds that are told one by one
_LONGEST_LABEL = 30  # of the settings that tell two rows apart; beyond it their hash is clearer
_IN_FULL = {"DataError", "ConfigError"}  # each line of these names something to put right
_MOST_LINES, _LONGEST_LINE = 12, 300  # of an error below the table
_KEY = "Bold: best, underlined: second best of each column."


@dataclass
class Entry:
    """One row in one column: the metrics of each finished seed, and the seeds that failed."""

    seeds: dict[int, Mapping[str, float | None]] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)

    def values(self, metric: str) -> list[float]:
        """The metric of every seed that has one, fractions in 0..1."""
        return [value for metrics in self.seeds.values() if (value := metrics.get(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def std(self, metric: str) -> float | None:
        """Sample standard deviation (n - 1 in the denominator), None for fewer than two seeds."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def rounded(self, metric: str) -> str | None:
        """The mean in percent, as printed."""
        mean = self.mean(metric)
        return None if mean is None else f"{100 * mean:.1f}"

    def shown(self, metric: str) -> str:
        """What stands in the table.

        >>> Entry({0: {"auc": 0.40}, 1: {"auc": 0.42}}).shown("auc")
        '41.0 ± 1.4'
        """
        if self.failed and not self.seeds:
            return "failed"
        std = self.std(metric)
        return (self.rounded(metric) or "-") + ("" if std is None else f" ± {100 * std:.1f}")


class Table:
    """Methods against datasets and worlds; configurations of one method are rows of their own.

    Attributes:
        results: what it was made of, names without control characters.
        labels: the row of each result.
        rows: each label once, in the order first given.
        columns: dataset and world, in the order first given.
        entries: by row, dataset and world; absent where nothing was run.
        comparisons: what has published numbers to stand beside.
        findings: how sure the numbers are, as far as there are numbers per image.
    """

    def __init__(
        self,
        results: Iterable[Result],
        mixed: bool = False,
        *,
        attached: Attached | None = None,
        intervals: bool = False,
    ) -> None:
        """Arrange results as the store returns them.

        Args:
            results: in the order of the rows.
            mixed: put them together even if not measured alike.
            attached: gives the files beside a result, as :meth:`Store.attached`; without, nothing is said of
                significance.
            intervals: print them.

        Raises:
            CzslkitError: there are none, one is there twice, or two were not measured alike.
        """
        self.results = tuple(_clean_names(result) for result in results)
        if not self.results:
            raise CzslkitError("there are no results to put in a table")
        self.labels = _labels(self.results)
        self._unlike = _unlike(self.labels, self.results)
        if self._unlike and not mixed:
            raise CzslkitError(f"{self._unlike}. Run one of them again, or choose: --methods, --datasets or --mixed.")
        self.rows = list(dict.fromkeys(self.labels))
        self.columns = list(dict.fromkeys((r["cell"]["dataset"], r["cell"]["world"]) for r in self.results))
        self.entries = _entries(self.labels, self.results)
        self.comparisons = published.comparisons(self.labels, self.results)
        self.findings = findings(self.labels, self.results, attached) if attached else Findings()
        self._attached, self._intervals = attached, intervals
        self._ranks = {(column, name): self._ranked(column, name) for column in self.columns for name in METRICS}

    def caption(self) -> list[str]:
        """What the numbers are, a sentence each."""
        said = ["Percentages. S, U, H: best seen, best unseen and best harmonic-mean accuracy."]
        done = [result for result in self.results if result["status"] == "done"]
        if done:
            bins = str(done[0]["protocol"].get("bins"))
            said.append(f"AUC: {_CURVES.get(bins, f'bins {clean(bins)!r}')}.")
        if self._unlike:
            said.append(f"Not measured alike: {self._unlike}.")
        said += _open_world(self.labels, self.results)
        counts = sorted({len(entry.seeds) for entry in self.entries.values() if entry.seeds})
        if counts and counts[-1] > 1:
            many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else counts[0]
            said.append(f"Mean ± sample standard deviation (ddof=1) over {many} seeds.")
        return said + self.findings.caption(self._intervals, list(METRICS.values()))

    def notes(self) -> list[str]:
        """Entries of which only some seeds finished, and each error once with the cells it stopped."""
        partly = [
            f"{row} on {dataset} ({world}): {len(entry.seeds)} of {len(entry.seeds) + len(entry.failed)} seeds"
            for (row, dataset, world), entry in self.entries.items()
            if entry.seeds and entry.failed
        ]
        return partly + [clean(note) for note in self.findings.notes] + _failures(self.labels, self.results)

    def render(self, kind: str) -> str:
        """The table as ``text``, ``markdown``, ``csv``, ``latex``, ``json`` or ``html``."""
        rendered: str = getattr(self, f"to_{kind}")()
        return rendered

    def to_text(self, color: bool = False) -> str:
        """For a terminal: a block for each dataset, or for each of its worlds where that is wider than ``WIDTH``."""
        mark = rendering.ansi if color or not any(self._ranks.values()) else rendering.asterisks
        key = f"{mark('Best', 1, '')} and {mark('second', 2, '')} of each column."
        return rendering.as_text(self._blocks(0, mark, key), mark)

    def to_markdown(self) -> str:
        """A table for each dataset, in GitHub's dialect."""
        return rendering.as_markdown(self._blocks(0, rendering.markdown_mark, _KEY))

    def to_latex(self) -> str:
        """Floats with one tabular for each world, as papers print them; needs ``booktabs``."""
        return rendering.as_latex(self._blocks(1, rendering.latex_mark, _KEY))

    def to_csv(self) -> str:
        """A line for each row, dataset and world: mean, std and n of every metric, fractions in full precision.

        Where there are numbers per image, the ends of the interval follow, and whether the entry is not significantly
        below the best. Where there are published numbers, they, their spread and the difference to the mean follow, as
        fractions too.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        summaries = {key: self._summaries(key) for key in self.entries}
        numbers = [f"{metric}_{what}" for metric, of in next(iter(summaries.values())).items() for what in of]
        beside = {(c.row, c.dataset, c.world): c.cells() for c in self.comparisons}
        extra = next(iter(beside.values()), {})
        writer.writerow(["method", "dataset", "world", "done", "failed", *numbers, *extra])
        for key, entry in self.entries.items():
            counts = len(entry.seeds), len(entry.failed)
            found = beside.get(key, dict.fromkeys(extra)).values()
            of_key = (number for summary in summaries[key].values() for number in summary.values())
            writer.writerow([*key, *counts, *of_key, *found])
        return out.getvalue()

    def to_json(self) -> str:
        """What ``to_csv`` holds, the metrics of each seed, the distance to the best and every error."""
        rows: list[dict[str, Any]] = []
        for key, entry in self.entries.items():
            row = {
                **dict(zip(("method", "dataset", "world"), key, strict=True)),
                "metrics": self._summaries(key),
                "seeds": {str(seed): metrics for seed, metrics in entry.seeds.items()},
                "failed": entry.failed,
            }
            gaps = {metric: gap.as_dict() for metric, gap in self.findings.gaps.get(key, {}).items()}
            rows.append(row | ({"against_best": gaps} if gaps else {}))
        failed = [{"cell": r["cell"], "error": r["error"]} for r in self.results if r["status"] == "failed"]
        beside = {"caption": published.caption(self.comparisons), "rows": [c.as_dict() for c in self.comparisons]}
        content = {"caption": self.caption(), "rows": rows, "failed": failed}
        content |= {"bootstrap": self.findings.settings()} if self.findings.intervals else {}
        return json.dumps(content | ({"published": beside} if self.comparisons else {}), indent=1) + "\n"

    def to_html(self) -> str:
        """A page that needs no other file: a table for each dataset, and what stands behind every number."""
        cells = [
            cell_details(_name(label, result["cell"]), label, result, self.findings, self._attached)
            for label, result in zip(self.labels, self.results, strict=True)
        ]
        return rendering.as_page(self._blocks(0, rendering.html_mark, _KEY), cells)

    def _blocks(self, part: int, mark: Mark, key: str) -> list[Block]:
        """The table, and below it what was published if anything was; a grid for each dataset (0) or world (1)."""
        main, beside = [], []
        after = " " if any(self._tied(key, metric) for key in self.entries for metric in METRICS.values()) else ""
        for corner, columns in self._by(part).items():
            rows = self.rows if part else self._run_on(corner)
            numbers = [(row, self._numbers(row, columns, mark, after)) for row in rows]
            main.append(Grid(corner, columns, numbers, after))
            if lines := published.lines(self.comparisons, self.rows, columns):
                beside.append(Grid(corner, columns, [(name, [mark(text, 0, "") for text in of]) for name, of in lines]))
        blocks = [Block(main, [*self.caption(), *self._key(key)], self.notes())]
        if beside:
            blocks.append(Block(beside, published.caption(self.comparisons), published.notes(self.comparisons)))
        return blocks

    def _by(self, part: int) -> dict[str, list[Column]]:
        """The columns by dataset (0) or by world (1)."""
        groups: dict[str, list[Column]] = defaultdict(list)
        for column in self.columns:
            groups[column[part]].append(column)
        return groups

    def _run_on(self, dataset: str) -> list[str]:
        return [row for row in self.rows if any((row, *column) in self.entries for column in self._by(0)[dataset])]

    def _ranked(self, column: Column, name: str) -> dict[str, int]:
        """The rank of each printed mean that gets a mark; none where there is nothing to compare."""
        entries = (self.entries.get((row, *column), Entry()) for row in self.rows)
        means = [mean for entry in entries if (mean := entry.rounded(METRICS[name])) is not None]
        best = sorted(set(means), key=float, reverse=True)[:2] if len(means) > 1 else []
        return {mean: rank for rank, mean in enumerate(best, start=1)}

    def _key(self, text: str) -> list[str]:
        return [text] if any(self._ranks.values()) else []

    def _numbers(self, row: str, columns: Iterable[Column], mark: Mark, after: str) -> list[str]:
        """What is printed of a row, as marked; ``after`` stands where other numbers are marked as tied."""
        marked = []
        for column in columns:
            key = (row, *column)
            entry = self.entries.get(key, Entry())
            for name, metric in METRICS.items():
                rank = self._ranks[column, name].get(entry.rounded(metric) or "", 0)
                shown, interval = entry.shown(metric), self.findings.interval(key, metric)
                if self._intervals and interval:
                    shown += f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
                marked.append(mark(shown, rank, MARK if self._tied(key, metric) else after))
        return marked

    def _tied(self, key: tuple[str, str, str], metric: str) -> bool:
        return bool(self.findings.tied(key, metric))

    def _metrics(self) -> list[str]:
        measured = (metrics for entry in self.entries.values() for metrics in entry.seeds.values())
        return list(dict.fromkeys([*METRICS.values(), *(metric for metrics in measured for metric in metrics)]))

    def _summaries(self, key: tuple[str, str, str]) -> dict[str, dict[str, float | None]]:
        """Every metric of an entry; with its interval where any entry has one of that metric."""
        entry, summaries = self.entries[key], {}
        resampled = {metric for of_entry in self.findings.intervals.values() for metric in of_entry}
        for metric in self._metrics():
            summary: dict[str, float | None] = {"mean": entry.mean(metric), "std": entry.std(metric)}
            summary["n"] = len(entry.values(metric))
            if metric in resampled:
                low, high = self.findings.interval(key, metric) or (None, None)
                summary |= {"low": low, "high": high, "tied": self.findings.tied(key, metric)}
            summaries[metric] = summary
        return summaries


def clean(text: str) -> str:
    """``text`` on one line, without terminal escapes and characters that do not print.

    >>> clean("\\x1b[31mred\\x1b[0m\\nname")
    'red name'
    """
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", " ".join(text.splitlines()))
    return "".join(character for character in text if unicodedata.category(character) not in ("Cc", "Cf"))


def _clean_names(result: Result) -> Result:
    return {**result, **{key: _cleaned(result[key]) for key in ("cell", "recipe", "published") if key in result}}


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def _name(label: str, cell: Mapping[str, Any]) -> str:
    return f"{label} on {cell['dataset']} ({cell['world']}, seed {cell['seed']})"


def _unlike(labels: Sequence[str], results: Sequence[Result]) -> str:
    """The first two results that were not measured alike, and how they differ; empty if all were."""
    done = [(_name(label, r["cell"]), r) for label, r in zip(labels, results, strict=True) if r["status"] == "done"]
    of_dataset: dict[str, tuple[str, Result]] = {}
    of_column: dict[tuple[str, str], tuple[str, Result]] = {}
    for name, result in done:
        (other, first), cell = done[0], result["cell"]
        bins, expected = (r["protocol"].get("bins") for r in (result, first))
        if bins != expected:
            return f"{name} has the AUC of bins={bins!r}, {other} that of bins={expected!r}"
        other, first = of_dataset.setdefault(cell["dataset"], (name, result))
        if words := differences(*({"data": r["depends"].get("data", {})} for r in (first, result))):
            return f"{name} rests on other data than {other} ({clean(words)})"
        other, first = of_column.setdefault((cell["dataset"], cell["world"]), (name, result))
        if (mine := _rule(result["protocol"])) != (theirs := _rule(first["protocol"])):
            return f"in {name} {mine}, in {other} {theirs}"
    return ""


def _rule(protocol: Mapping[str, Any]) -> str:
    """Which pairs may be predicted, in words. A threshold that was found for each method may be another for each."""
    if protocol.get("threshold") is None:
        return ", ".join([_policy(protocol), *_digest("candidates have digest", protocol.get("candidates_sha256"))])
    found = clean(str(protocol.get("threshold_from")))
    value = f" {protocol['threshold']!r}" if found == "given" else ""
    source = PurePath(clean(str(protocol.get("feasibility")))).name
    rule = f"{_policy(protocol)}, by a threshold{value} {found} on feasibility from {source}"
    return ", ".join([rule, *_digest("of digest", protocol.get("feasibility_sha256"))])


def _digest(what: str, sha256: Any) -> list[str]:
    return [f"{what} {clean(str(sha256))[:8]}"] if sha256 else []


def _policy(protocol: Mapping[str, Any]) -> str:
    """What becomes of unseen pairs below the feasibility threshold, in words."""
    if protocol.get("threshold") is None:
        return "no pair is infeasible"
    original = protocol.get("infeasible") == "original"
    return "infeasible pairs score 0 as in the original evaluator" if original else "infeasible pairs are excluded"


def _open_world(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """What was a candidate in the open world: a sentence for each dataset, or one where all pairs always were."""
    said: dict[str, dict[tuple[str, str], tuple[set[float], dict[str, None]]]] = defaultdict(dict)
    for label, result in zip(labels, results, strict=True):
        protocol = result["protocol"]
        if result["cell"]["world"] == "open" and result["status"] == "done" and "threshold" in protocol:
            of_dataset = said[result["cell"]["dataset"]]
            thresholds, rows = of_dataset.setdefault(_candidates(protocol), (set(), {}))
            thresholds |= {protocol["threshold"]} - {None}
            rows[label] = None
    everything = _candidates({"threshold": None})
    if said and all(list(of_dataset) == [everything] for of_dataset in said.values()):
        return [f"Open world: {''.join(everything)}."]
    sentences = []
    for dataset, of_dataset in said.items():
        parts = [
            f"{before}{_several(thresholds)}{after}" + (f" [{', '.join(rows)}]" if len(of_dataset) > 1 else "")
            for (before, after), (thresholds, rows) in of_dataset.items()
        ]
        sentences.append(f"Open world of {dataset}: {'; '.join(parts)}.")
    return sentences


def _candidates(protocol: Mapping[str, Any]) -> tuple[str, str]:
    """How candidates were chosen: what to say before the threshold, and after it."""
    source = clean(str(protocol.get("feasibility")))
    if protocol["threshold"] is None:
        missing = f" ({source.removeprefix('missing: ')} is missing)" if source.startswith("missing: ") else ""
        return "all pairs are candidates, no feasibility threshold", missing
    how = f"threshold {clean(str(protocol.get('threshold_from')))}, feasibility from {PurePath(source).name}"
    return f"{_policy(protocol)}: unseen ones below ", f" ({how})"


def _several(numbers: Iterable[float]) -> str:
    """Few numbers, or the range of many.

    >>> _several([0.25, 0.5]), _several([0.4, 0.1, 0.2, 0.3])
    ('0.25, 0.5', '0.1 to 0.4')
    """
    shown = [f"{number:.4g}" for number in sorted(set(numbers))]
    return ", ".join(shown) if len(shown) <= _FEW else f"{shown[0]} to {shown[-1]}"


def _labels(results: Sequence[Result]) -> list[str]:
    """The row of each result: its method and, if that came in several configurations, what sets this one apart."""
    by_method: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_method[result["cell"]["method"]].append(result)
    apart = {method: _settings_apart(of_one) for method, of_one in by_method.items()}
    labels = []
    for result in results:
        method = result["cell"]["method"]
        settings = apart[method][result["cell"]["config_id"]]
        labels.append(f"{method} [{settings}]" if settings else method)
    return labels


def _settings_apart(results: Sequence[Result]) -> dict[str, str]:
    """By ``config_id``, the settings in which the configurations of one method differ; empty if in none.

    Only those that differ within a dataset count: a recipe differs from dataset to dataset and is one row all the same.
    """
    configs = {result["cell"]["config_id"]: flatten(result["config"]) for result in results}
    rivals: dict[str, set[str]] = defaultdict(set)
    for result in results:
        rivals[result["cell"]["dataset"]].add(result["cell"]["config_id"])
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    differ = [key for key in keys if any(len({configs[i].get(key) for i in ids}) > 1 for ids in rivals.values())]
    apart = {
        i: ", ".join(_setting(key, config[key]) for key in differ if key in config) for i, config in configs.items()
    }
    unique = all(len({apart[i] for i in ids}) == len(ids) for ids in rivals.values())
    short = max(map(len, apart.values())) <= _LONGEST_LABEL
    return apart if unique and short else {i: f"config {i}" for i in configs}


def _setting(key: str, value: str) -> str:
    return clean(f"{key.removeprefix('options.')}={value}").replace('"', "")


def _entries(labels: Sequence[str], results: Sequence[Result]) -> dict[tuple[str, str, str], Entry]:
    entries: dict[tuple[str, str, str], Entry] = defaultdict(Entry)
    for label, result in zip(labels, results, strict=True):
        cell = result["cell"]
        entry = entries[label, cell["dataset"], cell["world"]]
        if cell["seed"] in entry.seeds or cell["seed"] in entry.failed:
            raise CzslkitError(f"{_name(label, cell)} is there twice, each with configuration {cell['config_id']}")
        if result["status"] == "done":
            entry.seeds[cell["seed"]] = result["metrics"]
        else:
            entry.failed.append(cell["seed"])
    return dict(entries)


def _failures(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Each error of each dataset once, after the cells it stopped."""
    stopped: dict[tuple[str, str], list[tuple[str, str, int]]] = defaultdict(list)
    for label, result in zip(labels, results, strict=True):
        if result["status"] == "failed":
            cell, error = result["cell"], result["error"]
            reason = _reason(error["type"], error["message"])
            stopped[cell["dataset"], reason].append((label, cell["world"], cell["seed"]))
    return [f"failed: {_named(dataset, cells)}: {reason}" for (dataset, reason), cells in stopped.items()]


def _named(dataset: str, cells: Sequence[tuple[str, str, int]]) -> str:
    """Cells in few words; rows that stand for the same worlds and seeds are named together.

    >>> _named("cgqa", [("clip", "open", 0), ("csp", "open", 0), ("csp", "open", 1)])
    'clip on cgqa (open, seed 0), csp on cgqa (open, seeds 0, 1)'
    """
    seeds: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, world, seed in cells:
        seeds[row][world].append(seed)
    rows: dict[str, list[str]] = defaultdict(list)
    for row, worlds in seeds.items():
        where = (f"{world}, seed{'s' * (len(of) > 1)} {', '.join(map(str, of))}" for world, of in worlds.items())
        rows["; ".join(where)].append(row)
    return ", ".join(f"{', '.join(alike)} on {dataset} ({where})" for where, alike in rows.items())


def _reason(kind: str, message: str) -> str:
    lines = [clean(line) for line in message.splitlines() if line.strip()] or [""]
    if kind not in _IN_FULL:
        lines = lines[:1]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"... and {len(lines) - _MOST_LINES} more lines"]
    short = [line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…" for line in lines]
    return f"{clean(kind)}: " + "\n  ".join(short)
