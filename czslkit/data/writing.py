"""Write a dataset to disk in the field's layout. Only writing the metadata imports torch."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from PIL import Image

from ..errors import DataError
from ..files import file_lock, log_to_stderr, remove_unfinished, unfinished
from .layout import SPLITS, Pair, images_folder, metadata_file, pairs_file
from .pair_lists import encode_pairs

LabelledImage = tuple[dict[str, str], Image.Image | Path]
"""Metadata entry of an image, and the image or its file."""


def write_dataset(
    folder: Path,
    pairs: Mapping[str, Iterable[Pair]],
    images: Iterable[LabelledImage],
    *,
    link: bool = False,
    log: Callable[[str], None] = log_to_stderr,
) -> bool:
    """Write a whole dataset, or nothing: the folder gets its name once it is complete.

    If several processes write the same dataset, one of them writes and the others wait.

    Args:
        folder: new folder, which must not exist. Its parents are created.
        pairs: pairs of each split, in the order of the lists.
        images: metadata entry of each image, and the image or its file. It is written to ``images/<entry["image"]>``.
        link: hard-link files instead of copying them.
        log: called with a line of text if this process has to wait.

    Returns:
        False if the folder already existed and was not changed, else True.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        with file_lock(folder.with_name(f".{folder.name}.lock"), log):
            if folder.exists():
                return False
            remove_unfinished(folder.parent)
            with unfinished(folder) as made:
                _write_files(made, pairs, images, link)
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
