"""Pictures to import, as folders and as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from czslkit.data.make.dataset_import import import_dataset
from czslkit.errors import DataError

ATTRS, OBJS = ("dry", "old", "wet"), ("cat", "dog", "fish")


def write_noise(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)).save(file, "PNG")


@pytest.fixture
def draw() -> Callable[[Path, int], None]:
    """Writes a picture of noise, given a file and a seed."""
    return write_noise


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine folders of four images."""
    for n, (attr, obj) in enumerate((a, o) for a in ATTRS for o in OBJS):
        for k in range(4):
            write_noise(tmp_path / "photos" / f"{attr}_{obj}" / f"{k}.png", 10 * n + k)
    return tmp_path / "photos"


@pytest.fixture
def table(photos: Path) -> Callable[..., Path]:
    """Writes a table in the folder of ``photos``, given its rows."""

    def write(*rows: str, header: str = "image,attr,obj") -> Path:
        file = photos / "table.csv"
        file.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
        return file

    return write


@pytest.fixture
def all_rows(photos: Path) -> list[str]:
    """A row for each picture of ``photos``."""
    files = sorted(photos.rglob("*.png"))
    return [f"{f.parent.name}/{f.name},{f.parent.name.replace('_', ',')}" for f in files]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Path, str], str]:
    """Checks that a source is not imported and returns the message."""

    def check(source: Path, match: str) -> str:
        with pytest.raises(DataError, match=match) as info:
            import_dataset(source, "mine", tmp_path)
        assert not (tmp_path / "mine").exists()
        return str(info.value)

    return check
