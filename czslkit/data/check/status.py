"""Report which datasets are on the disk, which downloads are unfinished and how much space is free. Needs no torch."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...sizes import format_bytes
from ..dataset_folders import data_root, dataset, find_folder, unregistered
from ..datasets import DATASETS
from ..download.resumable_http import TransferRecord
from ..fingerprint import image_sizes
from ..layout import images_folder
from ..sources import DOWNLOADS


@dataclass(frozen=True)
class DatasetStatus:
    """A dataset's folder, and whether the dataset is complete. Images are not opened for it."""

    name: str
    folder: Path | None
    """None if the dataset is absent."""
    problem: str
    """Why the dataset is incomplete, empty if it is complete or absent."""
    images: int
    """Number of image files."""
    size: int
    """Bytes of all image files."""
    note: str = ""
    """What no source states about a dataset that is here."""

    @property
    def state(self) -> str:
        """One of ``complete``, ``incomplete`` and ``absent``."""
        return ("incomplete" if self.problem else "complete") if self.folder else "absent"


def dataset_statuses(root: str | Path | None = None) -> list[DatasetStatus]:
    """Return the status of every registered dataset, and of every other folder in the field's layout."""
    return [_dataset_status(name, find_folder(name, root)) for name in (*DATASETS, *unregistered(data_root(root)))]


def unfinished_downloads(root: str | Path | None = None) -> list[str]:
    """Return one line of text for every archive in the download folder, and for every partly unpacked dataset."""
    base = data_root(root)
    files = sorted((base / DOWNLOADS).glob("*")) if (base / DOWNLOADS).is_dir() else []
    lines = [line for file in files if (line := _archive_line(file))]
    return lines + [f"{work.stem[1:]}: partly unpacked" for work in sorted(base.glob(".*.download"))]


def free_space(root: str | Path | None = None) -> str:
    """Return a line of text with the free space of the disk with the folder of all datasets."""
    base = data_root(root)
    existing = next(folder for folder in (base, *base.absolute().parents) if folder.is_dir())
    return f"{base}: {format_bytes(shutil.disk_usage(existing).free)} free"


def _dataset_status(name: str, folder: Path | None) -> DatasetStatus:
    known = dataset(name)
    if folder is None:
        return DatasetStatus(name, None, "", 0, 0)
    sizes = image_sizes(images_folder(folder))
    problem = "" if sizes else f"no images in {images_folder(folder)}"
    try:
        known.files(folder)
    except DataError as error:
        problem = str(error)
    return DatasetStatus(name, folder, problem, len(sizes), sum(sizes.values()), known.unpublished)


def _archive_line(file: Path) -> str:
    """Return the description of a file in the download folder, empty for locks and records."""
    size = format_bytes(file.stat().st_size)
    if file.suffix == ".partial":
        record = TransferRecord.read(file)
        total = format_bytes(record.total) if record and record.total else "an unknown size"
        return f"{file.stem}: {size} of {total} downloaded"
    if ".refused" in file.suffix:
        return f"{file.name}: {size}, refused; you can delete it"
    if file.name.endswith((".zip", ".tar.gz")):
        return f"{file.name}: {size}, complete"
    return ""
