"""TODO."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError, UnknownNameError, did_you_mean
from ..registry import failures
from .datasets import DATASETS, Dataset
from .layout import metadata_file, pairs_file


def canonical(name: str) -> str:
    """The one spelling of a dataset's name.

    >>> canonical("ut-zap50k"), canonical("cgqa")
    ('ut-zappos', 'cgqa')
    """
    if name in DATASETS:
        return name
    return next((known for known in DATASETS if name in DATASETS[known].aliases), name)


def dataset(name: str) -> Dataset:
    """What is known about a dataset: of an unregistered one, that it is in the field's layout."""
    name = canonical(name)
    return DATASETS[name](name) if name in DATASETS else Dataset(name)


def data_root(root: str | Path | None = None) -> Path:
    """Where datasets lie: ``root``, else what ``CZSLKIT_DATA`` says, else ``data`` in the current folder."""
    return Path(root or os.environ.get("CZSLKIT_DATA") or "data").expanduser()


def find_folder(name: str, root: str | Path | None = None) -> Path | None:
    """The folder of a dataset, None where a registered one is absent.

    Raises:
        UnknownNameError: neither a registered dataset nor a folder under ``root``.
    """
    base, asked = data_root(root), dataset(name)
    if base.is_file():
        raise DataError(f"{base} is a file, expected the folder of the datasets")
    if asked.name in DATASETS:
        folders = (base / each for each in (asked.name, *asked.aliases))
        return next((folder for folder in folders if folder.is_dir()), None)
    if not name or Path(name).name != name or name.startswith(".") or not (base / name).is_dir():
        known = sorted({*DATASETS, *unregistered(base)})
        raise UnknownNameError(
            f"no dataset named {name!r}.{did_you_mean(name, [*known, *_aliases()])} Known: {', '.join(known)}. "
            f"A folder of that name under {base} would do, too." + "".join(f"\n  {line}" for line in failures())
        )
    return base / name


def ensure_folder(name: str, root: str | Path | None = None) -> Path:
    """The folder of a dataset, which is made where it is absent and can be: ``demo`` is rendered.

    Raises:
        UnknownNameError: neither a registered dataset nor a folder under ``root``.
        DataError: a dataset that is absent, with where to get it; or it cannot be written.
    """
    folder = find_folder(name, root)
    if folder is None:
        asked = dataset(name)
        folder = data_root(root) / asked.name
        asked.make(folder)
    return folder


def unregistered(base: Path) -> list[str]:
    """Folders under ``base`` in the field's layout that no registered dataset claims; hidden ones do not count."""
    folders = base.iterdir() if base.is_dir() else ()
    names = [each.name for each in folders if metadata_file(each).is_file() or pairs_file(each, "train").is_file()]
    taken = {*DATASETS, *_aliases()}
    return sorted(name for name in names if not name.startswith(".") and name not in taken)


def _aliases() -> list[str]:
    return [alias for name in DATASETS for alias in DATASETS[name].aliases]
