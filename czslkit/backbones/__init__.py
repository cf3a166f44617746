"""Image and text encoders, selected by a setting such as ``demo``, ``timm/resnet18`` or ``ViT-B-32/openai``."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..components import BACKBONES, Backbone
from ..errors import UnknownNameError, did_you_mean
from ..registry import failures
from .clip import ClipBackbone
from .open_clip import model_names


def load_backbone(setting: str | nn.Module, *, adapter_dim: int = 0, adapter_dropout: float = 0.1) -> Backbone:
    """Build the backbone of a setting.

    Args:
        setting: a registered backbone (``demo``), a registered backbone with an argument (``timm/resnet18``), an
            open_clip model with its weights (``ViT-B-32/openai``, ``ViT-B-32/random``, ``ViT-B-32//path/to/file``), the
            path of an OpenAI-format CLIP file, or an open_clip model.
        adapter_dim: bottleneck width of the adapters in every visual block; 0 for no adapters.
        adapter_dropout: dropout inside the adapters.

    Raises:
        UnknownNameError: no backbone, model or file has the name.
        ConfigError: the weights are missing or do not fit.
    """
    if isinstance(setting, nn.Module):
        return ClipBackbone(setting, adapter_dim=adapter_dim, adapter_dropout=adapter_dropout)
    name, argument = resolve(setting)
    return BACKBONES[name](argument, adapter_dim=adapter_dim, adapter_dropout=adapter_dropout)


def resolve(setting: str) -> tuple[str, str]:
    """Return the registered name and the argument of a backbone setting, without building the backbone.

    Raises:
        UnknownNameError: no backbone, model or file has the name.

    >>> resolve("timm/resnet18"), resolve("demo")
    (('timm', 'resnet18'), ('demo', ''))
    """
    name, _, argument = setting.partition("/")
    if name in BACKBONES:
        return name, argument
    if name in model_names() or Path(setting).is_file() or name.startswith("hf-hub:"):
        return "open_clip", setting
    raise UnknownNameError(
        f"no backbone named {name!r}, and no file {setting!r}.{did_you_mean(name, [*BACKBONES, *model_names()])} "
        f"Registered: {', '.join(BACKBONES)}; open_clip models such as ViT-L-14-quickgelu/openai; or the path of an "
        "OpenAI-format CLIP file." + "".join(f"\n  {line}" for line in failures())
    )
