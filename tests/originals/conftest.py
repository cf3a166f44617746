"""Recorded runs of the authors' programs, on random weights that are drawn again here.

``recorded/<case>.json`` has the words, pairs, labels, settings, tensor shapes, losses and optimisation trajectories of
a case. ``recorded/<case>.npz`` has its arrays: ``init.`` tensors that start from CLIP, ``eval.`` and ``trainmode.``
logits and gradients without dropout, ``scaled_dropout.`` logits with every dropout replaced by its mean, and ``traj.``
tensors at the end of an optimisation. Everything is float32 on a CPU.
"""

from __future__ import annotations

import json
import math
import zlib
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import czslkit
from czslkit.method import Method
from czslkit.types import Batch, ImageFeatures, PairSpace

RECORDED = Path(__file__).parent / "recorded"
CASES = sorted(path.stem for path in RECORDED.glob("*.json"))
VARIANTS = {"img2txt": "dfsp-i2t", "txt2img": "dfsp-t2i", "BiFusion": "dfsp-bif", "OnlySPM": "dfsp-spm"}


class Case:
    """One recorded run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.json: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
        with np.load(RECORDED / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays}
        self.config: dict[str, Any] = self.json["config"]
        self.method: str = VARIANTS.get(self.config.get("fusion", ""), self.json["model"])
        pairs = self.pairs("open")
        self.space = PairSpace(
            self.json["attributes"], self.json["objects"], pairs, torch.zeros(len(pairs), dtype=torch.bool)
        )

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The checkpoint, with the authors' tensor names."""
        return {key: weight(key, shape, self.json["case_seed"]) for key, shape in self.json["shapes"].items()}

    @cached_property
    def clip(self) -> dict[str, Tensor]:
        """The CLIP inside the checkpoint, with OpenAI's tensor names."""
        prefix: str = self.json.get("clip_prefix") or self.json["clip_checkpoint"]["prefix"]
        return {key.removeprefix(prefix): value for key, value in self.state.items() if key.startswith(prefix)}

    @property
    def mixes(self) -> bool:
        """True if the authors' program mixes the images of a batch."""
        return self.method in ("dfsp-i2t", "dfsp-bif")

    def pairs(self, which: str) -> Tensor:
        return torch.tensor(self.json["pairs"][which])

    @property
    def images(self) -> Tensor:
        draw = np.random.RandomState(self.json["case_seed"]).standard_normal((6, 3, 32, 32))
        return torch.from_numpy(draw.astype(np.float32))

    @property
    def batch(self) -> Batch:
        labels = self.json["labels"]
        return Batch(self.images, torch.tensor(labels["attr"]), torch.tensor(labels["obj"]))

    def load(self, **config: Any) -> Method:
        """Load the case with the settings of the authors' program, including the mixing of batches."""
        if self.mixes:
            config = {"batch_mixing": "original", **config}
        return czslkit.load_original(self.method, self.state, self.space, {**self.config, **config}, log=lambda _: None)


def weight(key: str, shape: list[int], seed: int) -> Tensor:
    """Return the tensor ``key``: normal numbers from a seed of its own, with a scale for its kind of tensor."""
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.long)
    if last == "logit_scale":
        return torch.full(shape, math.log(1 / 0.07))
    normal = np.asarray(np.random.RandomState(zlib.crc32(key.encode()) ^ seed).standard_normal(tuple(shape)))
    if last == "running_var":
        values = 1 + 0.1 * np.abs(normal)
    elif last.startswith("lamda"):
        values = 0.1 + 0.02 * normal
    elif key.endswith("token_embedding.weight"):
        values = 0.1 * normal
    elif last == "weight" and len(shape) == 1:
        values = 1 + 0.1 * normal
    elif last == "running_mean" or last.endswith("bias") or len(shape) <= 1:
        values = 0.05 * normal
    else:
        values = normal * (0.5 / math.sqrt(math.prod(shape[1:])))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@cache
def recorded(name: str) -> Case:
    return Case(name)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Return every recorded run in turn."""
    return recorded(request.param)


@pytest.fixture
def cases() -> list[Case]:
    """Return all recorded runs."""
    return [recorded(name) for name in CASES]


class ClassicalCase:
    """One recorded run of CompCos, CGE, Co-CGE or ADE, with the vectors of words and with features as images."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.json: dict[str, Any] = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz")) as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays}
        self.method: str = self.json["model"]
        pairs, seen = self.pairs("closed"), set(map(tuple, self.json["pairs"]["train"]))
        is_seen = torch.tensor([tuple(pair) in seen for pair in pairs.tolist()])
        self.space = PairSpace(self.json["attributes"], self.json["objects"], pairs, is_seen)

    def pairs(self, which: str) -> Tensor:
        return torch.tensor(self.json["pairs"][which])

    @property
    def images(self) -> ImageFeatures | Tensor:
        if "features" not in self.json["images"]:
            draw = np.random.RandomState(self.json["case_seed"]).standard_normal((6, 3, 64, 64))
            return torch.from_numpy(draw.astype(np.float32))
        count, width = self.json["images"]["n"], self.json["images"]["F"]
        draw = np.random.RandomState(self.json["case_seed"]).standard_normal((count, width))
        return ImageFeatures(torch.from_numpy((np.maximum(draw - 1.2, 0) * 6).astype(np.float32)))

    @property
    def batch(self) -> Batch:
        labels = self.json["labels"]
        return Batch(self.images, torch.tensor(labels["attr"]), torch.tensor(labels["obj"]))

    def vector(self, table: str, word: str, width: int) -> Tensor | None:
        """Return the vector of a word in a table of the case, None if the table does not have it."""
        known = self.json["word_vectors"]["tables"][table]
        if known["words"] != "any string" and word not in known["words"]:
            return None
        seed = zlib.crc32(f"{table}:{word}".encode()) ^ self.json["case_seed"]
        return torch.from_numpy((np.random.RandomState(seed).standard_normal(known["dim"]) * 0.3).astype(np.float32))

    @property
    def checkpoint(self) -> dict[str, Any]:
        """The content of the authors' file."""
        seed, encoder = self.json["case_seed"], self.json.get("image_extractor", {"prefix": "", "shapes": {}})
        state = {key: weight(key, shape, seed) for key, shape in self.json["shapes"].items()}
        own = {key: weight(encoder["prefix"] + key, shape, seed) for key, shape in encoder["shapes"].items()}
        return {"net": state, "epoch": 3, "AUC": 0.5} | ({"image_extractor": own} if own else {})

    def load(self, **config: Any) -> Method:
        """Load the case, with dropout switched off."""
        method = czslkit.load_original(
            self.method,
            self.checkpoint,
            self.space,
            {**self.json["config"], **config},
            word_vectors=self.vector,
            log=lambda _: None,
        )
        self._dropout = {}
        for module in method.modules():
            if isinstance(module, nn.Dropout):
                self._dropout[module], module.p = module.p, 0.0
        return method

    def dropout_of(self, module: nn.Dropout) -> float:
        """Return the dropout that a module of the last loaded method had."""
        return self._dropout[module]


@pytest.fixture
def classical_cases() -> list[ClassicalCase]:
    """Return all recorded runs of the classical methods."""
    return [ClassicalCase(path) for path in CLASSICAL]


CLASSICAL = sorted((Path(__file__).parent / "classical").glob("*.json"))


@pytest.fixture(params=CLASSICAL, ids=lambda path: path.stem)
def classical(request: pytest.FixtureRequest) -> ClassicalCase:
    """Return every recorded run of the classical methods in turn."""
    return ClassicalCase(request.param)


class AdeCase(ClassicalCase):
    """One recorded run of ADE, with six images and their companions."""

    def drawn(self, offset: int) -> Tensor:
        seed, size = self.json["case_seed"] + offset, self.json["images"]["size"]
        noise = np.random.RandomState(seed).standard_normal((6, 3, size, size)).astype(np.float32)
        colours = 3.0 * np.random.RandomState(seed + 7).standard_normal((6, 3, 1, 1))
        return torch.from_numpy((noise + colours).astype(np.float32))

    @property
    def images(self) -> Tensor:
        return self.drawn(0)

    @property
    def batch(self) -> Batch:
        attr, obj = (torch.tensor(self.json["labels"][kind]) for kind in ("attr", "obj"))
        companions = {"same_attr": Batch(self.drawn(1), attr, obj), "same_obj": Batch(self.drawn(2), attr, obj)}
        return Batch(self.images, attr, obj, companions=companions)


ADE = sorted((Path(__file__).parent / "ade").glob("*.json"))


@pytest.fixture(params=ADE, ids=lambda path: path.stem)
def ade(request: pytest.FixtureRequest) -> AdeCase:
    """Return every recorded run of ADE in turn."""
    return AdeCase(request.param)


class GipcolCase(ClassicalCase):
    """One recorded run of GIPCOL, whose program reads the feasibility of pairs beside the checkpoint."""

    @property
    def images(self) -> Tensor:
        draw = np.random.RandomState(self.json["case_seed"]).standard_normal((6, 3, 32, 32))
        return torch.from_numpy(draw.astype(np.float32))

    @property
    def feasibility(self) -> Tensor:
        return torch.tensor(self.json["feasibility"])

    def weights(self, shapes: dict[str, Any]) -> dict[str, Tensor]:
        """Return tensors by the names of their model."""
        return {key: weight(key, shape, self.json["case_seed"]) for key, shape in shapes.items()}

    @property
    def clip(self) -> dict[str, Tensor]:
        """The CLIP of the case, with the names and the text positions of OpenAI's file."""
        prefix, shapes = self.json["clip_checkpoint"]["prefix"], self.json["clip_checkpoint"]["shapes"]
        named = self.weights({prefix + key: shape for key, shape in shapes.items()})
        return {key.removeprefix(prefix): value for key, value in named.items()}

    def load(self, **config: Any) -> Method:
        """Load the case with its feasibility, with dropout switched off."""
        settings = {**self.json["config"], "feasibility": self.json["feasibility"], **config}
        state = self.weights(self.json["shapes"])
        method = czslkit.load_original("gipcol", state, self.space, settings, log=lambda _: None)
        self._dropout = {}
        for module in method.modules():
            if isinstance(module, nn.Dropout):
                self._dropout[module], module.p = module.p, 0.0
        return method


GIPCOL = sorted((Path(__file__).parent / "gipcol").glob("*.json"))


@pytest.fixture(params=GIPCOL, ids=lambda path: path.stem)
def gipcol(request: pytest.FixtureRequest) -> GipcolCase:
    """Return every recorded run of GIPCOL in turn."""
    return GipcolCase(request.param)
