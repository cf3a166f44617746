"""From names and settings to what is to be run; every mistake is found before anything starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .backbones import resolve
from .errors import ConfigError, CzslkitError, did_you_mean
from .evaluation.evaluator import EvalOptions
from .method import METHODS
from .options import as_dict, parse
from .train import TrainOptions

SECTIONS: Mapping[str, type] = {"train": TrainOptions, "eval": EvalOptions}
WORLDS = ("closed", "open")
PRESETS = ("demo", "paper")


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

    @property
    def backbone(self) -> str | None:
        """The setting of that name, if the method has one."""
        backbone: str | None = getattr(self.options, "backbone", None)
        return backbone

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """Every setting with its value, defaults included, ready for JSON."""
        return {"options": as_dict(self.options), "train": as_dict(self.train), "eval": as_dict(self.evaluation)}


def plan(
    methods: Sequence[str],
    datasets: Sequence[str],
    worlds: Sequence[str] = WORLDS,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> list[Spec]:
    """Every training of a benchmark, method by method within each dataset.

    Args:
        settings: ``KEY`` for an option that all the methods have, ``METHOD.KEY`` for one of a single
            method, ``train.KEY`` and ``eval.KEY`` (or ``METHOD.train.KEY``) for how to train and evaluate.
        preset: ``demo`` or ``paper`` takes the recipes of ``configs/``; None those of the demo world for
            ``demo``, and the methods' own defaults elsewhere.

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
                sections = _parsed(name, dataset, settings or {}, preset, methods)
            except ConfigError as error:
                problems += [p for p in error.problems if p not in problems]
                continue
            specs += [Spec(name, dataset, seed, tuple(worlds), *sections) for seed in seeds]
    for backbone in dict.fromkeys(spec.backbone for spec in specs if spec.backbone):
        try:
            resolve(backbone)
        except CzslkitError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    return specs


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


def recipes(folder: str, method: str) -> list[Path]:
    """The recipe files of a method for a dataset, ``configs/<dataset>/<paper><year>_<method>.yaml``."""
    return sorted(p for p in (configs() / folder).glob("*.yaml") if p.stem.partition("_")[2] == method)


def configs() -> Path:
    """The folder of recipes: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def load_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """The ``options``, ``train`` and ``eval`` of a recipe.

    Raises:
        ConfigError: not a recipe.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot be read as YAML: {error}"]) from error
    known = ("method", "source", "options", "train", "eval")
    if not isinstance(content, dict) or content.get("method") is None:
        raise ConfigError([f"{path}: a recipe names its method; expected {', '.join(known)}"])
    if unknown := [key for key in content if key not in known]:
        raise ConfigError([f"{path}: {key} is not part of a recipe; expected {', '.join(known)}" for key in unknown])
    return {key: content.get(key) or {} for key in ("options", "train", "eval")}


def _parsed(
    name: str, dataset: str, settings: Mapping[str, Any], preset: str | None, methods: Sequence[str]
) -> tuple[Any, Any, Any]:
    """The three parsed sections of one method on one dataset."""
    cls = METHODS[name]
    layers: dict[str, dict[str, Any]] = {"options": {}, "train": dict(cls.recipe), "eval": {}}
    for section, values in _recipe(name, dataset, preset).items():
        layers[section].update(values)
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
    problems: list[str] = []
    parsed: list[Any] = []
    for section, schema in {"options": cls.Options, **SECTIONS}.items():
        try:
            parsed.append(parse(schema, layers[section], where=name if section == "options" else f"{name}.{section}"))
        except ConfigError as error:
            problems += error.problems
    if problems:
        known = {field.name for field in dataclasses.fields(cls.Options)}
        foreign = [key for key in settings if key in layers["options"] and key not in known]
        hints = (_hint(key, [m for m in methods if m != name]) for key in foreign)
        raise ConfigError([*problems, *(hint for hint in hints if hint)])
    options, train, evaluation = parsed
    return options, train, evaluation


def _hint(key: str, methods: Sequence[str]) -> str | None:
    """How to set an option that only some methods have."""
    having = [m for m in methods if key in (f.name for f in dataclasses.fields(METHODS[m].Options))]
    return f"{key} is an option of {having[0]}: set it as {having[0]}.{key}" if having else None


def _recipe(name: str, dataset: str, preset: str | None) -> dict[str, dict[str, Any]]:
    """What the preset says of a method on a dataset; nothing where there is no preset."""
    if preset is None and dataset != "demo":
        return {}
    folder = dataset if preset == "paper" else "demo"
    found = recipes(folder, name)
    if len(found) == 1:
        return load_recipe(found[0])
    if preset != "paper" and not found:  # a method from elsewhere: its own recipe stands
        return {}
    raise ConfigError(
        [
            f"preset {preset!r} needs one recipe of {name} for {dataset}, "
            f"configs/{folder}/*_{name}.yaml; found {len(found)}"
        ]
    )
