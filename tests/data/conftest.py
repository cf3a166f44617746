from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from czslkit.data.layout import metadata_file, write_dataset

Entries = list[dict[str, str]]

PAIRS = {
    "train": [("wet", "dog"), ("dry", "cat")],
    "val": [("wet", "dog"), ("dry", "dog")],
    "test": [("wet", "cat"), ("dry", "cat")],
}
SHOWN = {"train": 3, "val": 2, "test": 2}


def pictures() -> Iterator[tuple[dict[str, str], Image.Image]]:
    for phase, pairs in PAIRS.items():
        for attr, obj in pairs:
            for n in range(SHOWN[phase]):
                entry = {"image": f"{attr}_{obj}/{phase}{n}.jpg", "attr": attr, "obj": obj, "set": phase}
                yield entry, Image.effect_noise((40 + n, 33), 60).convert("RGB")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """The folder of a dataset of wet and dry cats and dogs: 6 + 4 + 4 images."""
    assert write_dataset(tmp_path / "pets", PAIRS, pictures())
    return tmp_path / "pets"


@pytest.fixture
def edit(pets: Path) -> Callable[[Callable[[Entries], None]], None]:
    """Applies a function to the metadata of ``pets``."""

    def apply(change: Callable[[Entries], None]) -> None:
        entries = torch.load(metadata_file(pets), weights_only=True)
        change(entries)
        torch.save(entries, metadata_file(pets))

    return apply
