"""The four conformance checks, and the check of a name of any kind."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..backbones import load_backbone, resolve
from ..components import BACKBONES
from ..errors import ConfigError, did_you_mean
from ..method import METHODS, class_problems
from ..options import parse
from ..registry import RESERVED, registries, unknown_name
from .backbone_checks import BACKBONE_CHECKS, BackboneTrial
from .component_checks import REGISTRIES as COMPONENTS
from .component_checks import ComponentTrial, component_checks
from .dataset_checks import DATASET_CHECKS, DatasetTrial
from .evaluation_checks import EVALUATION_CHECKS, the_evaluator_gives_the_scores_of_the_trained_method
from .method_checks import DECLARATION_CHECKS, METHOD_SCORE_CHECKS, a_loss_reaches_every_parameter
from .report import Report, run_checks
from .training_checks import TRAINING_CHECKS
from .trial import MethodTrial

METHOD_CHECKS = (
    *DECLARATION_CHECKS,
    *METHOD_SCORE_CHECKS,
    a_loss_reaches_every_parameter,
    *EVALUATION_CHECKS,
    *TRAINING_CHECKS,
    the_evaluator_gives_the_scores_of_the_trained_method,
)


def check_method(name: str, **options: Any) -> Report:
    """Check a registered method with real images, trainings of some epochs, evaluations and a benchmark.

    Args:
        name: registered name of the method.
        options: options of the method. If ``backbone`` is not given and its default is a CLIP or timm model, which
            would be downloaded, the ``demo`` backbone is used.

    Raises:
        ConformanceError: some checks failed; the message has each of them and what to change.
        ConfigError: the method does not have some options, or cannot use their values.
        UnknownNameError: no method has the name.

    >>> check_method("csp", backbone="demo").passed
    True
    """
    return method_report(name, options).raise_if_failed()


def check_backbone(setting: str, **options: Any) -> Report:
    """Check a registered backbone: its features, its text tower, its freezing and its adapters.

    Args:
        setting: as in the option ``backbone`` of a method, such as ``demo`` or ``timm/resnet18``.
        options: other arguments of ``load_backbone``.

    Raises:
        ConformanceError: some checks failed; the message has each of them and what to change.
        ConfigError: ``load_backbone`` has no such argument.
        UnknownNameError: no backbone has the name.

    >>> check_backbone("demo").passed
    True
    """
    return backbone_report(setting, options).raise_if_failed()


def check_dataset(name: str, root: str | Path | None = None) -> Report:
    """Check a dataset: its lists, its images, its splits and the files that its results depend on.

    Args:
        name: registered name of the dataset, or the name of a folder in ``root``.
        root: folder of all datasets; ``$CZSLKIT_DATA`` or ``./data`` if None. A dataset that is absent there is made in
            a temporary folder.

    Raises:
        ConformanceError: some checks failed; the message has each of them and what to change.
        UnknownNameError: no dataset has the name.
    """
    return dataset_report(name, root).raise_if_failed()


def check_component(name: str, *, kind: str | None = None, **options: Any) -> Report:
    """Check an aggregator, an interaction or a head in a small method on the demo backbone.

    Args:
        name: registered name of the component.
        kind: ``aggregator``, ``interaction`` or ``head``, if several kinds have the name.
        options: arguments of the component's class. Arguments that are called ``dim``, ``scale``, ``attrs``, ``objs``,
            ``space`` and ``backbone`` are filled in. ``aggregator``, ``interaction`` and ``head`` are registered names
            of the other components of the method.

    Raises:
        ConformanceError: some checks failed; the message has each of them and what to change.
        ConfigError: the class has no such argument.
        UnknownNameError: no component has the name.

    >>> check_component("two_stage", aggregator="low_high", heads=(4, 4)).passed
    True
    """
    return component_report(name, kind or kind_of(name), options).raise_if_failed()


def kind_of(name: str) -> str:
    """Return the kind of a registered name; the name of a backbone may have an argument, such as ``timm/resnet18``.

    Raises:
        UnknownNameError: nothing has the name.
        ConfigError: several kinds have the name, or one that has no checks.
    """
    all_registries = registries()
    all_found = sorted(kind for kind, registry in all_registries.items() if name in registry)
    found = [kind for kind in all_found if kind in ("method", "backbone", "dataset", *COMPONENTS)]
    if all_found and not found:
        raise ConfigError([f"{name} is a {all_found[0]}, and no checks are known for it"])
    if not found and name.partition("/")[0] in BACKBONES:
        found = ["backbone"]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError([f"{name} is the name of a {' and of a '.join(found)}: say which with --kind"])
    known = sorted({known for registry in all_registries.values() for known in registry})
    raise unknown_name(
        name,
        f"nothing is registered as {name!r}.{did_you_mean(name, known)} A dataset that is only a folder is checked "
        "with --kind dataset, and its images by 'czslkit data verify'.",
    )


def option_problems(name: str, kind: str, options: Mapping[str, Any]) -> list[str]:
    """Return the options of a check that the checked class does not have, or whose values it cannot take.

    A mistake in the class itself is left to the checks.
    """
    sections = [key for key in options if key.partition(".")[0] in RESERVED]
    problems = [
        f"{name}: {key} cannot be set: checks choose the settings of training and evaluation" for key in sections
    ]
    options = {key: value for key, value in options.items() if key not in sections}
    if kind == "method":
        try:
            if options and not class_problems(METHODS[name], where=name):
                parse(METHODS[name].Options, options, where=name)
        except ConfigError as error:
            problems += error.problems
    elif (known := _known_options(name, kind)) is not None:
        wrong = [key for key in options if key not in known]
        listed = ", ".join(known) or "none"
        problems += [f"{name}: {key} is not an option.{did_you_mean(key, known)} Known: {listed}." for key in wrong]
    return problems


def _known_options(name: str, kind: str) -> list[str] | None:
    """Return the options of a backbone, a dataset or a component; None if it takes any."""
    if kind == "dataset":
        return []
    function: Any = load_backbone if kind == "backbone" else COMPONENTS[kind][name].__init__
    parameters = list(inspect.signature(function).parameters.values())[1:]  # without self, or the setting
    if function is not torch.nn.Module.__init__ and any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    own = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return own if kind == "backbone" else [*own, *(other for other in COMPONENTS if other != kind)]


def _refuse_options(name: str, kind: str, options: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` with the problems of :func:`option_problems`, if there are any."""
    if problems := option_problems(name, kind, options):
        raise ConfigError(problems)


def report_of(name: str, kind: str, options: dict[str, Any], data: str | Path | None = None) -> Report:
    """Return the report of a registered name of any kind, without raising an error if a check failed."""
    if kind == "method":
        return method_report(name, options)
    if kind == "backbone":
        return backbone_report(name, options)
    if kind == "dataset":
        return dataset_report(name, data)
    return component_report(name, kind, options)


def method_report(name: str, options: dict[str, Any]) -> Report:
    """Return the report of :func:`check_method`."""
    METHODS[name]
    _refuse_options(name, "method", options)
    with _sandbox() as folder:
        return run_checks("method", name, options, METHOD_CHECKS, MethodTrial(name, options, folder))


def backbone_report(setting: str, options: dict[str, Any]) -> Report:
    """Return the report of :func:`check_backbone`."""
    resolve(setting)
    _refuse_options(setting, "backbone", options)
    with _sandbox():
        return run_checks("backbone", setting, options, BACKBONE_CHECKS, BackboneTrial(setting, options))


def dataset_report(name: str, root: str | Path | None) -> Report:
    """Return the report of :func:`check_dataset`."""
    with _sandbox() as folder:
        return run_checks("dataset", name, {}, DATASET_CHECKS, DatasetTrial(name, root, folder))


def component_report(name: str, kind: str, options: dict[str, Any]) -> Report:
    """Return the report of :func:`check_component`."""
    COMPONENTS[kind][name]
    _refuse_options(name, kind, options)
    with _sandbox() as folder:
        trial = ComponentTrial(name, kind, options, folder)
        return run_checks(kind, name, options, component_checks(), trial)


@contextmanager
def _sandbox() -> Iterator[Path]:
    """Yield a temporary folder; restore the state of torch's random numbers afterwards."""
    state = torch.get_rng_state()
    with tempfile.TemporaryDirectory(prefix="czslkit-check-") as folder:
        try:
            torch.manual_seed(0)
            yield Path(folder)
        finally:
            torch.set_rng_state(state)
