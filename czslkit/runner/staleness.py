"""The dependencies of a stored result, which is stale if one of them has changed; no other module decides this.

A result depends on the files of the dataset, the backbone's weights, the way in which images are prepared for it, the
files that options of the method name, and the code of its numbers. Code counts by versions that are raised by hand when
numbers change: ``version`` of every class that took part, and ``VERSION`` of the training loop, the image reading and
the evaluation. A class of another package that has no version counts by its distribution or its code; see
:func:`czslkit.provenance.class_version`.

The dependencies of a training are separate from those of an evaluation. If only the evaluation of a result is stale,
it is evaluated again with the trained weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from ..backbones import stated_preprocessing
from ..data.dataset_folders import dataset
from ..data.splits import Splits
from ..evaluation.feasibility_source import source_file
from ..files import file_digest
from ..method import METHODS
from ..options import config_id
from ..prompts import FixedPrompt, SoftPrompt
from ..provenance import OWN, backbone_digest, class_versions, current_version, option_digests
from ..registry import registries
from ..result_store import FORMAT_1, Result, differences
from .plan import Spec

TRAINING_MODULES = ("czslkit.training", "czslkit.data.image_transforms")
EVALUATION_MODULES = ("czslkit.evaluation", "czslkit.data.image_transforms")
PRECISION_MODULE = "czslkit.precision"


def read_code(specs: Iterable[Spec]) -> None:
    """Read the code of methods and datasets, so that a file that is changed during a benchmark is not taken for it."""
    for spec in specs:
        class_versions([METHODS[spec.method], type(dataset(spec.dataset))])


def training_dependencies(
    spec: Spec, data: Mapping[str, str], classes: Iterable[type], splits: Splits
) -> dict[str, Any]:
    """Return everything that trained weights depend on, apart from the settings.

    Args:
        data: digests of the dataset's files.
        classes: the classes of the method, of its components and of the dataset.
        splits: the dataset.

    Raises:
        DataError: a file of the backbone or of an option is missing.
    """
    code = _versions([*TRAINING_MODULES, *_precision_module(spec, "train", "evaluation")]) | class_versions(classes)
    return _training(spec, data, code, splits) | _preprocessing(spec)


def evaluation_dependencies(spec: Spec, world: str, data: Splits) -> dict[str, Any]:
    """Return everything that the numbers of a world depend on, apart from the trained weights and the settings."""
    modules = [*EVALUATION_MODULES, *_precision_module(spec, "evaluation")]
    return {"code": _versions(modules), **_feasibility_digest(spec, world, data)}


def training_key(spec: Spec, dependencies: Mapping[str, Any]) -> str:
    """Return the key of a training: its settings and dependencies as one hash."""
    return config_id({"config": spec.training_config, "seed": spec.seed, "depends": dict(dependencies)})


def training_changes(result: Result, spec: Spec, data: Mapping[str, str], splits: Splits | None = None) -> str:
    """Return a text on the changes since the training of a result; empty if nothing has changed.

    Args:
        data: current digests of the dataset's files.
        splits: the dataset; needed only if :func:`selection_needs_data`.

    Raises:
        DataError: a file of the backbone or of an option is missing.
    """
    recorded = result["depends"].get("training", {})
    code = _current_versions(recorded.get("code", {}), _format_1_training())
    if FORMAT_1 not in code:  # the method and the dataset may be other classes by now, or have other bases
        code |= class_versions([METHODS[spec.method], type(dataset(spec.dataset))])
    code |= _versions(_precision_module(spec, "train", "evaluation"))  # results of earlier versions do not record it
    return differences(recorded, _training(spec, data, code, splits) | _preprocessing(spec, recorded))


def evaluation_changes(result: Result, spec: Spec, data: Splits | None) -> str:
    """Return a text on the changes of the evaluation since a result was made; empty if nothing has changed.

    Args:
        data: the dataset; needed only if :func:`needs_feasibility`.
    """
    recorded = result["depends"].get("evaluation", {})
    feasibility = _feasibility_digest(spec, result["cell"]["world"], data) if data else {}
    code = _current_versions(recorded.get("code", {}), _raised(_versions(EVALUATION_MODULES)))
    return differences(recorded, {"code": code, **feasibility})


def selection_needs_data(result: Result, spec: Spec) -> bool:
    """Return whether the dataset must be read to know how the epoch of a result was to be selected.

    An AUC that was 0 in every epoch may have been undefined.
    """
    training = result.get("training") or {}
    aucs = [row.get("val_auc", 0) for row in training.get("history") or ()]
    return spec.selection_threshold is not None or (spec.train.select == "auc" and bool(aucs) and not any(aucs))


def needs_feasibility(spec: Spec, world: str) -> bool:
    """Return whether the candidates of a world depend on feasibility scores."""
    return world == "open" and spec.evaluation.threshold is not None


def _training(
    spec: Spec, data: Mapping[str, str], code: Mapping[str, str | None], splits: Splits | None
) -> dict[str, Any]:
    """Return the dependencies of a training with the versions ``code``."""
    files = option_digests(spec.options, where=spec.method)
    return {
        "data": dict(data),
        "weights": backbone_digest(spec.backbone) if spec.backbone else None,
        "code": dict(code),
        **({"files": files} if files else {}),
        **(_selection(spec, splits) if splits else {}),
    }


def _preprocessing(spec: Spec, recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return how images are prepared for the backbone, as a section of dependencies; empty for OpenAI's CLIP.

    Args:
        recorded: dependencies of a result. Its section is returned if the current one is unknown, and also if the
            result is older than the section and its images were prepared in the same way.
    """
    stated = stated_preprocessing(spec.backbone) if spec.backbone else None
    if recorded is not None and (stated is None or not ("preprocessing" in recorded or stated.resizing)):
        return {key: value for key, value in recorded.items() if key == "preprocessing"}
    return {"preprocessing": stated.record} if stated and stated.record else {}


def _feasibility_digest(spec: Spec, world: str, data: Splits) -> dict[str, Any]:
    """Return the digest of the file of feasibility, if the world depends on it, as a section of dependencies."""
    return _file_digest(spec, data) if needs_feasibility(spec, world) else {}


def _selection(spec: Spec, data: Splits) -> dict[str, Any]:
    """Return what else the selection of the epoch depends on, as sections of dependencies.

    It is the digest of the file of feasibility, if the epoch was selected with it, and the accuracy in place of an
    undefined AUC.
    """
    criterion = {"criterion": "validation accuracy"} if spec.undefined_criterion(data) else {}
    return criterion | ({} if spec.selection_threshold is None else _file_digest(spec, data))


def _file_digest(spec: Spec, data: Splits) -> dict[str, Any]:
    file: Path | None = source_file(spec.evaluation.feasibility, data)
    return {"feasibility": file_digest(file) if file else None}


def _precision_module(spec: Spec, *sections: Literal["train", "evaluation"]) -> list[str]:
    """Return the module of the number formats if one of some sections of the settings uses another one than fp32."""
    return [PRECISION_MODULE] if any(getattr(spec, section).precision != "fp32" for section in sections) else []


def _versions(modules: Iterable[str]) -> dict[str, str | None]:
    return {module: current_version(module) for module in modules}


def _current_versions(recorded: Mapping[str, str], format_1: str) -> dict[str, str | None]:
    """Return the current version of each recorded name, None if the name does not exist any more.

    Args:
        format_1: the current version of the code that ``FORMAT_1`` stands for.
    """
    return {name: format_1 if name == FORMAT_1 else current_version(name) for name in recorded}


def _format_1_training() -> str:
    """Return the version of the code that a training of format 1 depends on: all classes of czslkit, and the loop."""
    classes = [cls for registry in registries().values() for _, cls in registry.items()]
    own = class_versions(cls for cls in [*classes, FixedPrompt, SoftPrompt] if cls.__module__.partition(".")[0] in OWN)
    return _raised(own | _versions(TRAINING_MODULES))


def _raised(versions: Mapping[str, str | None]) -> str:
    """Return ``version 1`` if no version has been raised since format 1, otherwise the raised versions."""
    raised = [f"{name} {version}" for name, version in versions.items() if version != "version 1"]
    return ", ".join(raised) or "version 1"
