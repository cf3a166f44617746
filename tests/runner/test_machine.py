"""The device of a benchmark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from czslkit.method import METHODS, build
from czslkit.runner import machine
from czslkit.runner.machine import Machine, available_cores
from czslkit.runner.request import Request
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


@pytest.fixture
def cores(monkeypatch):
    """Sets the number of cores that this process may use."""
    monkeypatch.setattr(machine.multiprocessing, "get_start_method", lambda allow_none: "fork")
    return lambda count: monkeypatch.setattr(machine, "available_cores", lambda: count)


@pytest.mark.parametrize(
    ("count", "jobs", "workers"),
    [(1, 1, 0), (2, 1, 0), (3, 1, 2), (4, 1, 3), (9, 1, 8), (64, 1, 8), (64, 2, 8), (64, 9, 7), (16, 4, 3), (4, 4, 0)],
)
def test_a_core_is_left_for_the_program_and_jobs_share_the_others(cores, count, jobs, workers):
    cores(count)
    assert Machine(jobs=jobs).automatic_workers() == workers


def test_images_are_read_in_the_program_where_processes_import_it_again(cores, monkeypatch):
    cores(16)
    monkeypatch.setattr(machine.multiprocessing, "get_start_method", lambda allow_none: "spawn")
    assert Machine().automatic_workers() == 0
    monkeypatch.setattr(machine.multiprocessing, "get_start_method", lambda allow_none: None)
    monkeypatch.setattr(machine.multiprocessing, "get_all_start_methods", lambda: ["forkserver", "spawn", "fork"])
    assert Machine().automatic_workers() == 0


def test_a_request_chooses_the_number_of_processes_unless_it_is_given(cores, tmp_path):
    cores(5)
    for asked, found in (("auto", 4), (0, 0), (2, 2)):
        request = Request("clip", runs=tmp_path, settings={"backbone": "demo"}, workers=asked)
        [job] = request.jobs(lambda line: None)
        assert job.machine.workers == found


def test_cores_are_bounded_by_binding_and_by_the_container(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "CONTAINER_CORES", tmp_path / "cpu.max")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: {0, 3, 5, 6}, raising=False)
    assert available_cores() == 4
    for content, count in (("max 100000", 4), ("250000 100000", 2), ("900000 100000", 4), ("50000 100000", 1)):
        (tmp_path / "cpu.max").write_text(content)
        assert available_cores() == count
    monkeypatch.delattr(machine.os, "sched_getaffinity")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 3)
    (tmp_path / "cpu.max").unlink()
    assert available_cores() == 3
