"""Sentences on the candidate pairs of the open world: which pairs may be predicted, and by which threshold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ..result_store import Result
from .escaping import printable

OWN_SOURCE = "method"  # source of the feasibility that a trained method has itself
_MOST_THRESHOLDS = 3  # printed one by one; more are printed as a range


def candidate_rule(protocol: Mapping[str, Any]) -> str:
    """Return the rule for candidates in words; results with comparable candidates have equal words.

    The value of a threshold is part of the words only if the user gave it: a searched or published threshold differs
    between methods.

    >>> candidate_rule({"threshold": None, "candidates_sha256": "0123abcdef"})
    'no pair is infeasible, the candidates have digest 0123abcd'
    """
    if protocol.get("threshold") is None:
        digest = _short_digest(protocol.get("candidates_sha256"))
        return "no pair is infeasible" + (f", the candidates have digest {digest}" if digest else "")
    origin = printable(str(protocol.get("threshold_from")))
    threshold = f"threshold {protocol['threshold']!r} given" if origin == "given" else f"threshold {origin}"
    own = protocol.get("feasibility") == OWN_SOURCE  # differs between trainings of one method
    digest = "" if own else _short_digest(protocol.get("feasibility_sha256"))
    source = _feasibility_source(protocol) + (f" with digest {digest}" if digest else "")
    treatment = "score 0 as in the original evaluator" if _scores_zero(protocol) else "are excluded"
    return f"infeasible pairs {treatment} ({threshold}, feasibility from {source})"


def open_world_sentences(labels: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return a sentence on the candidates of each dataset, or a single one if all pairs are candidates everywhere."""
    by_dataset: dict[str, dict[_Candidates, _Users]] = defaultdict(dict)
    for label, result in zip(labels, results, strict=True):
        protocol = result["protocol"]
        if result["cell"]["world"] == "open" and result["status"] == "done" and "threshold" in protocol:
            users = by_dataset[result["cell"]["dataset"]].setdefault(_Candidates.from_protocol(protocol), _Users())
            users.thresholds.update({protocol["threshold"]} - {None})
            users.labels[label] = None
    if by_dataset and all(list(found) == [_Candidates()] for found in by_dataset.values()):
        return [f"In the open world, {_Candidates().sentence(())}."]
    sentences = []
    for dataset, found in by_dataset.items():
        rules = [
            candidates.sentence(users.thresholds) + (f" [{', '.join(users.labels)}]" if len(found) > 1 else "")
            for candidates, users in found.items()
        ]
        sentences.append(f"In the open world of {dataset}, {'; '.join(rules)}.")
    return sentences


@dataclass(frozen=True)
class _Candidates:
    """The rule for the candidates of a result, without the value of the threshold."""

    treatment: str = ""  # treatment of unseen pairs below the threshold; empty without a threshold
    origin: str = ""  # source of threshold and feasibility, or the missing file of feasibility

    @staticmethod
    def from_protocol(protocol: Mapping[str, Any]) -> _Candidates:
        source = printable(str(protocol.get("feasibility")))
        if protocol["threshold"] is None:
            missing = source.startswith("missing: ")
            return _Candidates(origin=f"{source.removeprefix('missing: ')} is missing" if missing else "")
        treatment = "get score 0 as in the original evaluator" if _scores_zero(protocol) else "are excluded"
        threshold_from = printable(str(protocol.get("threshold_from")))
        return _Candidates(treatment, f"threshold {threshold_from}, feasibility from {_feasibility_source(protocol)}")

    def sentence(self, thresholds: Iterable[float]) -> str:
        origin = f" ({self.origin})" if self.origin else ""
        if not self.treatment:
            return f"all pairs are candidates: there is no feasibility threshold{origin}"
        return f"unseen pairs with feasibility below {_list_or_range(thresholds)} {self.treatment}{origin}"


@dataclass(frozen=True)
class _Users:
    """The thresholds and labels of the results whose candidates follow the same rule."""

    thresholds: set[float] = field(default_factory=set)
    labels: dict[str, None] = field(default_factory=dict)  # in the order of the table


def _scores_zero(protocol: Mapping[str, Any]) -> bool:
    return protocol.get("infeasible") == "original"


def _feasibility_source(protocol: Mapping[str, Any]) -> str:
    if protocol.get("feasibility") == OWN_SOURCE:
        return "the method itself"
    return PurePath(printable(str(protocol.get("feasibility")))).name


def _short_digest(sha256: Any) -> str:
    return printable(str(sha256))[:8] if sha256 else ""


def _list_or_range(numbers: Iterable[float]) -> str:
    """Return few numbers one by one, and many numbers as a range.

    >>> _list_or_range([0.25, 0.5]), _list_or_range([0.4, 0.1, 0.2, 0.3])
    ('0.25, 0.5', '0.1 to 0.4')
    """
    printed = [f"{number:.4g}" for number in sorted(set(numbers))]
    return ", ".join(printed) if len(printed) <= _MOST_THRESHOLDS else f"{printed[0]} to {printed[-1]}"
