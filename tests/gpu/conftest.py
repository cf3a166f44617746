"""Tests on an accelerator: ``pytest -m gpu tests/gpu``.

``CZSLKIT_TEST_DEVICE=cpu`` runs the same tests with two methods on the CPU, which shows that the tests themselves work.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import czslkit
from czslkit.method import METHODS
from czslkit.metrics.names import WORLDS
from czslkit.testing.tiny_data import NAME
from czslkit.testing.trial import MethodTrial

DEVICE = os.environ.get("CZSLKIT_TEST_DEVICE", "cuda")
#: Settings that make a method small.
SMALL: dict[str, dict[str, Any]] = {
    "msci": {"low_layers": 2, "high_layers": 3, "heads": (2, 2), "layers": (1, 2), "adapter_dim": 4},
    "troika": {"layers": 2, "adapter_dim": 4},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the argument ``name`` for every registered method."""
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", METHODS if DEVICE == "cuda" else ("csp", "msci"))


@pytest.fixture
def device() -> torch.device:
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device(DEVICE)


@pytest.fixture
def trial(name: str, tmp_path: Path, clip_file: Path) -> MethodTrial:
    options = {} if name == "visprod" else {"backbone": str(clip_file)}
    return MethodTrial(name, {**options, **SMALL.get(name, {})}, tmp_path)


@pytest.fixture
def bench(trial: MethodTrial, device: torch.device, tmp_path: Path) -> Any:
    """Runs a benchmark of the method in both worlds; returns a result for each world. Log lines are in ``.lines``."""
    assert trial.data

    def go(runs: str = "runs", log: Any = None, checkpoints: Any = (), workers: int = 0, **train: Any) -> Any:
        go.lines = []
        methods = {"checkpoints": checkpoints} if checkpoints else {"methods": [trial.name]}
        done = czslkit.bench(
            datasets=NAME,
            worlds=WORLDS,
            data=tmp_path / "data",
            runs=tmp_path / runs,
            settings={} if checkpoints else trial.settings(**{"epochs": 2, **train}),
            device=str(device),
            workers=workers,
            progress=False,
            log=log or go.lines.append,
            **methods,
        )
        assert [result.get("error") for result in done.results] == [None] * len(WORLDS)
        return done.results

    return go
