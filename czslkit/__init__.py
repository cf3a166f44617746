"""A toolkit for compositional zero-shot learning: methods, evaluation protocol and benchmark runner."""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: The module of each public name; it is imported at the first use of the name, so that ``import czslkit`` is fast.
_HOME = {
    "AGGREGATORS": "components",
    "BACKBONES": "components",
    "DATASETS": "data.datasets",
    "HEADS": "components",
    "INTERACTIONS": "components",
    "LOGGERS": "loggers",
    "METHODS": "method",
    "Aggregator": "components",
    "Backbone": "components",
    "Dataset": "data.datasets",
    "Head": "components",
    "Interaction": "components",
    "Logger": "loggers",
    "Method": "method",
    "build": "method",
    "load": "checkpoints.trained",
    "load_original": "checkpoints.authors",
    "convert": "checkpoints.authors",
    "export_method": "export",
    "PairClassifier": "estimator",
    "Batch": "types",
    "ImageFeatures": "types",
    "PairSpace": "types",
    "Scores": "types",
    "Setting": "types",
    "Prediction": "prediction",
    "PredictedPair": "prediction",
    "TextFeatures": "types",
    "SoftPrompt": "prompts",
    "load_backbone": "backbones",
    "load_dataset": "data.loading",
    "import_dataset": "data.make.dataset_import",
    "Feed": "data.batches",
    "Cache": "data.cache",
    "download": "data.download.download",
    "evaluate": "metrics.sweep",
    "Sweep": "metrics.sweep",
    "feasibility": "pair_feasibility",
    "word_feasibility": "feasibility_files",
    "results": "report.frame",
    "plot": "plot",
    "list_runs": "stored_runs",
    "remove_runs": "stored_runs",
    "prune_runs": "stored_runs",
    "push": "sharing",
    "bench": "runner.bench",
    "load_suite": "runner.suite",
    "Variant": "runner.variant",
    "Grid": "runner.grid",
    "CzslkitError": "errors",
}

#: Without its optional package, ``from czslkit import *`` leaves a name out.
__all__ = [name for name in (*_HOME, "__version__") if name != "PairClassifier" or PathFinder.find_spec("sklearn")]

if TYPE_CHECKING:
    from . import plot as plot
    from .backbones import load_backbone as load_backbone
    from .checkpoints.authors import convert as convert
    from .checkpoints.authors import load_original as load_original
    from .checkpoints.trained import load as load
    from .components import AGGREGATORS as AGGREGATORS
    from .components import BACKBONES as BACKBONES
    from .components import HEADS as HEADS
    from .components import INTERACTIONS as INTERACTIONS
    from .components import Aggregator as Aggregator
    from .components import Backbone as Backbone
    from .components import Head as Head
    from .components import Interaction as Interaction
    from .data.batches import Feed as Feed
    from .data.cache import Cache as Cache
    from .data.datasets import DATASETS as DATASETS
    from .data.datasets import Dataset as Dataset
    from .data.download.download import download as download
    from .data.loading import load_dataset as load_dataset
    from .data.make.dataset_import import import_dataset as import_dataset
    from .errors import CzslkitError as CzslkitError
    from .estimator import PairClassifier as PairClassifier
    from .export import export_method as export_method
    from .feasibility_files import word_feasibility as word_feasibility
    from .loggers import LOGGERS as LOGGERS
    from .loggers import Logger as Logger
    from .method import METHODS as METHODS
    from .method import Method as Method
    from .method import build as build
    from .metrics.sweep import Sweep as Sweep
    from .metrics.sweep import evaluate as evaluate
    from .pair_feasibility import feasibility as feasibility
    from .prediction import PredictedPair as PredictedPair
    from .prediction import Prediction as Prediction
    from .prompts import SoftPrompt as SoftPrompt
    from .report.frame import results as results
    from .runner.bench import bench as bench
    from .runner.grid import Grid as Grid
    from .runner.suite import load_suite as load_suite
    from .runner.variant import Variant as Variant
    from .sharing import push as push
    from .stored_runs import list_runs as list_runs
    from .stored_runs import prune_runs as prune_runs
    from .stored_runs import remove_runs as remove_runs
    from .types import Batch as Batch
    from .types import ImageFeatures as ImageFeatures
    from .types import PairSpace as PairSpace
    from .types import Scores as Scores
    from .types import Setting as Setting
    from .types import TextFeatures as TextFeatures


def __getattr__(name: str) -> Any:
    """Import the module of a public name and return the object of this name."""
    if name not in _HOME:
        raise AttributeError(f"module 'czslkit' has no attribute {name!r}")
    module = importlib.import_module(f".{_HOME[name]}", __name__)
    return module if name == _HOME[name] else getattr(module, name)  # ``plot`` is a module


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted(__all__)
