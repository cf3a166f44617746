"""The settings of one method on one dataset, merged from recipe, checkpoint and user."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..checkpoints.trained import TrainedMethod
from ..errors import ConfigError
from ..evaluation.evaluator import EvalOptions
from ..method import METHODS, Method
from ..options import as_dict, is_recorded, user_path
from ..training.options import TrainOptions
from .grid import Key, configurations
from .recipes import load_recipe, recipe_for, shared_evaluation
from .setting_keys import hints, suggestion
from .settings import SECTION_NAMES, SECTIONS, parse_sections
from .variant import Variant


@dataclass(frozen=True)
class Resolved:
    """The parsed settings of a method on a dataset, and the recipe that they follow."""

    options: Any  # options of the method
    train: TrainOptions
    evaluation: EvalOptions
    varied: str  # settings of the user that have several values, with the value here, such as "train.lr=0.001"
    recipe: str | None  # name such as "cgqa/nayak2023_csp"; None without a recipe
    changed: tuple[str, ...]  # settings that differ from the recipe, such as "backbone", "train.epochs"
    published: Mapping[str, Any]  # published numbers of the recipe, by world
    shared: tuple[str, ...] = ()  # settings of the dataset's recipes for a method without one: "eval.bins=original"


def resolve_settings(
    variant: Variant,
    dataset: str,
    settings: Mapping[str, Any],
    preset: str | None,
    methods: Sequence[str],
    checkpoint: TrainedMethod | None,
) -> list[Resolved]:
    """Merge the settings of recipe, checkpoint, variant and user; a later one of these overrides an earlier one.

    Args:
        variant: the method with settings of its own. The published numbers of its recipe file are used only on the
            dataset whose name the folder of the file has.
        settings: settings of the user, as :func:`czslkit.runner.plan.plan` takes them.
        methods: all methods of the benchmark; a key may begin with the name of a method.
        checkpoint: the trained method; if it is given, nothing is trained.

    Returns:
        A configuration for each combination of values, if settings have several values.

    Raises:
        ConfigError: keys are unknown or values cannot be used; the message lists all of them.
    """
    name, given_recipe = variant.method, variant.recipe
    cls = METHODS[name]
    path = user_path(given_recipe).resolve() if given_recipe else recipe_for(name, dataset, preset)
    recipe = load_recipe(path, name if given_recipe else None) if path else {}
    if path is None and preset == "paper":
        recipe = {"eval": shared_evaluation(dataset)}
    sections = {section: dict(recipe.get(section, {})) for section in SECTION_NAMES}
    if checkpoint:
        sections["options"].update(checkpoint.fixed_options)
    own = _settings_of_method(name, variant.settings, methods) | _settings_of_method(name, settings, methods)
    found: list[Resolved] = []
    problems: list[str] = []
    for values, varied in configurations(own, {"options": cls.Options, **SECTIONS}, name):
        try:
            parsed = _parse(cls, sections, values, name, trained=not checkpoint)
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
            continue
        found.append(Resolved(parsed["options"], parsed["train"], parsed["eval"], varied, None, (), {}))
    if problems:
        raise ConfigError([*problems, *hints(cls, own, methods, problems)])
    if path is None:
        shared = recipe.get("eval", {})
        return [dataclasses.replace(one, shared=_shared_settings(shared, one.evaluation)) for one in found]
    recipe_settings = parse_sections(cls, recipe, dict.fromkeys(SECTION_NAMES, ""))
    is_published = path.parent.name == dataset and (preset == "paper" or given_recipe)
    published = recipe["expected"] if is_published else {}
    return [
        dataclasses.replace(
            one,
            recipe=f"{path.parent.name}/{path.stem}",
            changed=_changed_settings(recipe_settings, one, checkpoint),
            published=published,
        )
        for one in found
    ]


def _parse(
    cls: type[Method],
    sections: Mapping[str, Mapping[str, Any]],
    values: Mapping[Key, Any],
    name: str,
    *,
    trained: bool,
) -> dict[str, Any]:
    """Parse the settings of one configuration.

    Args:
        sections: settings of the recipe and the checkpoint.
        values: settings of the user, which override them.
        trained: False sets the number of epochs to 0; ``train.epochs`` of the user is then for other methods.

    Raises:
        ConfigError: keys are unknown or values cannot be used.
    """
    merged = {section: dict(options) for section, options in sections.items()}
    for (section, option), value in values.items():
        merged[section][option] = value
    if not trained:
        merged["train"]["epochs"] = 0
    return parse_sections(cls, merged, {"options": name, "train": f"{name}.train", "eval": f"{name}.eval"})


def _settings_of_method(name: str, settings: Mapping[str, Any], methods: Sequence[str]) -> dict[Key, Any]:
    """Return the settings of one method, by section and option; ``METHOD.KEY`` overrides ``KEY``.

    Raises:
        ConfigError: a key begins with something that is neither a method nor a section.
    """
    found: dict[Key, Any] = {}
    for key, value in sorted(settings.items(), key=lambda item: item[0].split(".")[0] in methods):
        first = key.split(".")[0]
        if first in methods and first != name:
            continue
        path = key.removeprefix(f"{name}.") if first == name else key
        section, _, option = path.partition(".") if "." in path else ("options", "", path)
        if section not in SECTION_NAMES:
            fault = f"{key}: {section} is neither one of the methods ({', '.join(methods)}) nor train nor eval."
            raise ConfigError([fault + suggestion(option, methods)])
        found[section, option] = value
    return found


def _shared_settings(shared: Mapping[str, Any], used: EvalOptions) -> tuple[str, ...]:
    """Return the shared evaluation settings that the user has not changed, as texts."""
    values = as_dict(used)
    return tuple(f"eval.{key}={value}" for key, value in shared.items() if values[key] == value)


def _changed_settings(recipe: Mapping[str, Any], used: Resolved, checkpoint: TrainedMethod | None) -> tuple[str, ...]:
    """Return the keys of the settings that differ from the recipe; without a training, no key of ``train``."""
    parts = {"options": used.options, "train": used.train, "eval": used.evaluation}
    changed = tuple(
        key if section == "options" else f"{section}.{key}"
        for section, options in parts.items()
        if not (checkpoint and section == "train")
        for key, value in as_dict(options).items()
        if value != as_dict(recipe[section])[key] and is_recorded(options, key)
    )
    return changed + (
        (f"weights (those in {checkpoint.origin or checkpoint.folder.name}, not trained here)",) if checkpoint else ()
    )
