"""TODO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ..errors import ConfigError
from ..evaluation.evaluator import EvalOptions
from ..method import Method
from ..options import parse
from ..training.loop import TrainOptions

SECTIONS: Mapping[str, type] = {"train": TrainOptions, "eval": EvalOptions}


SECTION_NAMES = ("options", *SECTIONS)


PRESETS = ("demo", "paper")


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as a mapping; values are YAML.

    Raises:
        ConfigError: texts of another form, all of them.

    >>> parse_settings(["backbone=demo", "train.epochs=3", "msci.heads=[4, 4]"])
    {'backbone': 'demo', 'train.epochs': 3, 'msci.heads': [4, 4]}
    """
    settings, problems = {}, []
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            if not (equals and key.strip()):
                raise ValueError
            settings[key.strip()] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError):
            problems.append(f"{text!r} is not KEY=VALUE with a YAML value")
    if problems:
        raise ConfigError(problems)
    return settings


def parse_sections(
    cls: type[Method], layers: Mapping[str, Mapping[str, Any]], where: Mapping[str, str]
) -> dict[str, Any]:
    """The options of a method, of training and of evaluation; the method's own recipe is beneath those of training.

    Raises:
        ConfigError: every problem of every section, each after what ``where`` says of its section.
    """
    values = {**layers, "train": {**cls.recipe, **layers.get("train", {})}}
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
