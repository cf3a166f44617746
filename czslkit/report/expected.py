"""TODO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import did_you_mean
from ..metrics.names import METRICS, WORLDS


def expected_problems(expected: Any) -> list[str]:
    """What is wrong with the ``expected`` of a recipe: by world S, U, H, AUC and source, maybe spread and disagreement.

    >>> expected_problems({"closed": {"S": 46.6, "U": 499, "H": 36.3, "source": "a table"}})
    ['expected.closed: U is 499, expected a percentage from 0 to 100', 'expected.closed lacks AUC']
    """
    if not isinstance(expected, Mapping):
        return [f"expected is {expected!r}, expected the worlds with their numbers"]
    problems = _unknown("expected", expected, WORLDS)
    for world in WORLDS:
        if world in expected:
            problems += world_problems(f"expected.{world}", expected[world])
    return problems


def world_problems(where: str, content: Any) -> list[str]:
    problems = _number_problems(where, content, text="source", optional=("spread", "disagreement"))
    if isinstance(content, Mapping) and "spread" in content:
        problems += _number_problems(f"{where}.spread", content["spread"], text="what")
    if isinstance(content, Mapping) and "disagreement" in content:
        problems += _text_problems(where, "disagreement", content["disagreement"])
    return problems


def _number_problems(where: str, content: Any, *, text: str, optional: tuple[str, ...] = ()) -> list[str]:
    """Of numbers with a text that says what they are."""
    if not isinstance(content, Mapping):
        return [f"{where} is {content!r}, expected {', '.join(METRICS)} and {text}"]
    problems = _unknown(where, content, (*METRICS, text, *optional))
    for name in METRICS:
        value = content.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
            problems.append(f"{where}: {name} is {value!r}, expected a percentage from 0 to 100")
    if text in content:
        problems += _text_problems(where, text, content[text])
    if lacking := [name for name in (*METRICS, text) if name not in content]:
        problems.append(f"{where} lacks {', '.join(lacking)}")
    return problems


def _unknown(where: str, content: Mapping[Any, Any], known: Sequence[str]) -> list[str]:
    return [
        f"{where}: {key} is not part of it.{did_you_mean(str(key), known)} Known: {', '.join(known)}."
        for key in content
        if key not in known
    ]


def _text_problems(where: str, name: str, value: Any) -> list[str]:
    return [] if isinstance(value, str) and value.strip() else [f"{where}: {name} is {value!r}, expected a text"]
