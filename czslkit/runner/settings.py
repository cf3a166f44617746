"""The sections of a user's settings, and how their values are parsed."""

from __future__ import annotations

import reprlib
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ..errors import ConfigError, class_in_file
from ..evaluation.evaluator import EvalOptions
from ..method import Method, class_problems
from ..options import parse
from ..training.options import TrainOptions
from .grid import parse_values, several_values

#: Section in addition to ``options`` -> class of its settings.
SECTIONS: Mapping[str, type] = {"train": TrainOptions, "eval": EvalOptions}
SECTION_NAMES = ("options", *SECTIONS)


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` texts into a mapping; values are read by :func:`czslkit.runner.grid.parse_values`.

    Raises:
        ConfigError: some texts have another form or no value, or a key is given twice; the message lists all of them.

    >>> parse_settings(["backbone=demo", "train.epochs=3", "msci.heads=[4, 4]"])
    {'backbone': 'demo', 'train.epochs': 3, 'msci.heads': [4, 4]}
    """
    settings, problems = {}, []
    typed: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not (equals and key):
            problems.append(f"{text!r} is not KEY=VALUE")
        elif not value.strip():
            problems.append(f"{key} has no value: write {key}=null for none")
        else:
            typed[key] = [*typed.get(key, []), value.strip()]
            try:
                settings[key] = parse_values(value)
            except (ValueError, yaml.YAMLError) as error:
                reason = str(error).partition("\n")[0][:100]
                problems.append(f"{key} is {reprlib.repr(value)}, which is not a YAML value ({reason})")
    problems += [
        f"{key} is given {len(values)} times ({', '.join(values)}): give it once; "
        f"{shlex.quote(f'{key}={several_values(values)}')} is for several configurations"
        for key, values in typed.items()
        if len(values) > 1
    ]
    if problems:
        raise ConfigError(problems)
    return settings


def method_problems(name: str, cls: type[Method]) -> list[str]:
    """Return the mistakes in the class of a method, in its options and in its training settings."""
    problems, where = class_problems(cls, where=name), f"{name}: recipe of {class_in_file(cls)}"
    if not isinstance(cls.recipe, Mapping):
        return [*problems, f"{where} is {cls.recipe!r}, expected training settings such as {{'lr': 1e-3}}"]
    try:
        parse(TrainOptions, cls.recipe, where=where)
    except ConfigError as error:
        problems += error.problems
    return problems


def parse_sections(
    cls: type[Method], sections: Mapping[str, Mapping[str, Any]], where: Mapping[str, str]
) -> dict[str, Any]:
    """Parse the options of a method, of its training and of its evaluation.

    Args:
        cls: the method; its ``recipe`` gives the training settings that ``sections`` leave out.
        sections: values by section and name.
        where: name of each section in messages.

    Raises:
        ConfigError: settings are wrong; the message lists every problem of every section.
    """
    values = {**sections, "train": {**cls.recipe, **sections.get("train", {})}}
    problems: list[str] = []
    parsed: dict[str, Any] = {}
    for section, schema in {"options": cls.Options, **SECTIONS}.items():
        try:
            parsed[section] = parse(schema, values.get(section, {}), where=where[section])
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return parsed
