"""The progress of a benchmark."""

from __future__ import annotations

from typing import Any

import pytest

from czslkit.terminal import Progress


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int | None]]:
    """The loops that were shown when they ended: name -> steps that were done, and their total."""
    found: dict[str, tuple[int, int | None]] = {}
    leave = Progress.__exit__

    def left(self: Progress, *error: object) -> None:
        if self in Progress._told:
            found[self.name] = self.done, self.total
        leave(self, *error)

    monkeypatch.setattr(Progress, "__exit__", left)
    return found


def test_every_long_phase_shows_its_progress(bench_toys: Any, loops: dict[str, Any]) -> None:
    settings = {"train.select": "loss", "train.epochs": 1}
    assert bench_toys("csp", "closed,open", settings=settings, progress=True).failed == 0
    assert loops == {
        "images of toys checked": (37, 37),
        "epoch 1/1, batches": (3, 3),
        "val images encoded, batches": (1, 1),
        "val images scored": (8, 8),
        "validation loss, batches": (1, 1),
        "test images encoded, batches": (1, 1),
        "test images scored": (8, 8),
    }


def test_decoded_images_show_their_progress(bench_toys: Any, loops: dict[str, Any]) -> None:
    bench_toys("clip", progress=True, cache_images=True)
    assert [loops[f"{split} images decoded"] for split in ("train", "val", "test")] == [(21, 21), (8, 8), (8, 8)]


def test_no_progress_is_shown_against_the_will_of_the_user(bench_toys: Any, loops: dict[str, Any]) -> None:
    bench_toys("csp", progress=False, settings={"train.epochs": 1}, cache_images=True)
    assert loops == {}
