"""A check of the published numbers in a recipe or a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import did_you_mean, shortened
from ..metrics.names import METRICS, WORLDS


def expected_problems(expected: Any) -> list[str]:
    """Return the mistakes in the ``expected`` section of a recipe, with one sentence for each.

    Args:
        expected: for each world S, U, H and AUC in percent, None for each that is not published, ``source``, and
            optionally ``spread`` and ``disagreement``.

    >>> expected_problems({"closed": {"S": 46.6, "U": 499, "H": 36.3, "source": "a table"}})
    ['expected.closed: U is 499, expected a percentage from 0 to 100', 'expected.closed lacks AUC']
    """
    if not isinstance(expected, Mapping):
        return [f"expected is {shortened(expected)}, expected the worlds with their numbers"]
    problems = _unknown_keys("expected", expected, WORLDS)
    for world in WORLDS:
        if world in expected:
            problems += world_problems(f"expected.{world}", expected[world])
    return problems


def world_problems(where: str, content: Any) -> list[str]:
    """Return the mistakes in the published numbers of one world, with one sentence for each.

    Args:
        where: name of the section, which starts every sentence.
        content: the section.
    """
    problems = _number_problems(where, content, text="source", optional=("spread", "disagreement"))
    if isinstance(content, Mapping) and "spread" in content:
        problems += _number_problems(f"{where}.spread", content["spread"], text="what")
    if isinstance(content, Mapping) and "disagreement" in content:
        problems += _text_problems(where, "disagreement", content["disagreement"])
    return problems


def _number_problems(where: str, content: Any, *, text: str, optional: tuple[str, ...] = ()) -> list[str]:
    """Return the mistakes in a section with a percentage or None for each metric, and a text under the key ``text``."""
    if not isinstance(content, Mapping):
        return [f"{where} is {shortened(content)}, expected {', '.join(METRICS)} and {text}"]
    problems = _unknown_keys(where, content, (*METRICS, text, *optional))
    for name in METRICS:
        value = content.get(name, 0)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
            problems.append(f"{where}: {name} is {shortened(value)}, expected a percentage from 0 to 100")
    if text in content:
        problems += _text_problems(where, text, content[text])
    if missing := [name for name in (*METRICS, text) if name not in content]:
        problems.append(f"{where} lacks {', '.join(missing)}")
    elif all(content[name] is None for name in METRICS):
        problems.append(f"{where} has no number; leave it out")
    return problems


def _unknown_keys(where: str, content: Mapping[Any, Any], known: Sequence[str]) -> list[str]:
    return [
        f"{where} has no key {str(key)[:100]}.{did_you_mean(str(key), known)} Known: {', '.join(known)}."
        for key in content
        if key not in known
    ]


def _text_problems(where: str, name: str, value: Any) -> list[str]:
    return (
        [] if isinstance(value, str) and value.strip() else [f"{where}: {name} is {shortened(value)}, expected a text"]
    )
