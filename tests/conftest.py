"""A small CLIP in OpenAI's format, and a label space for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import czslkit
from czslkit.testing import demo_space


def openai_state(width: int = 128, text_width: int = 64, dim: int = 64, depth: int = 5, patch: int = 8, grid: int = 4):
    """Random weights of an OpenAI-format CLIP, one attention head for every 64 channels."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 0.05) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    def block(prefix: str, w: int) -> dict[str, torch.Tensor]:
        shapes = {
            "attn.in_proj_weight": (3 * w, w),
            "attn.in_proj_bias": (3 * w,),
            "attn.out_proj.weight": (w, w),
            "attn.out_proj.bias": (w,),
            "mlp.c_fc.weight": (4 * w, w),
            "mlp.c_fc.bias": (4 * w,),
            "mlp.c_proj.weight": (w, 4 * w),
            "mlp.c_proj.bias": (w,),
        }
        norms = {f"{prefix}.ln_{i}.{kind}": draw(w) + (kind == "weight") for i in (1, 2) for kind in ("weight", "bias")}
        return {f"{prefix}.{name}": draw(*shape) for name, shape in shapes.items()} | norms

    state = {
        "positional_embedding": draw(77, text_width),
        "text_projection": draw(text_width, dim, scale=0.2),
        "logit_scale": torch.tensor(2.6593),
        "token_embedding.weight": draw(49408, text_width, scale=0.1),
        "visual.class_embedding": draw(width),
        "visual.positional_embedding": draw(grid**2 + 1, width),
        "visual.proj": draw(width, dim, scale=0.2),
        "visual.conv1.weight": draw(width, 3, patch, patch),
    }
    for name, w in (("ln_final", text_width), ("visual.ln_pre", width), ("visual.ln_post", width)):
        state |= {f"{name}.weight": draw(w) + 1, f"{name}.bias": draw(w)}
    for i in range(depth):
        state |= block(f"visual.transformer.resblocks.{i}", width)
    for i in range(2):
        state |= block(f"transformer.resblocks.{i}", text_width)
    return state


@pytest.fixture(scope="session", name="openai_state")
def _openai_state():
    return openai_state


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 32 pixels, 5 visual blocks of width 128, joint width 64."""
    file = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(openai_state(), file)
    return file


@pytest.fixture
def space() -> czslkit.PairSpace:
    return demo_space()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
