"""Load open_clip's models and weights, local weight files and OpenAI-format files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..components import BACKBONES
from ..errors import ConfigError, did_you_mean
from ..weights import download_or_raise, load_strict, read_tensors
from .clip import ClipBackbone
from .openai_format import from_openai


@BACKBONES.register("open_clip")
class OpenClip(ClipBackbone):
    """A CLIP named ``NAME/WEIGHTS``, or an OpenAI-format CLIP file.

    ``NAME`` is an open_clip model. ``WEIGHTS`` is a pretrained tag of the model, ``random``, or a file (safetensors,
    torch tensors, or TorchScript, whose program is not run).

    Raises:
        ConfigError: open_clip has no such model, or the weights are missing or do not fit.
    """

    version = 1

    def __init__(self, argument: str = "ViT-L-14-quickgelu/openai") -> None:
        name = argument if argument.startswith("hf-hub:") else argument.partition("/")[0]
        super().__init__(_load_model(argument), name="" if Path(argument).is_file() else name)


def model_names() -> list[str]:
    """Return the names of all architectures in open_clip."""
    import open_clip

    names: list[str] = open_clip.list_models()
    return names


def _load_model(argument: str) -> nn.Module:
    """Return the open_clip model for the argument of :class:`OpenClip`."""
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
    # some weights were trained with QuickGELU although the name of the model does not say so
    quick_gelu = bool(open_clip.get_pretrained_cfg(name, weights).get("quick_gelu", False))
    return download_or_raise(
        argument,
        lambda: open_clip.create_model(name, pretrained=weights, force_quick_gelu=quick_gelu, require_pretrained=True),
    )
