"""The plan of a benchmark: names and settings become trainings; every mistake is found before the first one starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from ..backbones import resolve
from ..checkpoints.trained import TrainedMethod
from ..data.splits import Splits
from ..errors import ConfigError, CzslkitError, did_you_mean
from ..evaluation.evaluator import EvalOptions
from ..method import METHODS
from ..metrics.names import WORLDS
from ..options import as_dict, config_id, named_files
from ..seeds import seed_problems
from ..training.options import TrainOptions
from ..training_files import BACKBONE_FILE
from .grid import texts_hint
from .recipes import PRESETS
from .resolve import resolve_settings
from .settings import method_problems
from .variant import Variant, variants

#: Settings of ``eval`` that no training depends on, unless the open world selects the epoch with a threshold.
_AFTER_TRAINING = ("threshold", "feasibility", "infeasible")


@dataclass(frozen=True)
class Spec:
    """One training and its evaluations: the method, its settings, and the dataset."""

    method: str
    dataset: str
    seed: int
    worlds: tuple[str, ...]
    options: Any  # options of the method
    train: TrainOptions
    evaluation: EvalOptions
    checkpoint: TrainedMethod | None = None  # evaluated instead of training the method
    varied: str = ""  # settings that have several values in the benchmark, such as "train.lr=0.001"
    recipe: str | None = None  # name such as "cgqa/nayak2023_csp"
    changed: tuple[str, ...] = ()  # settings that differ from the recipe, such as "backbone", "train.epochs"
    published: Mapping[str, Any] = field(default_factory=dict, compare=False)  # by world; only with the preset paper
    shared: tuple[str, ...] = ()  # without a recipe: settings of the preset paper, such as "eval.bins=original"
    label: str = ""  # the name that a user gave its row in the table

    @property
    def name(self) -> str:
        """The label or method, with the settings that have several values, for log lines and rows with a label."""
        return f"{self.label or self.method} {self.varied}".rstrip()

    @property
    def backbone(self) -> str | None:
        """The backbone setting of the method, None if the method has no such option."""
        backbone: str | None = getattr(self.options, "backbone", None)
        return backbone

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """Every setting with its value, ready for JSON; defaults are included, except those of options added later.

        ``eval.stream_seed`` is left out if the method does not stream.
        """
        parts = {"options": self.options, "train": self.train, "eval": self.evaluation}
        sections = {name: as_dict(options, record=True) for name, options in parts.items()}
        if not METHODS[self.method].streams:
            sections["eval"].pop("stream_seed", None)
        if self.checkpoint:
            sections["checkpoint"] = {"digest": self.checkpoint.digest}
            if self.backbone == self.checkpoint.fixed_options.get(
                "backbone"
            ):  # a path that the cell must not depend on
                sections["options"]["backbone"] = self.checkpoint.options.get("backbone", BACKBONE_FILE)
        return sections

    @property
    def selection_threshold(self) -> float | None:
        """The threshold of the open world that selects the epoch; None if the closed world or all pairs select it.

        A threshold that is searched, or belongs to the feasibility of the trained method, is known only afterwards.
        """
        threshold = self.evaluation.threshold
        if self.train.select_world == "closed" or self.checkpoint or self.evaluation.feasibility == "method":
            return None
        return threshold if isinstance(threshold, (int, float)) else None

    def undefined_criterion(self, data: Splits) -> str:
        """Return why the AUC that selects the epoch is undefined; empty if it is defined, or if it selects none."""
        selects = self.train.select == "auc" and self.train.epochs and not self.checkpoint
        return data.undefined_auc("val") if selects else ""

    @property
    def training_config(self) -> dict[str, Mapping[str, Any]]:
        """The settings that the trained weights depend on."""
        return self.training_settings(self.config)

    def training_settings(self, config: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return the settings of a result that its training depends on; what only the test uses is left out."""
        unused = () if self.selection_threshold is not None else _AFTER_TRAINING
        if not METHODS[self.method].streams_in_validation:
            unused = (*unused, "stream_seed")
        return {**config, "eval": {key: value for key, value in config["eval"].items() if key not in unused}}

    def cell(self, world: str) -> dict[str, Any]:
        """Return the keys that identify the result of one world."""
        return {
            "method": self.method,
            "dataset": self.dataset,
            "world": world,
            "seed": self.seed,
            "config_id": config_id(self.config),
        }

    def recipe_info(self, world: str) -> dict[str, Any]:
        """Return the recipe, the settings that differ from it, and the published numbers.

        Without a recipe, return the settings that the preset gave, and nothing without a preset.
        """
        if self.shared:
            return {"preset": {"name": "paper", "shared": list(self.shared)}}
        recipe = {"recipe": {"name": self.recipe, "changed": list(self.changed)}} if self.recipe else {}
        return recipe | ({"published": self.published[world]} if world in self.published else {})


def plan(
    methods: Sequence[str | Variant],
    datasets: Sequence[str],
    worlds: Sequence[str] = WORLDS,
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    checkpoints: Sequence[TrainedMethod] = (),
    recipes: Mapping[str, str | Path] | None = None,
) -> list[Spec]:
    """Return every training of a benchmark, ordered by dataset, then by method, by settings and by seed.

    Args:
        methods: names, or methods with settings of their own.
        settings: ``KEY`` for an option that all the methods have, ``METHOD.KEY`` for an option of a single method,
            ``train.KEY`` and ``eval.KEY`` (or ``METHOD.train.KEY``) for settings of training and evaluation. A
            :class:`~czslkit.runner.grid.Grid` has several values; every combination of such values is planned.
        preset: ``demo`` or ``paper`` selects recipes of ``configs/``. None selects the recipes of the demo world for
            ``demo``, and the methods' own defaults for other datasets. A method without a recipe uses its defaults,
            and with ``paper`` the evaluation settings that most recipes of czslkit for the dataset share, with a
            searched threshold if their thresholds differ; with ``paper``, one of the methods must have a recipe for
            every dataset.
        checkpoints: trained methods that are evaluated without training; their options override those of a recipe.
        recipes: recipe files by method; each replaces the recipes of its method on every dataset.

    Raises:
        ConfigError: methods, worlds, keys or values are unknown; the message lists all of them.
    """
    settings, recipes = settings or {}, recipes or {}
    asked = [replace(v, recipe=recipes.get(v.method, v.recipe)) for v in variants(methods)]
    names = list(dict.fromkeys(variant.method for variant in asked))
    problems = [
        *_method_problems(asked, seeds),
        *_name_problems(datasets, worlds, seeds, preset),
        *_checkpoint_problems(names, seeds, settings, checkpoints),
        *(f"recipe {recipes[m]} is for {m}, which is not among the methods" for m in recipes if m not in names),
    ]
    if problems:
        raise ConfigError(problems)
    given = {checkpoint.method: checkpoint for checkpoint in checkpoints}
    trained = [_trained(variant, problems) or given.get(variant.method) for variant in asked]
    specs: list[Spec] = []
    for dataset in datasets:
        for variant, checkpoint in zip(asked, trained, strict=True):
            try:
                found = resolve_settings(variant, dataset, settings, preset, names, checkpoint)
            except ConfigError as error:
                problems += [problem for problem in variant.located(error.problems) if problem not in problems]
                continue
            own: dict[str, Any] = {"checkpoint": checkpoint, "label": variant.label}
            grid = product(found, seeds)
            specs += _different(
                Spec(variant.method, dataset, seed, tuple(worlds), **own, **vars(one)) for one, seed in grid
            )
    if preset == "paper" and not problems:
        problems += _datasets_without_recipe(names, datasets, specs)
    problems += [*_same_settings(specs), *_file_problems(specs)]
    if problems:
        raise ConfigError(problems)
    return specs


def _different(specs: Iterable[Spec]) -> list[Spec]:
    """Return the trainings without those of the same seed and settings, such as two spellings of one number."""
    found: dict[tuple[int, str], Spec] = {}
    for spec in specs:
        found.setdefault((spec.seed, config_id(spec.config)), spec)
    return list(found.values())


def _trained(variant: Variant, problems: list[str]) -> TrainedMethod | None:
    """Return the trained method that a variant names, None without one; add to ``problems`` why it cannot be used."""
    if variant.checkpoint is None:
        return None
    try:
        found = TrainedMethod.read(variant.checkpoint)
        if found.method != variant.method:
            raise ConfigError([f"{found.folder} holds {found.method}, expected {variant.method}"])
    except CzslkitError as error:
        problems += variant.located(str(error).split("\n"))
        return None
    return found


def _same_settings(specs: Sequence[Spec]) -> Iterator[str]:
    """Yield a message for each variant that has the settings of an earlier variant of the same method."""
    found: dict[tuple[str, str, int, str], str] = {}
    messages = []
    for spec in specs:
        key = (spec.dataset, spec.method, spec.seed, config_id(spec.config))
        if key in found:
            messages.append(
                f"{spec.name} has the same settings as {found[key]} on {spec.dataset}: change or leave out one"
            )
        found.setdefault(key, spec.name)
    yield from dict.fromkeys(messages)


def _file_problems(specs: Sequence[Spec]) -> Iterator[str]:
    """Yield a message for each backbone setting that cannot be found, and for each missing file of an option."""
    for backbone in dict.fromkeys(spec.backbone for spec in specs if spec.backbone):
        try:
            resolve(backbone)
        except CzslkitError as error:
            yield str(error)
            if hint := texts_hint(backbone):
                yield f"backbone: {hint}"
    yield from dict.fromkeys(
        f"{spec.method}: {option} is {path}, which does not exist"
        for spec in specs
        for option, paths in named_files(spec.options).items()
        for path in paths
        if not path.exists()
    )


def _method_problems(asked: Sequence[Variant], seeds: Sequence[int]) -> Iterator[str]:
    """Yield a message for each mistake in the names, labels and checkpoints of methods."""
    if not asked:
        yield "no method to run"
    plain = [variant.method for variant in asked if not variant.places and variant == Variant(variant.method)]
    yield from (f"method {x!r} is asked for twice" for x in dict.fromkeys(plain) if plain.count(x) > 1)
    labels = [variant.label for variant in asked if variant.label]
    yield from (f"label {x!r} is given twice" for x in dict.fromkeys(labels) if labels.count(x) > 1)
    first: dict[str, Variant] = {}
    for variant in asked:
        first.setdefault(variant.method, variant)
        if variant.checkpoint is not None and len(seeds) > 1:
            problem = f"checkpoint is {variant.checkpoint}, which is evaluated for one seed, not for {len(seeds)} seeds"
            yield from variant.located([problem])
    for variant in first.values():
        try:
            yield from method_problems(variant.method, METHODS[variant.method])
        except CzslkitError as error:
            yield from variant.located([str(error)])


def _name_problems(
    datasets: Sequence[str], worlds: Sequence[str], seeds: Sequence[int], preset: str | None
) -> Iterator[str]:
    """Yield a message for each mistake in the names and seeds of the grid, apart from its methods."""
    yield from (f"no world named {w!r}. Known: {', '.join(WORLDS)}." for w in worlds if w not in WORLDS)
    if preset not in (None, *PRESETS):
        yield f"no preset named {preset!r}.{did_you_mean(str(preset), PRESETS)} Known: {', '.join(PRESETS)}."
    for kind, asked in (("dataset", datasets), ("world", worlds), ("seed", seeds)):
        if not asked:
            yield f"no {kind} to run"
        yield from (f"{kind} {x!r} is asked for twice" for x in dict.fromkeys(asked) if list(asked).count(x) > 1)
    yield from seed_problems(*seeds)


def _datasets_without_recipe(methods: Sequence[str], datasets: Sequence[str], specs: Sequence[Spec]) -> Iterator[str]:
    """Yield a message for each dataset for which no method has a recipe."""
    with_recipe = {spec.dataset for spec in specs if spec.recipe}
    for dataset in datasets:
        if dataset not in with_recipe:
            yield (
                f"preset 'paper': none of the methods ({', '.join(methods)}) has a recipe for {dataset}, "
                f"configs/{dataset}/*_METHOD.yaml. Leave out the preset, or give a recipe with --recipe."
            )


def _checkpoint_problems(
    methods: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Any], checkpoints: Sequence[TrainedMethod]
) -> Iterator[str]:
    """Yield a message for each checkpoint or setting that does not fit an evaluation without training."""
    given = {checkpoint.method: checkpoint for checkpoint in checkpoints}
    for checkpoint in checkpoints:
        if given[checkpoint.method] is not checkpoint or checkpoint.method not in methods:
            reason = (
                "another checkpoint holds it too" if checkpoint.method in methods else "it is not among the methods"
            )
            yield f"{checkpoint.folder} holds {checkpoint.method}, but {reason}"
    if given and len(seeds) > 1:
        yield f"a checkpoint is evaluated for one seed, not for {len(seeds)} seeds"
    if given and given.keys() == set(methods):
        unused = (key for key in settings if "train" in key.split(".")[:-1])
        yield from (f"{key} does nothing: no method is trained, because all come from checkpoints" for key in unused)
