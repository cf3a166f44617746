"""Write a dataset to disk in the field's layout. Only writing the metadata imports torch."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from PIL import Image

from ..errors import DataError
from ..files import file_lock, remove_unfinished, unfinished
from ..terminal import log_to_stderr
from .layout import SPLITS, Pair, images_folder, import_record, metadata_file, pairs_file
from .pair_lists import encode_pairs
from .removal import check_removable, delete_folder, list_written, lock_file

LabelledImage = tuple[dict[str, str], Image.Image | Path]
"""Metadata entry of an image, and the image or its file."""


def write_dataset(
    folder: Path,
    pairs: Mapping[str, Iterable[Pair]],
    images: Iterable[LabelledImage],
    *,
    link: bool = False,
    log: Callable[[str], None] = log_to_stderr,
    replace: bool = False,
    imported: Mapping[str, object] | None = None,
) -> bool:
    """Write a whole dataset, or nothing: the folder gets its name once it is complete.

    If several processes write the same dataset, one of them writes and the others wait.

    Args:
        folder: new folder. Its parents are created.
        pairs: pairs of each split, in the order of the lists.
        images: metadata entry of each image, and the image or its file. It is written to ``images/<entry["image"]>``.
        link: hard-link files instead of copying them.
        log: called with a line of text if this process has to wait.
        replace: replace a dataset of this name that czslkit wrote.
        imported: what is known about an import, for ``imported.json``; the images are then read as imported ones.

    Returns:
        False if the folder already existed and was not changed, else True.

    Raises:
        DataError: the folder cannot be written or replaced.
    """
    try:
        with file_lock(lock_file(folder), log):
            if folder.exists():
                if not replace:
                    return False
                check_removable(folder)
            remove_unfinished(folder.parent)
            with unfinished(folder) as made:
                _write_files(made, pairs, images, link)
                if imported is not None:
                    import_record(made).write_text(json.dumps(imported, indent=1), encoding="utf-8")
                list_written(made)
                if folder.exists():
                    delete_folder(folder)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}") from error
    return True


def _write_files(
    folder: Path, pairs: Mapping[str, Iterable[Pair]], images: Iterable[LabelledImage], link: bool
) -> None:
    import torch

    for split in SPLITS:
        file = pairs_file(folder, split)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_pairs(pairs[split]))
    entries = []
    for entry, image in images:
        file = images_folder(folder) / entry["image"]
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, Image.Image):
            image.save(file, quality=95)
        elif link:
            _hard_link(image, file)
        else:
            shutil.copyfile(image, file)
        entries.append(entry)
    torch.save(entries, metadata_file(folder))


def _hard_link(source: Path, target: Path) -> None:
    """Create ``target`` as a hard link.

    Raises:
        DataError: ``source`` and ``target`` are on different disks.
    """
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise DataError(f"{source} and {target} are on different disks: copy instead of linking") from error
        raise
