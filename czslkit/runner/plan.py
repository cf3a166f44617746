"""From names and settings to the trainings of a benchmark; every mistake is found before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..backbones import resolve
from ..checkpoints.trained import BACKBONE_FILE, TrainedMethod
from ..errors import ConfigError, CzslkitError, did_you_mean
from ..evaluation.evaluator import EvalOptions
from ..method import METHODS
from ..metrics.names import WORLDS
from ..options import as_dict, config_id
from ..training.options import TrainOptions
from .recipes import PRESETS
from .resolve import resolve_settings

#: Settings of ``eval`` that no training depends on; the others choose the epoch that is kept.
_AFTER_TRAINING = ("threshold", "feasibility", "infeasible")


@dataclass(frozen=True)
class Spec:
    """One training and its evaluations: the method, its settings, and the dataset."""

    method: str
    dataset: str
    seed: int
    worlds: tuple[str, ...]
    options: Any  # the method's own
    train: TrainOptions
    evaluation: EvalOptions
    checkpoint: TrainedMethod | None = None  # evaluated in place of a training
    recipe: str | None = None  # "cgqa/nayak2023_csp"
    changed: tuple[str, ...] = ()  # settings whose value is not the recipe's: "backbone", "train.epochs"
    published: Mapping[str, Any] = field(default_factory=dict, compare=False)  # by world, with the preset ``paper``

    @property
    def backbone(self) -> str | None:
        """The backbone that the method is set to, None if the method has no such option."""
        backbone: str | None = getattr(self.options, "backbone", None)
        return backbone

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """Every setting with its value, defaults included, ready for JSON."""
        sections = {"options": as_dict(self.options), "train": as_dict(self.train), "eval": as_dict(self.evaluation)}
        if self.checkpoint:
            sections["checkpoint"] = {"digest": self.checkpoint.digest}
            if self.backbone == self.checkpoint.fixed_options.get("backbone"):  # the folder may lie anywhere
                sections["options"]["backbone"] = self.checkpoint.options.get("backbone", BACKBONE_FILE)
        return sections

    @property
    def training_config(self) -> dict[str, dict[str, Any]]:
        """The settings that the trained weights depend on; ``eval`` settings that only the test uses are left out."""
        config = self.config
        return {**config, "eval": {key: value for key, value in config["eval"].items() if key not in _AFTER_TRAINING}}

    def cell(self, world: str) -> dict[str, Any]:
        """Return what names the result of one world."""
        return {
            "method": self.method,
            "dataset": self.dataset,
            "world": world,
            "seed": self.seed,
            "config_id": config_id(self.config),
        }

    def recipe_info(self, world: str) -> dict[str, Any]:
        """Return the recipe, the settings that differ from it, and the published numbers; empty without a recipe."""
        recipe = {"recipe": {"name": self.recipe, "changed": list(self.changed)}} if self.recipe else {}
        return recipe | ({"published": self.published[world]} if world in self.published else {})


def plan(
    methods: Sequence[str],
    datasets: Sequence[str],
    worlds: Sequence[str] = WORLDS,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    checkpoints: Sequence[TrainedMethod] = (),
) -> list[Spec]:
    """Return every training of a benchmark, method by method within each dataset.

    Args:
        settings: ``KEY`` for an option that all the methods have, ``METHOD.KEY`` for an option of a single method,
            ``train.KEY`` and ``eval.KEY`` (or ``METHOD.train.KEY``) for how to train and evaluate.
        preset: ``demo`` or ``paper`` takes the recipes of ``configs/``. None takes the recipes of the demo world for
            ``demo``, and the methods' own defaults for other datasets.
        checkpoints: trained methods that are evaluated without training; their options win over a recipe's.

    Raises:
        ConfigError: unknown methods, worlds, keys or values, all of them.
    """
    settings = settings or {}
    problems = [
        *_name_problems(methods, datasets, worlds, seeds, preset),
        *_checkpoint_problems(methods, seeds, settings, checkpoints),
    ]
    if problems:
        raise ConfigError(problems)
    given = {checkpoint.method: checkpoint for checkpoint in checkpoints}
    specs: list[Spec] = []
    for dataset in datasets:
        for name in methods:
            try:
                found = resolve_settings(name, dataset, settings, preset, methods, given.get(name))
            except ConfigError as error:
                problems += [problem for problem in error.problems if problem not in problems]
                continue
            specs += [
                Spec(name, dataset, seed, tuple(worlds), checkpoint=given.get(name), **vars(found)) for seed in seeds
            ]
    for backbone in dict.fromkeys(spec.backbone for spec in specs if spec.backbone):
        try:
            resolve(backbone)
        except CzslkitError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    return specs


def _name_problems(
    methods: Sequence[str], datasets: Sequence[str], worlds: Sequence[str], seeds: Sequence[int], preset: str | None
) -> Iterator[str]:
    """Yield what is wrong with the names and numbers that span the grid."""
    yield from (f"no world named {w!r}. Known: {', '.join(WORLDS)}." for w in worlds if w not in WORLDS)
    if preset not in (None, *PRESETS):
        yield f"no preset named {preset!r}.{did_you_mean(str(preset), PRESETS)} Known: {', '.join(PRESETS)}."
    for kind, asked in (("method", methods), ("dataset", datasets), ("world", worlds), ("seed", seeds)):
        if not asked:
            yield f"no {kind} to run"
        yield from (f"{kind} {x!r} is asked for twice" for x in dict.fromkeys(asked) if list(asked).count(x) > 1)
    yield from (f"seed {s!r} is not a whole number from 0 up" for s in seeds if not (isinstance(s, int) and s >= 0))
    for name in dict.fromkeys(methods):
        try:
            METHODS[name]
        except CzslkitError as error:
            yield str(error)


def _checkpoint_problems(
    methods: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Any], checkpoints: Sequence[TrainedMethod]
) -> Iterator[str]:
    """Yield what is wrong with the checkpoints that stand in for trainings."""
    given = {checkpoint.method: checkpoint for checkpoint in checkpoints}
    for checkpoint in checkpoints:
        if given[checkpoint.method] is not checkpoint or checkpoint.method not in methods:
            fate = "asked for twice" if checkpoint.method in methods else "not run"
            yield f"{checkpoint.folder} holds {checkpoint.method}, which is {fate}"
    if given and len(seeds) > 1:
        yield f"a checkpoint is evaluated once, not for the {len(seeds)} seeds asked for"
    if given and given.keys() == set(methods):
        unused = (key for key in settings if "train" in key.split(".")[:-1])
        yield from (f"{key} does nothing: nothing is trained beside a checkpoint" for key in unused)
