"""How results were measured, in a few lines for each dataset and world, and the versions that measured them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..result_store import Result
from .comparability import data_digests
from .escaping import printable

_MOST_VALUES = 3  # different values of a line; the others are counted
_MOST_CHARACTERS = 200  # of a value
_CURVES = {"original": "original, about 20 biases", "exact": "exact, every breakpoint"}


@dataclass(frozen=True)
class Fact:
    """A line of a protocol."""

    name: str
    value: str


def protocol_facts(labels: Sequence[str], results: Sequence[Result]) -> dict[tuple[str, str], list[Fact]]:
    """Return the protocol of each dataset and world with finished results.

    Rows that differ are named behind their values.

    Args:
        labels: the row label of each result.
        results: the results, also failed ones.
    """
    columns: dict[tuple[str, str], list[tuple[str, Result]]] = {}
    for label, result in zip(labels, results, strict=True):
        if result["status"] == "done":
            cell = result["cell"]
            columns.setdefault((cell["dataset"], cell["world"]), []).append((label, result))
    return {column: _facts(_LINES, found) for column, found in columns.items()}


def environment_facts(labels: Sequence[str], results: Sequence[Result]) -> list[Fact]:
    """Return the versions of packages and the devices that made the results."""
    found = list(zip(labels, results, strict=True))
    names = dict.fromkeys(name for _, result in found for name in result.get("versions") or {})

    def version(name: str) -> Callable[[Result], str]:
        return lambda result: str((result.get("versions") or {}).get(name, ""))

    return _facts({printable(name): version(name) for name in names}, found)


def _facts(lines: Mapping[str, Callable[[Result], str]], found: Sequence[tuple[str, Result]]) -> list[Fact]:
    facts = []
    for name, read in lines.items():
        by_value: dict[str, dict[str, None]] = {}
        for label, result in found:
            if value := printable(read(result))[:_MOST_CHARACTERS]:
                by_value.setdefault(value, {})[label] = None
        if by_value:
            facts.append(Fact(name, _in_words(by_value)))
    return facts


def _in_words(by_value: Mapping[str, Mapping[str, None]]) -> str:
    """Return the values of a line, each with the rows that have it if there are several.

    >>> _in_words({"0.4": {"csp": None}}), _in_words({"0.4": {"csp": None}, "none": {"clip": None}})
    ('0.4', '0.4 (csp); none (clip)')
    """
    if len(by_value) == 1:
        return next(iter(by_value))
    shown = [f"{value} ({_listed(list(rows))})" for value, rows in list(by_value.items())[:_MOST_VALUES]]
    more = [f"and {len(by_value) - _MOST_VALUES} other values"] if len(by_value) > _MOST_VALUES else []
    return "; ".join([*shown, *more])


def _listed(rows: Sequence[str]) -> str:
    return ", ".join(rows[:_MOST_VALUES]) + (
        f" and {len(rows) - _MOST_VALUES} more" if len(rows) > _MOST_VALUES else ""
    )


def _protocol(name: str) -> Callable[[Result], Any]:
    return lambda result: (result.get("protocol") or {}).get(name)


def _images(result: Result) -> str:
    seen, unseen = (result["metrics"].get(name) for name in ("n_seen", "n_unseen"))
    return "" if seen is None or unseen is None else f"{seen:,.0f} of seen pairs, {unseen:,.0f} of unseen pairs"


def _candidates(result: Result) -> str:
    candidates, columns = (_protocol(name)(result) for name in ("candidates", "columns"))
    return "" if candidates is None else f"{candidates} of {columns} pairs"


def _threshold(result: Result) -> str:
    if result["cell"]["world"] != "open":
        return ""
    threshold, origin = _protocol("threshold")(result), _protocol("threshold_from")(result)
    return "none" if threshold is None else f"{threshold:.4g}, {origin}"


def _feasibility(result: Result) -> str:
    source = str(_protocol("feasibility")(result) or "")
    return source.replace("\\", "/").rpartition("/")[2]  # a path of another machine


def _data(result: Result) -> str:
    digests = {name: digest for name, digest in data_digests(result).items() if name not in ("images", "reading")}
    return ", ".join(f"{name} {str(digest)[:8]}" for name, digest in digests.items())


def _precision(result: Result) -> str:
    found = _protocol("precision")(result) or {}
    return ", ".join(f"{use} {kind}" for use, kind in found.items()) if isinstance(found, Mapping) else ""


_LINES: dict[str, Callable[[Result], str]] = {
    "test images": _images,
    "candidates": _candidates,
    "curve": lambda result: _CURVES.get(bins := str(_protocol("bins")(result)), bins),
    "epoch selected by": lambda result: str(_protocol("selected_by")(result) or ""),
    "feasibility threshold": _threshold,
    "feasibility from": _feasibility,
    "pairs below it": lambda result: str(_protocol("infeasible")(result) or ""),
    "number formats": _precision,
    "files, SHA-256": _data,
}
