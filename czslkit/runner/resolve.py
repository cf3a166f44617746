"""The settings of one method on one dataset, merged from recipe, checkpoint and user."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.trained import TrainedMethod
from ..errors import ConfigError
from ..evaluation.evaluator import EvalOptions
from ..method import METHODS
from ..options import as_dict, user_path
from ..training.options import TrainOptions
from .recipes import load_recipe, recipe_for
from .settings import SECTION_NAMES, parse_sections


@dataclass(frozen=True)
class Resolved:
    """The parsed settings of a method on a dataset, and the recipe that they follow."""

    options: Any  # options of the method
    train: TrainOptions
    evaluation: EvalOptions
    recipe: str | None  # name such as "cgqa/nayak2023_csp"; None without a recipe
    changed: tuple[str, ...]  # settings that differ from the recipe, such as "backbone", "train.epochs"
    published: Mapping[str, Any]  # published numbers of the recipe, by world


def resolve_settings(
    name: str,
    dataset: str,
    settings: Mapping[str, Any],
    preset: str | None,
    methods: Sequence[str],
    checkpoint: TrainedMethod | None,
    given_recipe: str | Path | None = None,
) -> Resolved:
    """Merge the settings of recipe, checkpoint and user; a later one of these overrides an earlier one.

    Args:
        settings: settings of the user, as :func:`czslkit.runner.plan.plan` takes them.
        methods: all methods of the benchmark; a key may begin with the name of a method.
        checkpoint: the trained method; if it is given, nothing is trained.
        given_recipe: recipe file that the user gave for the method, used on every dataset. Its published numbers are
            used only on the dataset whose name the folder of the file has.

    Raises:
        ConfigError: keys are unknown or values cannot be used; the message lists all of them.
    """
    cls = METHODS[name]
    path = user_path(given_recipe).resolve() if given_recipe else recipe_for(name, dataset, preset)
    recipe = load_recipe(path, name if given_recipe else None) if path else {}
    sections = {section: dict(recipe.get(section, {})) for section in SECTION_NAMES}
    if checkpoint:
        sections["options"].update(checkpoint.fixed_options)
    for (section, option), value in _settings_of_method(name, settings, methods).items():
        sections[section][option] = value
    if checkpoint:  # train.epochs is for the other methods
        sections["train"]["epochs"] = 0
    try:
        parsed = parse_sections(cls, sections, {"options": name, "train": f"{name}.train", "eval": f"{name}.eval"})
    except ConfigError as error:
        own = {field.name for field in dataclasses.fields(cls.Options)}
        foreign = [key for key in settings if key in sections["options"] and key not in own]
        hints = (_hint(key, [method for method in methods if method != name]) for key in foreign)
        raise ConfigError([*error.problems, *(hint for hint in hints if hint)]) from None
    found = Resolved(parsed["options"], parsed["train"], parsed["eval"], None, (), {})
    if path is None:
        return found
    recipe_settings = parse_sections(cls, recipe, dict.fromkeys(SECTION_NAMES, ""))
    changed = _changed_settings(recipe_settings, parsed, trained=not checkpoint)
    if checkpoint:
        changed += (f"weights (those in {checkpoint.folder.name}, not trained here)",)
    is_published = path.parent.name == dataset and (preset == "paper" or given_recipe)
    published = recipe["expected"] if is_published else {}
    return dataclasses.replace(found, recipe=f"{path.parent.name}/{path.stem}", changed=changed, published=published)


def _settings_of_method(name: str, settings: Mapping[str, Any], methods: Sequence[str]) -> dict[tuple[str, str], Any]:
    """Return the settings of one method, by section and option; ``METHOD.KEY`` overrides ``KEY``.

    Raises:
        ConfigError: a key begins with something that is neither a method nor a section.
    """
    found: dict[tuple[str, str], Any] = {}
    for key, value in sorted(settings.items(), key=lambda item: item[0].split(".")[0] in methods):
        first = key.split(".")[0]
        if first in methods and first != name:
            continue
        path = key.removeprefix(f"{name}.") if first == name else key
        section, _, option = path.partition(".") if "." in path else ("options", "", path)
        if section not in SECTION_NAMES:
            raise ConfigError(
                [f"{key}: {section} is neither one of the methods ({', '.join(methods)}) nor train nor eval"]
            )
        found[section, option] = value
    return found


def _changed_settings(recipe: Mapping[str, Any], used: Mapping[str, Any], *, trained: bool) -> tuple[str, ...]:
    """Return the keys of the settings that differ from the recipe; training settings count only if ``trained``."""
    return tuple(
        key if section == "options" else f"{section}.{key}"
        for section in SECTION_NAMES
        if trained or section != "train"
        for key, value in as_dict(used[section]).items()
        if value != as_dict(recipe[section])[key]
    )


def _hint(key: str, methods: Sequence[str]) -> str | None:
    """Return a sentence on how to set an option that only some methods have; None if no method has it."""
    owners = [m for m in methods if key in (f.name for f in dataclasses.fields(METHODS[m].Options))]
    return f"{key} is an option of {owners[0]}: set it as {owners[0]}.{key}" if owners else None
