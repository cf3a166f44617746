"""From names and settings to what is to be run; every mistake is found before anything starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backbones import resolve
from ..checkpoints.trained import BACKBONE_FILE, TrainedMethod
from ..errors import ConfigError, CzslkitError, did_you_mean
from ..evaluation.evaluator import EvalOptions
from ..method import METHODS
from ..metrics.names import WORLDS
from ..options import as_dict
from ..training.loop import TrainOptions
from .recipes import load_recipe, recipes
from .settings import PRESETS, SECTION_NAMES, parse_sections


@dataclass(frozen=True)
class Spec:
    """One training and its evaluations: what to build, from which settings, on what."""

    method: str
    dataset: str
    seed: int
    worlds: tuple[str, ...]
    options: Any
    train: TrainOptions
    evaluation: EvalOptions
    checkpoint: TrainedMethod | None = None  # evaluated as it is, in place of a training
    recipe: str | None = None  # "cgqa/nayak2023_csp"
    changed: tuple[str, ...] = ()  # settings that are not the recipe's: "backbone", "train.epochs"
    published: Mapping[str, Any] = field(default_factory=dict, compare=False)  # by world, of the preset ``paper``

    @property
    def backbone(self) -> str | None:
        """The setting of that name, if the method has one."""
        backbone: str | None = getattr(self.options, "backbone", None)
        return backbone

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """Every setting with its value, defaults included, ready for JSON."""
        sections = {"options": as_dict(self.options), "train": as_dict(self.train), "eval": as_dict(self.evaluation)}
        if self.checkpoint:
            sections["checkpoint"] = {"digest": self.checkpoint.digest}
            if self.backbone == self.checkpoint.fixed_options.get("backbone"):  # wherever the folder is
                sections["options"]["backbone"] = self.checkpoint.options.get("backbone", BACKBONE_FILE)
        return sections


def plan(
    methods: Sequence[str],
    datasets: Sequence[str],
    worlds: Sequence[str] = WORLDS,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    checkpoints: Sequence[TrainedMethod] = (),
) -> list[Spec]:
    """Every training of a benchmark, method by method within each dataset.

    Args:
        settings: ``KEY`` for an option that all the methods have, ``METHOD.KEY`` for one of a single
            method, ``train.KEY`` and ``eval.KEY`` (or ``METHOD.train.KEY``) for how to train and evaluate.
        preset: ``demo`` or ``paper`` takes the recipes of ``configs/``; None those of the demo world for
            ``demo``, and the methods' own defaults elsewhere.
        checkpoints: of some of the methods, which are not trained then; their options stand above a recipe's.

    Raises:
        ConfigError: unknown methods, worlds, keys or values, all of them.
    """
    problems = [f"no world named {w!r}. Known: {', '.join(WORLDS)}." for w in worlds if w not in WORLDS]
    if preset not in (None, *PRESETS):
        problems.append(f"no preset named {preset!r}.{did_you_mean(str(preset), PRESETS)} Known: {', '.join(PRESETS)}.")
    for kind, asked in (("method", methods), ("dataset", datasets), ("world", worlds), ("seed", seeds)):
        if not asked:
            problems.append(f"no {kind} to run")
        problems += [f"{kind} {x!r} is asked for twice" for x in dict.fromkeys(asked) if list(asked).count(x) > 1]
    given = {saved.method: saved for saved in checkpoints}
    problems += [
        f"{saved.folder} holds {saved.method}, which is {'asked for twice' if saved.method in methods else 'not run'}"
        for saved in checkpoints
        if given[saved.method] is not saved or saved.method not in methods
    ]
    if given and len(seeds) > 1:
        problems.append(f"a checkpoint is evaluated once, not for the {len(seeds)} seeds asked for")
    if given and given.keys() == set(methods):
        problems += [
            f"{key} does nothing: nothing is trained beside a checkpoint"
            for key in settings or {}
            if "train" in key.split(".")[:-1]
        ]
    problems += [f"seed {s!r} is not a whole number from 0 up" for s in seeds if not (isinstance(s, int) and s >= 0)]
    for name in dict.fromkeys(methods):
        try:
            METHODS[name]
        except CzslkitError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    specs: list[Spec] = []
    for dataset in datasets:
        for name in methods:
            try:
                settled = _settled(name, dataset, settings or {}, preset, methods, given.get(name))
            except ConfigError as error:
                problems += [p for p in error.problems if p not in problems]
                continue
            specs += [Spec(name, dataset, seed, tuple(worlds), **settled) for seed in seeds]
    for backbone in dict.fromkeys(spec.backbone for spec in specs if spec.backbone):
        try:
            resolve(backbone)
        except CzslkitError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    return specs


def _settled(
    name: str,
    dataset: str,
    settings: Mapping[str, Any],
    preset: str | None,
    methods: Sequence[str],
    saved: TrainedMethod | None,
) -> dict[str, Any]:
    """What all specs of one method on one dataset have in common: parsed settings, and where they are from."""
    cls, path = METHODS[name], _recipe(name, dataset, preset)
    recipe = load_recipe(path) if path else {}
    layers = {section: dict(recipe.get(section, {})) for section in SECTION_NAMES}
    if saved:
        layers["options"].update(saved.fixed_options)
    for key, value in sorted(settings.items(), key=lambda item: item[0].split(".")[0] in methods):
        own = key.split(".")[0]
        if own in methods and own != name:
            continue
        rest = key.removeprefix(f"{name}.") if own == name else key
        section, dot, option = rest.partition(".")
        if not dot:
            section, option = "options", rest
        if section not in layers:
            raise ConfigError(
                [f"{key}: {section} is neither one of the methods ({', '.join(methods)}) nor train nor eval"]
            )
        layers[section][option] = value
    if saved:  # whatever the others are trained with
        layers["train"]["epochs"] = 0
    try:
        parsed = parse_sections(cls, layers, {"options": name, "train": f"{name}.train", "eval": f"{name}.eval"})
    except ConfigError as error:
        known = {field.name for field in dataclasses.fields(cls.Options)}
        foreign = [key for key in settings if key in layers["options"] and key not in known]
        hints = (_hint(key, [m for m in methods if m != name]) for key in foreign)
        raise ConfigError([*error.problems, *(hint for hint in hints if hint)]) from None
    settled = {
        "options": parsed["options"],
        "train": parsed["train"],
        "evaluation": parsed["eval"],
        "checkpoint": saved,
    }
    if path:
        settled["recipe"] = f"{path.parent.name}/{path.stem}"
        changed = _changed(parse_sections(cls, recipe, dict.fromkeys(SECTION_NAMES, "")), parsed, trained=not saved)
        settled["changed"] = changed + ((f"weights (those in {saved.folder.name}, not trained here)",) if saved else ())
        settled["published"] = recipe["expected"] if preset == "paper" else {}
    return settled


def _changed(recipe: Mapping[str, Any], asked: Mapping[str, Any], *, trained: bool) -> tuple[str, ...]:
    """Settings whose values are not the recipe's, as ``--set`` names them; of those that matter."""
    return tuple(
        key if section == "options" else f"{section}.{key}"
        for section in SECTION_NAMES
        if trained or section != "train"
        for key, value in as_dict(asked[section]).items()
        if value != as_dict(recipe[section])[key]
    )


def _hint(key: str, methods: Sequence[str]) -> str | None:
    """How to set an option that only some methods have."""
    having = [m for m in methods if key in (f.name for f in dataclasses.fields(METHODS[m].Options))]
    return f"{key} is an option of {having[0]}: set it as {having[0]}.{key}" if having else None


def _recipe(name: str, dataset: str, preset: str | None) -> Path | None:
    """What the preset follows for a method on a dataset; None where there is no preset."""
    if preset is None and dataset != "demo":
        return None
    folder = dataset if preset == "paper" else "demo"
    found = recipes(folder, name)
    if len(found) == 1:
        return found[0]
    if preset != "paper" and not found:  # a method from elsewhere: its own recipe stands
        return None
    raise ConfigError(
        [
            f"preset {preset!r} needs one recipe of {name} for {dataset}, "
            f"configs/{folder}/*_{name}.yaml; found {len(found)}"
        ]
    )
