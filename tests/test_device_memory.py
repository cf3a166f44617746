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
