"""Small models of open_clip with pretrained tags, and photos whose sides differ from their middle."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Register an open_clip model: ``register(name, config, tags)`` with the settings of each pretrained tag."""

    def add(name: str, config: dict[str, Any] = CONFIG, tags: dict[str, dict[str, Any]] | None = None) -> None:
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, copy.deepcopy(config))
        if tags:
            monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)

    return add


@pytest.fixture
def tiny(register: Callable[..., None], tmp_path: Path) -> Path:
    """The weights of the open_clip model ``tiny``, which has GELU and no pretrained tag, as safetensors."""
    register("tiny")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny")
    for name, parameter in model.named_parameters():  # far enough from zero that activations matter
        if name.endswith("mlp.c_fc.weight"):
            torch.nn.init.normal_(parameter, std=0.5)
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture(params=[(120, 40), (40, 120), (20, 17)], ids=["wide", "high", "small"])
def photo(request: pytest.FixtureRequest) -> Image.Image:
    width, height = request.param
    pixels = np.random.default_rng(0).integers(0, 80, (height, width, 3), dtype=np.uint8)
    pixels[:, : width // 3, 0] += 170
    pixels[: height // 3, :, 2] += 170
    return Image.fromarray(pixels)
