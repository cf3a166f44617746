"""The demo CLIP, a small model in the package that was trained with ``benchmarks/train_demo_clip.py``."""

from __future__ import annotations

import json
from importlib.resources import as_file, files

import torch
from torch import Tensor, nn

from ..components import BACKBONES
from ..weights import load_strict, read_tensors
from .clip import ClipBackbone

FOLDER = files("czslkit.backbones") / "demo_clip"


@BACKBONES.register("demo")
class DemoClip(ClipBackbone):
    """A small CLIP for the demo world: 64 pixels, 8 visual blocks, joint width 96, weights in the package."""

    version = 1

    def __init__(self, argument: str = "") -> None:
        if argument:
            raise ValueError(f"the demo backbone takes no argument, got {argument!r}")
        super().__init__(_load_demo_clip())


def _load_demo_clip() -> nn.Module:
    """Return the open_clip model with the weights in the package."""
    import open_clip

    config = json.loads((FOLDER / "czslkit-demo.json").read_text())
    model = open_clip.CLIP(
        config["embed_dim"],
        open_clip.CLIPVisionCfg(**config["vision_cfg"]),
        open_clip.CLIPTextCfg(**config["text_cfg"]),
        quick_gelu=config["quick_gelu"],
    )
    with as_file(FOLDER / "czslkit-demo.safetensors") as path:
        state = {
            key: value.float() if value.is_floating_point() else value for key, value in read_tensors(path).items()
        }
    ids, rows = state.pop("token_embedding.ids"), state.pop("token_embedding.rows")
    state["token_embedding.weight"] = _all_embeddings(ids, rows, config["text_cfg"]["vocab_size"])
    load_strict(model, state)
    return model


def _all_embeddings(ids: Tensor, rows: Tensor, vocabulary: int) -> Tensor:
    """Return the embeddings of all tokens, ``[vocabulary, W]``; the file has only the trained embeddings.

    Args:
        ids: token ids with trained embeddings, ``[n]``.
        rows: trained embeddings, ``[n, W]``. All other embeddings have their initial values.
    """
    embeddings = torch.randn(vocabulary, rows.shape[1], generator=torch.Generator().manual_seed(0)) * 0.02
    embeddings[ids.long()] = rows
    return embeddings
