"""Remove datasets that czslkit wrote. Each has a list of the files that were written; no other dataset is removed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from ..errors import DataError, first_ten
from ..files import file_lock
from ..terminal import log_to_stderr

WRITTEN = "written.json"
"""File in the folder of a dataset that lists the files that czslkit wrote."""
_LEFT_BY_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")


def list_written(folder: Path) -> None:
    """Write the list of all files in a folder into the folder."""
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    (folder / WRITTEN).write_text(json.dumps({"files": [*files, WRITTEN]}, indent=0), encoding="utf-8")


def remove_dataset(name: str, root: str | Path | None = None) -> Path:
    """Delete a dataset that ``czslkit data import`` or ``czslkit data mini`` wrote, and return its former folder.

    Args:
        name: name of the dataset, as in ``load_dataset``.
        root: the folder of all datasets, as in ``load_dataset``.

    Raises:
        UnknownNameError: there is no dataset of that name.
        DataError: it is absent, czslkit did not write it, or files were added to it; or it cannot be deleted.
    """
    from .dataset_folders import find_folder  # here, since the modules that write datasets do not need the registry

    folder = find_folder(name, root)
    if folder is None:
        raise DataError(f"{name} is absent, there is nothing to remove")
    check_removable(folder)
    try:
        with file_lock(lock_file(folder), log_to_stderr):
            delete_folder(folder)
    except OSError as error:
        raise DataError(f"cannot remove {folder}: {error}") from error
    return folder


def check_removable(folder: Path) -> None:
    """Check that czslkit wrote every file of a dataset, so that nothing else is lost with it.

    Raises:
        DataError: czslkit did not write the dataset, or files were added to it.
    """
    remedy = "look at it and delete it yourself"
    if folder.is_symlink():
        raise DataError(f"{folder} is a link to {os.readlink(folder)} and is not removed: {remedy}")
    try:
        written = set(json.loads((folder / WRITTEN).read_bytes())["files"])
    except FileNotFoundError:
        raise DataError(
            f"{folder} has no {WRITTEN}, so 'czslkit data import' or 'czslkit data mini' did not write it, and it is "
            f"not removed: {remedy}"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder / WRITTEN} is damaged, and {folder} is not removed: {remedy}") from error
    found = (file for file in folder.rglob("*") if file.is_symlink() or not file.is_dir())
    names = {file.relative_to(folder).as_posix() for file in found if file.name not in _LEFT_BY_SYSTEMS}
    if added := sorted(names - written):
        raise DataError(
            f"{folder} has {len(added)} files that czslkit did not write, and is not removed: {first_ten(added)}. "
            "Move them away first"
        )


def delete_folder(folder: Path) -> None:
    """Delete a folder, which loses its name at once."""
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)  # a killed process may have left it
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def lock_file(folder: Path) -> Path:
    """Return the file that a process locks while it writes or removes a dataset."""
    return folder.with_name(f".{folder.name}.lock")
