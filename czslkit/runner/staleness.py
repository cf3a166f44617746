"""What makes a stored result stale: the only place that decides it.

A result depends on the files of the dataset, the backbone's weights, and the code behind its numbers. Code counts by
versions that are raised by hand when numbers change: ``version`` of every class that took part, and ``VERSION`` of the
training loop, the image reading and the evaluation. A class of another package that has no version counts by its
distribution; see :func:`czslkit.provenance.class_version`.

The dependencies of a training are kept apart from those of an evaluation. A result whose evaluation alone is stale is
evaluated again with the trained weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..data.splits import Splits
from ..evaluation.feasibility_source import source_file
from ..files import file_digest
from ..options import config_id
from ..prompts import FixedPrompt, SoftPrompt
from ..provenance import OWN, backbone_digest, class_versions, current_version
from ..registry import REGISTRIES
from ..result_store import FORMAT_1, Result, differences
from .plan import Spec

TRAINING_MODULES = ("czslkit.training", "czslkit.data.image_transforms")
EVALUATION_MODULES = ("czslkit.evaluation", "czslkit.data.image_transforms")


def training_dependencies(spec: Spec, data: Mapping[str, str], classes: Iterable[type]) -> dict[str, Any]:
    """Return everything that trained weights depend on, apart from the settings.

    Args:
        data: digests of the dataset's files.
        classes: every class whose code takes part: the method's, its components' and the dataset's.
    """
    return {
        "data": dict(data),
        "weights": backbone_digest(spec.backbone) if spec.backbone else None,
        "code": _versions(TRAINING_MODULES) | class_versions(classes),
    }


def evaluation_dependencies(spec: Spec, world: str, data: Splits) -> dict[str, Any]:
    """Return what the numbers of a world depend on beside the trained weights."""
    return {"code": _versions(EVALUATION_MODULES), **_feasibility(spec, world, data)}


def training_key(spec: Spec, dependencies: Mapping[str, Any]) -> str:
    """Return the key of a training: its settings and dependencies as one hash."""
    return config_id({"config": spec.training_config, "seed": spec.seed, "depends": dict(dependencies)})


def training_changes(result: Result, spec: Spec, data: Mapping[str, str]) -> str:
    """Say what has changed since the weights behind a result were trained; empty if nothing has.

    Args:
        data: digests of the dataset's files as they are now.
    """
    recorded = result["depends"].get("training", {})
    current = {
        "data": dict(data),
        "weights": backbone_digest(spec.backbone) if spec.backbone else None,
        "code": _current(recorded.get("code", {})),
    }
    return differences(recorded, current)


def evaluation_changes(result: Result, spec: Spec, data: Splits | None) -> str:
    """Say what has changed in the evaluation since a result was made; empty if nothing has.

    Args:
        data: the dataset; needed only if :func:`needs_feasibility`.
    """
    recorded = result["depends"].get("evaluation", {})
    feasibility = _feasibility(spec, result["cell"]["world"], data) if data else {}
    return differences(recorded, {"code": _current(recorded.get("code", {})), **feasibility})


def needs_feasibility(spec: Spec, world: str) -> bool:
    """Tell whether the candidates of a world depend on feasibility scores."""
    return world == "open" and spec.evaluation.threshold is not None


def _feasibility(spec: Spec, world: str, data: Splits) -> dict[str, Any]:
    """Return the digest of the file that the feasibility of pairs comes from, if the world depends on it."""
    if not needs_feasibility(spec, world):
        return {}
    file: Path | None = source_file(spec.evaluation.feasibility, data)
    return {"feasibility": file_digest(file) if file else None}


def _versions(modules: Iterable[str]) -> dict[str, str | None]:
    return {module: current_version(module) for module in modules}


def _current(recorded: Mapping[str, str]) -> dict[str, str | None]:
    """Return the versions that recorded names have now; a name that is gone has None."""
    return {name: _format_1_version() if name == FORMAT_1 else current_version(name) for name in recorded}


def _format_1_version() -> str:
    """Return ``version 1`` if every version of czslkit's own code is 1 still, as when results had format 1."""
    classes = [cls for registry in REGISTRIES.values() for _, cls in registry.items()]
    own = class_versions(cls for cls in [*classes, FixedPrompt, SoftPrompt] if cls.__module__.partition(".")[0] in OWN)
    versions = own | _versions({*TRAINING_MODULES, *EVALUATION_MODULES})
    raised = [f"{name} {version}" for name, version in versions.items() if version != "version 1"]
    return ", ".join(raised) or "version 1"
