"""Digests of a dataset's files, which show whether results belong to the current files. It does not import torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..foreign_files import METADATA_LIMIT, read_regular
from .layout import IMPORTED_READING, images_folder, import_record
from .pair_lists import listing_files


def fingerprint(folder: Path, files: Iterable[Path] | None = None) -> str:
    """Return one SHA-256 over ``fingerprint_parts``, in hex."""
    parts = fingerprint_parts(folder, files)
    return _sha256("".join(f"{name}={part}\n" for name, part in sorted(parts.items())).encode())


def fingerprint_parts(folder: Path, files: Iterable[Path] | None = None) -> dict[str, str]:
    """Return the digest of each of ``files`` by file name, and the count and digest of all images as ``images``.

    An imported dataset also has the part ``reading``, since its images are read in another way.

    The digest of the images includes the paths below ``images/`` and the sizes, not the contents, so that it takes
    about a second. It includes unused images, since only the metadata lists the used images, and reading it needs
    torch. Hidden files are excluded.

    Args:
        folder: folder of the dataset.
        files: files that describe the dataset; by default the pair lists and the metadata.

    Raises:
        DataError: a pair list or the metadata is missing.
    """
    parts = {
        file.name: _sha256(read_regular(file, METADATA_LIMIT))
        for file in (listing_files(folder) if files is None else files)
    }
    sizes = image_sizes(images_folder(folder))
    digest = _sha256(
        "".join(f"{path}\0{size}\n" for path, size in sorted(sizes.items())).encode("utf-8", "surrogateescape")
    )
    reading = {"reading": IMPORTED_READING} if import_record(folder).is_file() else {}
    return parts | {"images": f"{len(sizes)} files, {digest}"} | reading


def files_digest(files: Sequence[Path], reading: str = "") -> str:
    """Return a SHA-256, in hex, over the paths, sizes and times of files in this order, without opening them.

    Args:
        files: the files; they may be missing.
        reading: how they are read, if not in the usual way.
    """
    lines = (f"{file.absolute().as_posix()}\0{_size_and_time(file)}\n" for file in files)
    return _sha256("".join([*lines, reading]).encode("utf-8", "surrogateescape"))


def _size_and_time(file: Path) -> tuple[int, int] | None:
    """Return the bytes of a file and the time of its last change in nanoseconds, or None if it is missing."""
    if not file.exists():
        return None
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def image_sizes(images: Path) -> dict[str, int]:
    """Return the bytes of every file that is not hidden, by its path below ``images`` with forward slashes."""
    sizes: dict[str, int] = {}
    visited: set[str] = set()  # a link may lead back to a folder
    for folder, subfolders, files in os.walk(images, followlinks=True):
        if (real_path := os.path.realpath(folder)) in visited:
            subfolders.clear()
            continue
        visited.add(real_path)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(folder).relative_to(images)
        for name in files:
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.exists(path):  # a link may lead nowhere
                sizes[(below / name).as_posix()] = os.path.getsize(path)
    return sizes


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
