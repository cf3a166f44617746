"""The memory of a device: of the machine, of its container, and what is free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from czslkit import device_memory
from czslkit.device_memory import plannable_memory, total_memory

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device_memory, "CONTAINER", tmp_path)
    return tmp_path


def test_the_memory_of_a_machine_is_that_of_its_container(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = total_memory(CPU)
    assert whole and whole > 10**8
    (container / "memory.max").write_text("max\n")
    assert total_memory(CPU) == whole
    (container / "memory.max").write_text("1000000\n")
    assert total_memory(CPU) == 1_000_000
    monkeypatch.delattr(device_memory.os, "sysconf")
    assert total_memory(CPU) == 1_000_000
    (container / "memory.max").unlink()
    assert total_memory(CPU) is None


def test_what_may_be_planned_is_a_share_of_what_is_free_and_held(
    container: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = container / "meminfo"
    monkeypatch.setattr(device_memory, "MEMORY_FILE", free)
    assert plannable_memory(CPU, 7) is None
    free.write_text("MemTotal:  900 kB\nMemAvailable:     500 kB\n")
    assert plannable_memory(CPU, 88_000) == 570_000
    (container / "memory.max").write_text("400000\n")
    (container / "memory.current").write_text("300000\n")
    (container / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert plannable_memory(CPU, 100_000) == 285_000


def test_trainings_that_share_a_device_plan_an_equal_part_at_most(
    container: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_memory, "MEMORY_FILE", container / "meminfo")
    (container / "meminfo").write_text("MemAvailable:     500 kB\n")
    (container / "memory.max").write_text("600000\n")
    monkeypatch.setenv(device_memory.SHARING, "2")
    assert plannable_memory(CPU, 0) == 285_000  # of 300,000
    (container / "meminfo").write_text("MemAvailable:     100 kB\n")
    assert plannable_memory(CPU, 0) == 97_280  # no more is free
    for name, value in {"WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1")
    (container / "meminfo").write_text("MemAvailable:     500 kB\n")
    assert plannable_memory(CPU, 0) == 95_000  # two jobs of three processes each
