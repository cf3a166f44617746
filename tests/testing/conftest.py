"""Registries that plugin files may fill for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from czslkit.registry import REGISTRIES, load_plugins

THIRD_PARTY = Path(__file__).parents[1] / "third_party"


@pytest.fixture(scope="module", autouse=True)
def registries() -> Iterator[None]:
    """Restore every registry after the tests of a module."""
    load_plugins()
    before = {kind: dict(registry._items) for kind, registry in REGISTRIES.items()}
    yield
    for kind, items in before.items():
        REGISTRIES[kind]._items = items
