"""What there is of each dataset, and what is on its way. Needs no torch, and opens no image."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...sizes import format_bytes
from ..datasets import DATASETS
from ..download.resumable_http import TransferRecord
from ..fingerprint import image_sizes
from ..folders import data_root, dataset, find_folder, unregistered
from ..layout import images_folder
from ..sources import DOWNLOADS


@dataclass(frozen=True)
class DatasetStatus:
    """A dataset as it lies on the disk."""

    name: str
    folder: Path | None
    """None where it is absent."""
    fault: str
    """Why it is not complete, empty if it is; whether it is right is another question."""
    images: int
    size: int
    """Of the images, in bytes."""

    @property
    def state(self) -> str:
        return ("incomplete" if self.fault else "complete") if self.folder else "absent"


def dataset_statuses(root: str | Path | None = None) -> list[DatasetStatus]:
    """Every registered dataset, and every other folder in the field's layout."""
    return [_holding(name, find_folder(name, root)) for name in (*DATASETS, *unregistered(data_root(root)))]


def unfinished_downloads(root: str | Path | None = None) -> list[str]:
    """A line for every archive that is partly or wholly here, and for every dataset that is being unpacked."""
    base = data_root(root)
    lines = []
    for file in sorted((base / DOWNLOADS).glob("*")) if (base / DOWNLOADS).is_dir() else []:
        if file.suffix == ".partial":
            begun = TransferRecord.read(file)
            total = format_bytes(begun.total) if begun and begun.total else "an unknown size"
            lines.append(f"{file.stem}: {format_bytes(file.stat().st_size)} of {total} have come")
        elif ".refused" in file.suffix:
            lines.append(f"{file.name}: refused, {format_bytes(file.stat().st_size)} that can be deleted")
        elif file.name.endswith((".zip", ".tar.gz")):
            lines.append(f"{file.name}: {format_bytes(file.stat().st_size)}, whole")
    return lines + [f"{work.stem[1:]}: partly unpacked" for work in sorted(base.glob(".*.download"))]


def free_space(root: str | Path | None = None) -> str:
    """How much can still be written where the datasets lie, as a line."""
    base = data_root(root)
    there = next(folder for folder in (base, *base.absolute().parents) if folder.is_dir())
    return f"{base}: {format_bytes(shutil.disk_usage(there).free)} free"


def _holding(name: str, folder: Path | None) -> DatasetStatus:
    if folder is None:
        return DatasetStatus(name, None, "", 0, 0)
    sizes = image_sizes(images_folder(folder))
    fault = "" if sizes else f"no images in {images_folder(folder)}"
    try:
        dataset(name).files(folder)
    except DataError as error:
        fault = str(error)
    return DatasetStatus(name, folder, fault, len(sizes), sum(sizes.values()))
