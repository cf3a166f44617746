"""What a dataset's files contain, in a few hashes: whatever was made from other files is stale. Needs no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from .layout import images_folder, list_files


def fingerprint(folder: Path, lists: Iterable[Path] | None = None) -> str:
    """One sha256 over ``fingerprint_parts``, in hex."""
    parts = fingerprint_parts(folder, lists)
    return _sha256("".join(f"{name}={part}\n" for name, part in sorted(parts.items())).encode())


def fingerprint_parts(folder: Path, lists: Iterable[Path] | None = None) -> dict[str, str]:
    """Hash of each of ``lists``, by file name, and count and hash of ``images``.

    Of a picture its path below ``images/`` and its size count, not its content: that makes it a matter of a second.
    All pictures count, used or not, since the metadata says which are used and reading it takes torch; hidden files
    do not.

    Args:
        folder: of the dataset.
        lists: the files that say what it holds; by default the pair lists and the metadata.

    Raises:
        DataError: a pair list or the metadata is not there.
    """
    parts = {file.name: _sha256(file.read_bytes()) for file in (list_files(folder) if lists is None else lists)}
    sizes = image_sizes(images_folder(folder))
    digest = _sha256(
        "".join(f"{path}\0{size}\n" for path, size in sorted(sizes.items())).encode("utf-8", "surrogateescape")
    )
    return parts | {"images": f"{len(sizes)} files, {digest}"}


def files_digest(files: Sequence[Path]) -> str:
    """A sha256 over files in order, in hex: their paths, sizes and times, without a look into them.

    A file that is not there counts as such.
    """
    lines = (f"{file.absolute().as_posix()}\0{_stamp(file)}\n" for file in files)
    return _sha256("".join(lines).encode("utf-8", "surrogateescape"))


def _stamp(file: Path) -> tuple[int, int] | None:
    """Size and time of the last change."""
    if not file.exists():
        return None
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def image_sizes(images: Path) -> dict[str, int]:
    """Bytes of every file, by its path relative to ``images`` with forward slashes."""
    sizes: dict[str, int] = {}
    passed: set[str] = set()  # a link may lead back
    for folder, inner, files in os.walk(images, followlinks=True):
        if (at := os.path.realpath(folder)) in passed:
            inner.clear()
            continue
        passed.add(at)
        inner[:] = [name for name in inner if not name.startswith(".")]
        below = Path(folder).relative_to(images)
        for name in files:
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.exists(path):  # a link may lead nowhere
                sizes[(below / name).as_posix()] = os.path.getsize(path)
    return sizes


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
