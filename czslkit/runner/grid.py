"""Several values of a setting, each of which makes a configuration of its own."""

from __future__ import annotations

import itertools
import json
import math
import reprlib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from ..errors import ConfigError
from ..options import takes_lists, takes_texts
from .yaml_values import is_marked, is_text, parse_value, split_values

MOST_CONFIGURATIONS = 1000  # of one method on one dataset
Key: TypeAlias = tuple[str, str]  # section, such as "train", and option of a setting


@dataclass(frozen=True)
class Grid:
    """Several values of one setting; a benchmark runs the method once for each of them.

    >>> Grid([1e-3, 5e-3])
    Grid(values=[0.001, 0.005])
    """

    values: Sequence[Any]


def parse_values(text: str) -> Any:
    """Return the value of a setting that a user typed, or a :class:`Grid` of quoted texts or of lists.

    Every other text with commas stays as it is: :func:`configurations` knows whether its option takes texts.

    Raises:
        yaml.YAMLError: what stands in quotes or brackets is not YAML.
        ValueError: a number has too many digits.

    >>> parse_values("[4, 4],[8, 8]"), parse_values("/data/a,b")
    (Grid(values=[[4, 4], [8, 8]]), '/data/a,b')
    """
    parts = split_values(text)
    if len(parts) > 1 and any(map(is_marked, parts)) and all(is_marked(part) or part == "null" for part in parts):
        return Grid([parse_value(part) for part in parts])
    return parse_value(text)


def several_values(texts: Sequence[str]) -> str:
    """Return the text that gives a setting each of some values once, which are typed as for a single value.

    >>> several_values(["1e-3", "5e-3"]), several_values(["demo", "timm/resnet18"])
    ('1e-3,5e-3', '"demo","timm/resnet18"')
    """
    shown = (json.dumps(text) if any(map(is_text, split_values(text))) else text for text in texts)
    return ",".join(dict.fromkeys(shown))


def configurations(
    settings: Mapping[Key, Any], schemas: Mapping[str, type], where: str
) -> list[tuple[dict[Key, Any], str]]:
    """Return every combination of the values of settings, with a text of those that have several values.

    Args:
        settings: values by section and option. A :class:`Grid` has several values, and so has a text with commas
            for an option that takes neither texts nor lists.
        schemas: the class of options of each section.
        where: the method, for messages.

    Raises:
        ConfigError: values cannot be parted, or the combinations are too many; the message lists every problem.
    """
    hints = {section: typing.get_type_hints(schema) for section, schema in schemas.items()}
    values: dict[Key, list[Any]] = {}
    problems: list[str] = []
    for key, value in settings.items():
        try:
            values[key] = _values(value, hints[key[0]].get(key[1]))
        except ValueError as error:
            problems.append(f"{where}: {_name(key)} is {reprlib.repr(value)}, {error}")
    if not problems and (number := math.prod(map(len, values.values()))) > MOST_CONFIGURATIONS:
        problems.append(
            f"{where}: {number:,} configurations, expected at most {MOST_CONFIGURATIONS:,}: give fewer values"
        )
    if problems:
        raise ConfigError(problems)
    several = [key for key, items in values.items() if len(items) > 1]
    combinations = (dict(zip(values, items, strict=True)) for items in itertools.product(*values.values()))
    return [(one, " ".join(f"{_name(key)}={_text(one[key])}" for key in several)) for one in combinations]


def texts_hint(text: str) -> str:
    """Return how several texts are written, empty for a text without commas.

    >>> texts_hint("file,clip")
    'a text keeps its commas, and several texts are written in quotes: "file","clip"'
    """
    quoted = ",".join(f'"{part}"' for part in split_values(text))
    return f"a text keeps its commas, and several texts are written in quotes: {quoted}" if "," in text else ""


def _values(value: Any, hint: Any) -> list[Any]:
    """Return the values of a setting.

    Args:
        hint: type of the option, None if there is no such option.

    Raises:
        ValueError: there is no value, or the text cannot be parted; the message continues "KEY is VALUE, ...".
    """
    if isinstance(value, Grid):
        if not len(value.values):
            raise ValueError("expected at least one value")
        return list(value.values)
    if not isinstance(value, str) or "," not in value or hint is None or takes_texts(hint):
        return [value]
    parts = split_values(value)
    if takes_lists(hint):
        lists = ",".join(f"[{part}]" for part in parts)
        raise ValueError(f"expected a list: write [{value}] for one list, {lists} for several lists")
    if "" in parts:
        raise ValueError("expected a value before and after each comma; write null for none")
    try:
        return [parse_value(part) for part in parts]
    except yaml.YAMLError as error:
        raise ValueError(f"expected YAML values ({str(error).partition(chr(10))[0][:100]})") from None


def _name(key: Key) -> str:
    """Return the name of a setting as a user types it, such as ``train.lr``."""
    return key[1] if key[0] == "options" else ".".join(key)


def _text(value: Any) -> str:
    """Return a value as a user types it: a text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
