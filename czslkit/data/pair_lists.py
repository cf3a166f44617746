"""Read and check the pair lists of a dataset, one for each split; rebuild missing lists from the metadata."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DataError
from ..files import write_bytes
from .layout import ABSENT, SPLITS, Pair, metadata_file, pairs_file
from .metadata import read_metadata

_MOST_SHOWN = 10  # mistakes of one file that a message names


def read_pairs(file: Path) -> tuple[Pair, ...]:
    """Return the pairs of one list, in file order. Empty lines are ignored.

    Raises:
        DataError: the file cannot be read, a line does not have two words, or a pair is listed twice.
    """
    try:
        return parse_pairs(file.read_bytes(), file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def parse_pairs(content: bytes, file: Path) -> tuple[Pair, ...]:
    """Return the pairs in the content of a list.

    Args:
        content: bytes of the list.
        file: path of the list, for messages.

    Raises:
        DataError: the content is not UTF-8, a line does not have two words, or a pair is listed twice.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    rows = [(number, tuple(line.split())) for number, line in enumerate(lines, 1) if line.strip()]
    mistakes = [f"{file}:{number}: {' '.join(row)!r} is not 'attr obj'" for number, row in rows if len(row) != 2]
    counts = Counter(row for _, row in rows)
    mistakes += [f"{file}: {' '.join(row)!r} is listed {count} times" for row, count in counts.items() if count > 1]
    if mistakes:
        raise DataError("\n".join([*mistakes[:_MOST_SHOWN], f"{file}: {len(mistakes)} mistakes in all"]))
    return tuple((row[0], row[1]) for _, row in rows)


def encode_pairs(pairs: Iterable[Pair]) -> bytes:
    """Return the content of a list with ``pairs`` in this order."""
    return "".join(f"{attr} {obj}\n" for attr, obj in pairs).encode(errors="replace")


def listing_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that describe a dataset: its pair lists and its metadata.

    Missing lists are written first. If the folder cannot be written, the result does not contain them.

    Raises:
        DataError: as ``pair_list_contents``.
    """
    pair_list_contents(folder)
    files = (*(pairs_file(folder, split) for split in SPLITS), metadata_file(folder))
    return tuple(file for file in files if file.is_file())


def pair_list_contents(folder: Path) -> dict[str, bytes]:
    """Return the content of the pair list of each split.

    A missing list is rebuilt from the metadata: it has the sorted pairs of all images whose ``set`` is that split,
    without names that contain spaces. The list is written to its path, or kept in memory if the folder cannot be
    written. Only rebuilding imports torch.

    Raises:
        DataError: the metadata is missing, a list cannot be read, or a list is missing and the metadata is malformed.
    """
    files = {split: pairs_file(folder, split) for split in SPLITS}
    missing = [split for split in SPLITS if not files[split].is_file()]
    if not metadata_file(folder).is_file():
        paths = [*(files[split] for split in missing), metadata_file(folder)]
        names = ", ".join(path.relative_to(folder).as_posix() for path in paths)
        raise DataError(f"{folder} is not a complete dataset: no {names}")
    rebuilt = _rebuild_lists(folder, missing) if missing else {}
    try:
        return {split: rebuilt[split] if split in rebuilt else files[split].read_bytes() for split in SPLITS}
    except OSError as error:
        raise DataError(f"{folder}: a pair list cannot be read: {error}") from error


def _rebuild_lists(folder: Path, splits: Sequence[str]) -> dict[str, bytes]:
    """Rebuild the lists of ``splits`` from the metadata, write them if the folder can be written, and return them."""
    pairs: dict[str, set[Pair]] = {split: set() for split in splits}
    for instance in read_metadata(metadata_file(folder)):
        words = (instance.attr, instance.obj)
        if instance.set in pairs and instance.attr != ABSENT and all(word.split() == [word] for word in words):
            pairs[instance.set].add(words)
    lists = {split: encode_pairs(sorted(pairs[split])) for split in splits}
    try:
        for split, content in lists.items():
            write_bytes(pairs_file(folder, split), content)
        outcome = "and written"
    except OSError as error:
        outcome = f"but not written: {error.strerror or error}"
    names = ", ".join(pairs_file(folder, split).name for split in splits)
    _print_once(f"{folder}: {names} rebuilt from the metadata, {outcome}")
    return lists


@functools.cache
def _print_once(message: str) -> None:
    """Print a message to standard error, unless this process has printed it before."""
    print(message, file=sys.stderr)
