"""Find the folders and names of datasets on this machine. It does not import torch."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError, did_you_mean
from ..options import user_path
from ..registry import unknown_name
from .datasets import DATASETS, Dataset, missing_folder_note
from .layout import metadata_file, pairs_file


def canonical(name: str) -> str:
    """Return the registered name of a dataset for an alias, and every other name unchanged.

    >>> canonical("ut-zap50k"), canonical("cgqa")
    ('ut-zappos', 'cgqa')
    """
    if name in DATASETS:
        return name
    return next((known for known in DATASETS if name in DATASETS[known].aliases), name)


def dataset(name: str) -> Dataset:
    """Return the description of a dataset. An unregistered dataset has the field's layout."""
    name = canonical(name)
    return DATASETS[name](name) if name in DATASETS else Dataset(name)


def data_root(root: str | Path | None = None) -> Path:
    """Return the folder of all datasets: ``root``, else ``CZSLKIT_DATA`` from the environment, else ``./data``.

    Raises:
        ConfigError: ``root`` is empty.
    """
    return user_path((os.environ.get("CZSLKIT_DATA") or "data") if root is None else root)


def find_folder(name: str, root: str | Path | None = None) -> Path | None:
    """Return the folder of a dataset, or None if the dataset is registered and absent.

    Raises:
        UnknownNameError: the name is neither a registered dataset nor a folder in ``root``.
        DataError: ``root`` is a file.
    """
    base, known = data_root(root), dataset(name)
    if base.is_file():
        raise DataError(f"{base} is a file, expected the folder of the datasets")
    if known.name in DATASETS:
        folders = (base / known_name for known_name in (known.name, *known.aliases))
        return next((folder for folder in folders if folder.is_dir()), None)
    if not name or Path(name).name != name or name.startswith(".") or not (base / name).is_dir():
        names = sorted({*DATASETS, *unregistered(base)})
        raise unknown_name(
            name,
            f"no dataset named {name!r}.{did_you_mean(name, [*names, *_aliases()])} Known: {', '.join(names)}. "
            f"A folder of that name in {base} is accepted, too.{missing_folder_note(base)}",
        )
    return base / name


def ensure_folder(name: str, root: str | Path | None = None) -> Path:
    """Return the folder of a dataset. If the dataset is absent and can be made, as ``demo`` can, make it first.

    Raises:
        UnknownNameError: the name is neither a registered dataset nor a folder in ``root``.
        DataError: the dataset is absent and cannot be made, with its download addresses; or it cannot be written.
    """
    folder = find_folder(name, root)
    if folder is None:
        known = dataset(name)
        folder = data_root(root) / known.name
        known.make(folder)
    return folder


def unregistered(base: Path) -> list[str]:
    """Return the names of the folders in ``base`` that have the field's layout and belong to no registered dataset."""
    taken = {*DATASETS, *_aliases()}
    return [name for name in folders_in_layout(base) if name not in taken]


def folders_in_layout(base: Path) -> list[str]:
    """Return the names of the folders in ``base`` that have the field's layout, without hidden folders."""
    folders = base.iterdir() if base.is_dir() else ()
    return sorted(f.name for f in folders if _has_layout(f) and not f.name.startswith("."))


def is_in_dataset(image: Path) -> bool:
    """Return whether an image is below the folder ``images`` of a registered dataset or of a folder in the layout."""
    folders = [parent.parent for parent in image.absolute().parents if parent.name == "images"]
    return any(_has_layout(folder) or canonical(folder.name) in DATASETS for folder in folders)


def _has_layout(folder: Path) -> bool:
    return metadata_file(folder).is_file() or pairs_file(folder, "train").is_file()


def _aliases() -> list[str]:
    return [alias for name in DATASETS for alias in DATASETS[name].aliases]
