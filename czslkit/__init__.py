"""Compositional zero-shot learning: methods, protocol and benchmark runner."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> module that holds it; imported when first asked for, so that ``import czslkit`` needs no torch.
_HOME = {
    "AGGREGATORS": "components",
    "BACKBONES": "components",
    "DATASETS": "data.catalogue",
    "HEADS": "components",
    "INTERACTIONS": "components",
    "METHODS": "method",
    "Aggregator": "components",
    "Backbone": "components",
    "Dataset": "data.catalogue",
    "Head": "components",
    "Interaction": "components",
    "Method": "method",
    "build": "method",
    "load_checkpoint": "checkpoint",
    "load_original": "original",
    "convert": "original",
    "Batch": "types",
    "ImageFeatures": "types",
    "PairSpace": "types",
    "Scores": "types",
    "Setting": "types",
    "TextFeatures": "types",
    "SoftPrompt": "prompts",
    "load_backbone": "backbones",
    "load_dataset": "data.datasets",
    "import_dataset": "data.custom",
    "Feed": "feed",
    "Cache": "data.cache",
    "download": "data.download",
    "evaluate": "evaluation.sweep",
    "Sweep": "evaluation.sweep",
    "feasibility": "evaluation.feasibility",
    "word_feasibility": "evaluation.plausibility",
    "bench": "benchmark",
    "CzslkitError": "errors",
}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from .backbones import load_backbone as load_backbone
    from .benchmark import bench as bench
    from .checkpoint import load_checkpoint as load_checkpoint
    from .components import AGGREGATORS as AGGREGATORS
    from .components import BACKBONES as BACKBONES
    from .components import HEADS as HEADS
    from .components import INTERACTIONS as INTERACTIONS
    from .components import Aggregator as Aggregator
    from .components import Backbone as Backbone
    from .components import Head as Head
    from .components import Interaction as Interaction
    from .data.cache import Cache as Cache
    from .data.catalogue import DATASETS as DATASETS
    from .data.catalogue import Dataset as Dataset
    from .data.custom import import_dataset as import_dataset
    from .data.datasets import load_dataset as load_dataset
    from .data.download import download as download
    from .errors import CzslkitError as CzslkitError
    from .evaluation.feasibility import feasibility as feasibility
    from .evaluation.plausibility import word_feasibility as word_feasibility
    from .evaluation.sweep import Sweep as Sweep
    from .evaluation.sweep import evaluate as evaluate
    from .feed import Feed as Feed
    from .method import METHODS as METHODS
    from .method import Method as Method
    from .method import build as build
    from .original import convert as convert
    from .original import load_original as load_original
    from .prompts import SoftPrompt as SoftPrompt
    from .types import Batch as Batch
    from .types import ImageFeatures as ImageFeatures
    from .types import PairSpace as PairSpace
    from .types import Scores as Scores
    from .types import Setting as Setting
    from .types import TextFeatures as TextFeatures


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'czslkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
