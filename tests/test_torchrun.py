"""What the environment of torchrun says, and the device of each process."""

from __future__ import annotations

import pytest
import torch

from czslkit import distributed
from czslkit.errors import ConfigError
from czslkit.runner.machine import Machine
from czslkit.torchrun import local_rank, process_count, process_rank

VARIABLES = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of the second process of two."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def test_a_process_without_torchrun_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert (process_count(), process_rank(), local_rank()) == (1, 0, 0)
    distributed.connect()
    assert distributed.size() == 1


@pytest.mark.usefixtures("second_of_two")
def test_a_process_knows_its_number() -> None:
    assert (process_count(), process_rank(), local_rank()) == (2, 1, 1)


@pytest.mark.usefixtures("second_of_two")
def test_the_processes_of_a_node_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("czslkit.runner.machine.available_cores", lambda: 9)
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none: "fork")
    assert Machine("cpu").automatic_workers() == 4


@pytest.mark.usefixtures("second_of_two")
def test_missing_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is 2, but MASTER_PORT of the environment is not set"):
        process_count()


def test_a_number_of_processes_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'many', expected a whole number"):
        process_count()


@pytest.mark.usefixtures("second_of_two")
def test_several_processes_compute_on_cuda_or_cpu() -> None:
    assert Machine("cpu").torch_device() == torch.device("cpu")
    with pytest.raises(ConfigError, match="device is 'mps', expected cuda or cpu"):
        Machine("mps").torch_device()


@pytest.mark.usefixtures("second_of_two")
def test_every_process_needs_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="process 2 on this node needs a GPU of its own, found 1"):
        distributed.connect()
