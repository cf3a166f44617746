"""The device of a benchmark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from czslkit.method import METHODS, build
from czslkit.runner.machine import Machine
from czslkit.testing.tiny_data import demo_space
from czslkit.types import Batch, Setting


@pytest.mark.parametrize(
    ("available", "device"), [({"cuda", "mps"}, "cuda"), ({"mps"}, "mps"), ({"cuda"}, "cuda"), (set(), "cpu")]
)
def test_auto_is_the_accelerator_that_torch_can_use(monkeypatch, available, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in available)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: SimpleNamespace(device=torch.device(device)))
    assert Machine("auto").torch_device() == torch.device(device)
    assert Machine("cpu").torch_device() == torch.device("cpu")


class DoublesSeen(TorchDispatchMode):
    """Records the operations that return float64, which MPS does not have."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            self.names.append(str(func))
        return result


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].__module__.startswith("czslkit_plugins.")])
def test_no_method_computes_in_float64(name):
    method = build(name, demo_space(), backbone="demo")
    pairs, size = method.space.pairs, method.backbone.image_size
    zeros = torch.zeros(2, dtype=torch.long)
    batch = Batch(torch.rand(2, 3, size, size), zeros, zeros)
    with DoublesSeen() as doubles:
        image = method.encode(batch.images)
        method.rank(image, method.text(pairs), Setting("test", "open", len(pairs)))
        if method.trains:
            method.train().loss(batch, pairs[method.space.seen]).backward()
    assert doubles.names == []


def test_float64_is_noticed():
    with DoublesSeen() as doubles:
        torch.zeros(2).double()
    assert doubles.names == ["aten._to_copy.default"]
