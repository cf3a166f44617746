"""Describe one registered name: the settings of a method, the arguments of a component, the folder of a dataset."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.check.counts import count_listing, named_counts
from ..data.check.status import dataset_statuses
from ..data.dataset_folders import dataset
from ..errors import CzslkitError, did_you_mean
from ..method import METHODS
from ..options import schema_problems
from ..registry import REGISTRIES, registries, unknown_name
from ..runner.recipes import load_recipe, recipe_folders
from ..runner.settings import SECTIONS
from .registered_names import KINDS, OWN_DATASET, origin

_WORDS = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    type(None): "null",
}
_INDENT = "    "


def describe(name: str, data: Path | None = None) -> str:
    """Return what every kind of class of a name is, and its settings, arguments or folder.

    Args:
        name: a registered name, also with an argument, such as ``timm/resnet18``, the name of a dataset's folder, or
            ``train`` or ``eval``.
        data: folder of the datasets.

    Raises:
        UnknownNameError: nothing has the name.
    """
    if name in SECTIONS:
        head = f"{name} settings of every method, for czslkit bench --set KEY=VALUE or METHOD.KEY=VALUE:"
        return "\n".join([head, *_section(name, SECTIONS[name], {}, [])])
    own = name.partition("/")[0]
    found = registries()
    ordered = dict.fromkeys([*KINDS.values(), *found])  # methods first
    kinds = [kind for kind in ordered if (own if kind == "backbone" else name) in found[kind]]
    folders = [status.name for status in dataset_statuses(data) if status.folder]
    if not kinds and name not in folders:
        known = sorted({*folders, *(known for registry in found.values() for known in registry)})
        raise unknown_name(name, f"nothing is named {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    blocks = [_described(kind, own if kind == "backbone" else name, data) for kind in kinds]
    if "dataset" not in kinds and name in folders:
        blocks.append([f"dataset {name}", OWN_DATASET, "", *_facts(name, data)])
    return "\n\n".join("\n".join(lines) for lines in blocks)


def type_in_words(hint: Any) -> str:
    """Return the type of an option as a user would say it.

    >>> type_in_words(float | None), type_in_words(tuple[int, ...]), type_in_words(typing.Literal["adam", "sgd"])
    ('number or null', 'list of: whole number', 'adam, sgd')
    """
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return ", ".join(map(str, parts))
    if kind in (typing.Union, types.UnionType):
        return " or ".join(map(type_in_words, parts))
    if kind is tuple:
        items = list(dict.fromkeys(type_in_words(part) for part in parts if part is not Ellipsis))
        number = "" if Ellipsis in parts else f"{len(parts)} values "
        return f"list of {number}".rstrip() + ": " + ", ".join(items)
    return _WORDS.get(hint, str(hint))


def _described(kind: str, name: str, data: Path | None) -> list[str]:
    """Return the lines on one class."""
    cls = REGISTRIES[kind][name]
    first, *others = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    more = [] if kind in ("method", "dataset") else [part for part in others if not part.startswith(("Raises:", ">>>"))]
    head = [f"{kind} {name}, from {origin(cls)}", "\n\n".join([first, *more]), ""]
    if kind == "method":
        return head + _settings(name)
    return head + (_facts(name, data) if kind == "dataset" else _arguments(cls))


def _settings(name: str) -> list[str]:
    """Return the lines on every setting of a method: type, range, default, help and the recipes that set it."""
    cls = METHODS[name]
    if problems := schema_problems(cls.Options):
        return problems
    recipes = _recipes(name)
    lines = [f"settings, for czslkit bench --set KEY=VALUE or {name}.KEY=VALUE:"]
    for section, schema in {"options": cls.Options, **SECTIONS}.items():
        lines += _section(section, schema, cls.recipe if section == "train" else {}, recipes)
    return lines


def _section(
    section: str, schema: type, defaults: Mapping[str, Any], recipes: list[tuple[str, Mapping[str, Any]]]
) -> Iterator[str]:
    """Yield the lines on the settings of a section.

    Args:
        section: ``options``, ``train`` or ``eval``.
        schema: the class of its settings.
        defaults: values that take the place of defaults of ``schema``.
        recipes: recipes with their names.
    """
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key = field.name if section == "options" else f"{section}.{field.name}"
        default = _typed(defaults.get(field.name, field.default))
        yield f"{key}: {type_in_words(hints[field.name])}{_range(field.metadata)}; default {default}"
        yield _INDENT + field.metadata.get("help", "")
        yield from _set_by(recipes, section, field.name)


def _set_by(recipes: list[tuple[str, Mapping[str, Any]]], section: str, option: str) -> list[str]:
    """Return a line for each value that recipes give a setting, with the names of the recipes."""
    values: dict[str, list[str]] = {}
    for recipe, settings in recipes:
        if option in settings[section]:
            values.setdefault(_typed(settings[section][option]), []).append(recipe)
    return [f"{_INDENT}set to {value} by {', '.join(names)}" for value, names in values.items()]


def _recipes(method: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the recipes of a method, each with its name, such as ``cgqa/nayak2023_csp``."""
    files = (file for home in recipe_folders(METHODS[method]) for file in home.glob(f"*/*_{method}.yaml"))
    own = sorted(file for file in files if file.stem.partition("_")[2] == method)
    return [(f"{file.parent.name}/{file.stem}", load_recipe(file)) for file in own]


def _range(limits: Mapping[str, Any]) -> str:
    """Return the limits of an option in words, empty without limits."""
    low, high = limits.get("minimum"), limits.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return "" if low is high is None else f" at least {low}" if high is None else f" at most {high}"


def _typed(value: Any) -> str:
    """Return a value as it is typed after ``--set KEY=``."""
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value, default=str)


def _arguments(cls: type) -> list[str]:
    """Return the lines on the arguments that a backbone or component is built with."""
    parameters = inspect.signature(cls).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]  # torch.nn.Module has both
    lines = [_INDENT + re.sub(r": '([^']*)'", r": \1", str(parameter)) for parameter in named]
    return ["arguments of its class:", *lines] if lines else []


def _facts(name: str, data: Path | None) -> list[str]:
    """Return the lines on the folder, the state and the counts of a dataset."""
    status = next(status for status in dataset_statuses(data) if status.name == name)
    known = dataset(name)
    lines = [f"{status.state}, {status.images:,} images" if status.folder else status.state]
    lines += [f"folder: {status.folder}"] if status.folder else []
    lines += [f"other names: {', '.join(known.aliases)}"] if known.aliases else []
    lines += [f"downloaded with a browser from: {' or '.join(known.pages)}"] if known.pages else []
    lines += [line for line in (status.problem, known.unpublished) if line]
    return [*lines, *_counts(name, status.folder if not status.problem else None)]


def _counts(name: str, folder: Path | None) -> Iterator[str]:
    """Yield the published counts of a dataset, or else those of its lists."""
    known = dataset(name)
    counts, source = known.counts, "published counts"
    if counts is None and folder:
        try:
            counts, source = count_listing(known.listing(folder)), "counts"
        except CzslkitError as error:
            yield str(error)
    if counts:
        yield f"{source}: " + ", ".join(f"{n:,} {what}" for what, n in named_counts(counts).items())
