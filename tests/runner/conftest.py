"""A benchmark on the toys, and plugins that tests write and change."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import czslkit
from czslkit.data.splits import Splits
from czslkit.registry import REGISTRIES, load_plugins
from czslkit.runner import forecast
from czslkit.training.epoch import Trainer


@pytest.fixture
def bench_toys(toys: Path, clip_file: Path, tmp_path: Path) -> Any:
    """Benchmark of CSP on the toys; its log lines are in ``.log_lines``."""

    def go(methods: str = "csp", worlds: str = "closed", settings: Any = None, **arguments: Any) -> Any:
        go.log_lines = []
        quick = {"backbone": str(clip_file), "train.epochs": 2, "train.batch_size": 8, "train.lr": 1e-2}
        where = {"data": toys, "runs": tmp_path / "runs", "log": go.log_lines.append, "progress": False}
        return czslkit.bench(methods, "toys", worlds, settings=quick | (settings or {}), **(where | arguments))

    return go


@pytest.fixture
def data(toys: Path) -> Splits:
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clock so that work on n items takes n seconds."""
    monkeypatch.setattr(forecast, "measured_seconds", lambda do, n, device: (do(n), float(n))[1])


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list with an entry for each trained epoch."""
    epochs: list[int] = []
    real = Trainer.run

    def counted(*args: Any) -> Any:
        epochs.append(1)
        return real(*args)

    monkeypatch.setattr(Trainer, "run", counted)
    return epochs


@pytest.fixture
def own_registrations() -> Iterator[None]:
    """Remove the names that a test registers."""
    load_plugins()
    before = {kind: dict(registry._items) for kind, registry in REGISTRIES.items()}
    yield
    for kind, registry in REGISTRIES.items():
        registry._items = before[kind]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_registrations: None) -> Iterator[Any]:
    """Write modules on ``sys.path`` and import them anew, as a new process does: ``package({"mine.py": "..."})``."""
    folder = tmp_path / "packages"
    monkeypatch.syspath_prepend(folder)
    written: set[str] = set()

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in written]:
            del sys.modules[name]

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        written.update(Path(name).parts[0].removesuffix(".py") for name in files)
        forget()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        importlib.invalidate_caches()
        for name in sorted(written):
            importlib.import_module(name)

    yield write
    forget()
