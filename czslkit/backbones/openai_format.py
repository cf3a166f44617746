"""TODO."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import ConfigError
from ..weights import load_strict

#: Width of an attention head in every CLIP that OpenAI released.
HEAD_WIDTH = 64


#: Entries of CLIP files that are no weights.
CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


#: Text positions of every CLIP that OpenAI released; some authors cut them shorter.
LONGEST = 77


def from_openai(state: Mapping[str, Tensor]) -> nn.Module:
    """The CLIP that a state dict in OpenAI's format describes, its sizes taken from the shapes.

    Raises:
        ConfigError: the keys or shapes are not those of a CLIP with a vision transformer, all of them.
    """
    state = {key: value for key, value in state.items() if key not in CONSTANTS}
    model = model_from_shapes(state)
    load_strict(model, state)
    return model


def model_from_shapes(state: Mapping[str, Tensor]) -> nn.Module:
    """A CLIP with random weights, of the sizes that a state dict in OpenAI's format has.

    A size is read from whichever of its tensors is there, so that ``misfits`` can name the others.

    Raises:
        ConfigError: not a CLIP with a vision transformer.
    """
    import open_clip

    def size(default: int, *places: tuple[str, int]) -> int:
        found = (state[name].shape[axis] for name, axis in places if name in state and state[name].ndim > axis)
        return next(filter(None, found), default)

    layers, text_layers = (_count(state, f"{tower}transformer.resblocks.") for tower in ("visual.", ""))
    if not (layers and text_layers):
        tower = "text" if layers else "vision"
        raise ConfigError([f"not a CLIP with a vision transformer in OpenAI's format: no {tower} transformer in it"])
    width = size(HEAD_WIDTH, ("visual.class_embedding", 0), ("visual.ln_post.weight", 0), ("visual.conv1.weight", 0))
    patch = size(14, ("visual.conv1.weight", 3))
    grid = math.isqrt(size(257, ("visual.positional_embedding", 0)) - 1)
    vision = open_clip.CLIPVisionCfg(
        layers=layers, width=width, patch_size=patch, image_size=grid * patch, head_width=min(HEAD_WIDTH, width)
    )
    text_width = size(HEAD_WIDTH, ("token_embedding.weight", 1), ("ln_final.weight", 0), ("text_projection", 0))
    text = open_clip.CLIPTextCfg(
        context_length=size(LONGEST, ("positional_embedding", 0)),
        vocab_size=size(49408, ("token_embedding.weight", 0)),
        width=text_width,
        heads=max(1, text_width // HEAD_WIDTH),
        layers=text_layers,
    )
    return open_clip.CLIP(size(width, ("text_projection", 1), ("visual.proj", 1)), vision, text, quick_gelu=True)


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max((int(key[len(prefix) :].split(".")[0]) for key in state if key.startswith(prefix)), default=-1)
