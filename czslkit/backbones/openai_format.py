"""Build CLIP models from state dicts in OpenAI's format, with sizes from the shapes of the tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..weights import load_strict

#: Width of an attention head in every CLIP that OpenAI released.
HEAD_WIDTH = 64
#: Number of text positions in every CLIP that OpenAI released. Some authors use fewer.
TEXT_POSITIONS = 77
#: Numbers that may be missing from a state dict, and the same for each number in it.
_FREE_NUMBERS, _MISSING_SHARE = 16_000_000, 4
#: Keys of CLIP files with settings or constants instead of weights.
NON_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def from_openai(state: Mapping[str, Tensor]) -> nn.Module:
    """Return the CLIP of a state dict in OpenAI's format.

    Raises:
        ConfigError: the keys or shapes do not fit a CLIP with a vision transformer; the message lists all problems.
    """
    state = {key: value for key, value in state.items() if key not in NON_WEIGHTS}
    model = model_from_shapes(state)
    load_strict(model, state)
    return model


class ClipSizes(NamedTuple):
    """The sizes of a CLIP with a vision transformer that its tensors tell."""

    width: int
    layers: int
    patch: int
    text_width: int
    text_layers: int


def clip_sizes(state: Mapping[str, Tensor]) -> ClipSizes:
    """Return the sizes of a state dict in OpenAI's format.

    Raises:
        ConfigError: the state dict does not belong to a CLIP with a vision transformer.
    """
    layers, text_layers = (_number_of_blocks(state, tower) for tower in ("visual.", ""))
    if max(layers, text_layers) > len(state):
        raise ConfigError([f"not a CLIP: it has block {max(layers, text_layers) - 1:,}, but only {len(state)} tensors"])
    if not (layers and text_layers):
        tower = "text" if layers else "vision"
        raise ConfigError(
            [
                f"not a CLIP with a vision transformer in OpenAI's format: no {tower} transformer in it; for another "
                "model, use NAME/TAG/FILE, for example RN50/openai/FILE or timm/resnet18/FILE"
            ]
        )
    width = _size(
        state,
        HEAD_WIDTH,
        *(("visual.class_embedding", 0), ("visual.ln_post.weight", 0), ("visual.conv1.weight", 0)),
    )
    text = _size(state, HEAD_WIDTH, ("token_embedding.weight", 1), ("ln_final.weight", 0), ("text_projection", 0))
    return ClipSizes(width, layers, _size(state, 14, ("visual.conv1.weight", 3)), text, text_layers)


def model_from_shapes(state: Mapping[str, Tensor]) -> nn.Module:
    """Return a CLIP with random weights and the sizes of a state dict in OpenAI's format.

    Every size has several possible tensors, and the first existing tensor is used. So the model can be built even if
    tensors are missing, and a later check can list them.

    Raises:
        ConfigError: the state dict does not belong to a CLIP with a vision transformer.
    """
    import open_clip

    sizes = clip_sizes(state)
    grid = math.isqrt(_size(state, 257, ("visual.positional_embedding", 0)) - 1)
    vision = open_clip.CLIPVisionCfg(
        layers=sizes.layers,
        width=sizes.width,
        patch_size=sizes.patch,
        image_size=grid * sizes.patch,
        head_width=min(HEAD_WIDTH, sizes.width),
    )
    text = open_clip.CLIPTextCfg(
        context_length=_size(state, TEXT_POSITIONS, ("positional_embedding", 0)),
        vocab_size=_size(state, 49408, ("token_embedding.weight", 0)),
        width=sizes.text_width,
        heads=max(1, sizes.text_width // HEAD_WIDTH),
        layers=sizes.text_layers,
    )
    dim = _size(state, sizes.width, ("text_projection", 1), ("visual.proj", 1))
    with torch.device("meta"):  # takes no memory
        needed = sum(tensor.numel() for tensor in open_clip.CLIP(dim, vision, text, quick_gelu=True).parameters())
    check_size(needed, state, f"a CLIP of width {sizes.width} and {sizes.text_width}")
    return open_clip.CLIP(dim, vision, text, quick_gelu=True)


def check_size(needed: int, state: Mapping[str, Tensor], model: str) -> None:
    """Check that a model, of which some tensors may be missing, is about as large as its tensors.

    Args:
        needed: numbers in the model.
        state: the tensors.
        model: the model in words, for the message.

    Raises:
        ConfigError: it is far larger.
    """
    held = sum(tensor.numel() for tensor in state.values())
    if needed > _FREE_NUMBERS + _MISSING_SHARE * held:
        raise ConfigError([f"{model} has {needed:,} numbers, but its tensors hold only {held:,}"])


def _size(state: Mapping[str, Tensor], default: int, *axes: tuple[str, int]) -> int:
    """Return the length of the first existing, non-empty axis among ``axes`` (tensor name, axis number)."""
    sizes = (
        state[name].shape[axis]
        for name, axis in axes
        if name in state and state[name].ndim > axis and state[name].numel()
    )
    return next(filter(None, sizes), default)


def _number_of_blocks(state: Mapping[str, Tensor], tower: str) -> int:
    """Return the number of transformer blocks in a tower, ``"visual."`` or ``""`` for the text tower."""
    prefix = f"{tower}transformer.resblocks."
    blocks = (key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix))
    return 1 + max((int(block) for block in blocks if re.fullmatch("[0-9]{1,9}", block)), default=-1)
