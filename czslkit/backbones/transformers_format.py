"""Rename the tensors of a ``CLIPModel`` of the package transformers to those of OpenAI's format."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ConfigError

#: Parts of tensor names in transformers -> in OpenAI's format, in the order in which they are replaced.
_NAMES = {
    r"^visual_projection\.weight$": "visual.proj",
    r"^text_projection\.weight$": "text_projection",
    r"^text_model\.embeddings\.token_embedding\.": "token_embedding.",
    r"^text_model\.embeddings\.position_embedding\.weight$": "positional_embedding",
    r"^text_model\.final_layer_norm\.": "ln_final.",
    r"^vision_model\.embeddings\.class_embedding$": "visual.class_embedding",
    r"^vision_model\.embeddings\.patch_embedding\.": "visual.conv1.",
    r"^vision_model\.embeddings\.position_embedding\.weight$": "visual.positional_embedding",
    r"^vision_model\.pre_layrnorm\.": "visual.ln_pre.",  # transformers spells it so
    r"^vision_model\.post_layernorm\.": "visual.ln_post.",
    r"^text_model\.encoder\.layers\.": "transformer.resblocks.",
    r"^vision_model\.encoder\.layers\.": "visual.transformer.resblocks.",
    r"\.layer_norm([12])\.": r".ln_\1.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
    r"\.self_attn\.out_proj\.": ".attn.out_proj.",
    r"\.self_attn\.q_proj\.(weight|bias)$": r".attn.in_proj_\1",  # keys and values are joined to the queries
}


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """Return whether tensors have the names of a CLIP of the package transformers."""
    return any(key.startswith(("vision_model.", "text_model.")) for key in state)


def to_openai(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a ``CLIPModel`` by their names in OpenAI's format.

    Raises:
        ConfigError: the model is of another class, such as ``SiglipModel``, or keys or values of an attention are
            missing.
    """
    if any(key.startswith(("vision_model.head.", "text_model.head.")) for key in state):
        raise ConfigError(
            [
                "the file holds a SiglipModel of the package transformers (vision_model.head), expected a CLIPModel; "
                "use the weights in open_clip's format, such as hf-hub:timm/ViT-B-16-SigLIP"
            ]
        )
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".position_ids") or re.search(r"\.self_attn\.[kv]_proj\.", key):
            continue
        if ".self_attn.q_proj." in key:
            parts = [key.replace("q_proj", name) for name in ("q_proj", "k_proj", "v_proj")]
            if missing := [name for name in parts if name not in state]:
                raise ConfigError([f"{', '.join(missing)} is missing beside {key}"])
            value = torch.cat([state[name] for name in parts])
        name = key
        for pattern, replacement in _NAMES.items():
            name = re.sub(pattern, replacement, name)
        found[name] = value.T if name in ("visual.proj", "text_projection") else value
    return found
