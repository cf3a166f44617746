"""A small CLIP in OpenAI's format, and a label space for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: pytest-xdist has a process for each core
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks a hub
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # the tests' own servers

import numpy as np
import pytest
import torch
from PIL import Image

import czslkit
from czslkit import registry
from czslkit.data.dataset_folders import ensure_folder
from czslkit.data.writing import write_dataset
from czslkit.files import file_lock
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


@pytest.fixture(scope="session")
def demo_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rendered dataset ``demo``, which processes of pytest-xdist share. Tests only read it."""
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "demo_world"
    with file_lock(shared / ".lock", print):
        ensure_folder("demo", shared)
    return shared


COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
SIDES = {"left": slice(0, 16), "right": slice(16, 32), "whole": slice(0, 32)}
TOY = {
    "train": [("red", "left"), ("green", "right"), ("blue", "whole"), ("red", "whole"), ("green", "left")],
    "val": [("red", "left"), ("blue", "right")],
    "test": [("green", "right"), ("blue", "left")],
}


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset ``toys``: colours on a side of 32 pixels; 21 + 8 + 8 images."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def pictures():
        for phase, pairs in TOY.items():
            for attr, obj in pairs:
                for n in range(5 if (phase, attr) == ("train", "blue") else 4):
                    pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                    pixels[:, SIDES[obj]] += np.array(COLOURS[attr], dtype=np.uint8) // 2
                    entry = {"image": f"{attr}_{obj}/{phase}{n}.png", "attr": attr, "obj": obj, "set": phase}
                    yield entry, Image.fromarray(pixels)

    assert write_dataset(root / "toys", TOY, pictures())
    return root


@pytest.fixture(scope="module", autouse=True)
def no_code_of_other_modules() -> Iterator[None]:
    """Hand no code on to other processes that tests of another module have imported from a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_unpackaged", {})
        yield


@pytest.fixture(autouse=True)
def no_code_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand no code on to other processes that an earlier test has imported from a file, which may be gone.

    Code that a fixture of the module has imported stays, as its file does.
    """
    monkeypatch.setattr(registry, "_unpackaged", dict(registry._unpackaged))
