"""CLIP models through open_clip: any model name, a local weight file, or OpenAI's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..components import BACKBONES
from ..errors import ConfigError, did_you_mean
from ..weights import download_or_raise, load_strict, read_tensors
from .clip import ClipBackbone
from .openai_format import from_openai


@BACKBONES.register("open_clip")
class OpenClip(ClipBackbone):
    """``NAME/WEIGHTS``, or an OpenAI-format CLIP file alone.

    ``NAME`` is an open_clip model; ``WEIGHTS`` one of its pretrained tags, ``random``, or a
    file (safetensors, a torch file of tensors, or TorchScript, whose program is not run).
    """

    def __init__(self, argument: str = "ViT-L-14-quickgelu/openai", **options: Any) -> None:
        name = argument if argument.startswith("hf-hub:") else argument.partition("/")[0]
        super().__init__(_load(argument), name="" if Path(argument).is_file() else name, **options)


def model_names() -> list[str]:
    """Every architecture that open_clip knows."""
    import open_clip

    names: list[str] = open_clip.list_models()
    return names


def _load(argument: str) -> nn.Module:
    import open_clip

    if Path(argument).is_file():
        return from_openai(read_tensors(argument))
    if argument.startswith("hf-hub:"):
        return download_or_raise(argument, lambda: open_clip.create_model(argument, require_pretrained=True))
    name, _, weights = argument.partition("/")
    if name not in model_names():
        raise ConfigError([f"open_clip has no model {name!r}.{did_you_mean(name, model_names())}"])
    if weights == "random":
        return open_clip.create_model(name)
    if Path(weights).is_file():
        model = open_clip.create_model(name)
        load_strict(model, read_tensors(weights))
        return model
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        raise ConfigError(
            [
                f"{name} has no weights {weights!r}, and there is no such file.{did_you_mean(weights, tags)} "
                f"Known: {', '.join([*tags, 'random'])}, or a file."
            ]
        )
    # some weights were trained with QuickGELU, whatever the name says
    quick = bool(open_clip.get_pretrained_cfg(name, weights).get("quick_gelu", False))
    return download_or_raise(
        argument,
        lambda: open_clip.create_model(name, pretrained=weights, force_quick_gelu=quick, require_pretrained=True),
    )
