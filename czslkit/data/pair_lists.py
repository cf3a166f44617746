"""Read and check the pair lists of a dataset, one for each split; rebuild missing lists from the metadata."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DataError, first_ten
from ..files import write_bytes
from ..foreign_files import TEXT_LIMIT, read_regular, text_lines
from ..terminal import log_to_stderr
from .layout import ABSENT, SPLITS, Pair, metadata_file, pairs_file
from .metadata import read_metadata

_PLUS_LINE = re.compile(r"([^+]*[^+\s])\+([^+\s][^+]*)")
_LONGEST_LINE = 200  # characters of a line that a message shows
_MOST_SHOWN = 10  # mistakes of one file that a message names


def read_pairs(file: Path) -> tuple[Pair, ...]:
    """Return the pairs of one list, in file order. Empty lines are ignored; :func:`split_lines` has the two formats.

    Raises:
        DataError: the file cannot be read, a line is not a pair, or a pair is listed twice.
    """
    try:
        return parse_pairs(read_regular(file, TEXT_LIMIT), file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def parse_pairs(content: bytes, file: Path) -> tuple[Pair, ...]:
    """Return the pairs in the content of a list.

    Args:
        content: bytes of the list.
        file: path of the list, for messages.

    Raises:
        DataError: the content is not UTF-8 or has too many lines, a line is not a pair, or a pair is listed twice.
    """
    try:
        lines = text_lines(content)
    except ValueError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    rows, mistakes = split_lines(lines, file)
    advice = "; words with spaces are written as attr+obj, on every line" if mistakes else ""
    counts = Counter(pair for _, pair in rows)
    mistakes += [f"{file}: {' '.join(pair)!r} is listed {count} times" for pair, count in counts.items() if count > 1]
    if mistakes:
        raise DataError("\n".join([*mistakes[:_MOST_SHOWN], f"{file}: {len(mistakes)} mistakes in all{advice}"]))
    return tuple(pair for _, pair in rows)


def split_lines(lines: Iterable[str], file: Path) -> tuple[list[tuple[int, Pair]], list[str]]:
    """Return the pair of each line with the number of the line, and a message for each line that is not a pair.

    A line is ``attr obj``. If the words have spaces, as in VAW-CZSL, every line is ``attr+obj``, without a space around
    the ``+``. Empty lines are left out.

    Args:
        lines: the lines of a file.
        file: path of the file, for messages.

    >>> split_lines(["light blue+dog", "wet+teddy bear"], Path("pairs.txt"))[0]
    [(1, ('light blue', 'dog')), (2, ('wet', 'teddy bear'))]
    """
    numbered = [(number, " ".join(line.split())) for number, line in enumerate(lines, 1) if line.strip()]
    with_plus = {line: match.groups() for _, line in numbered if (match := _PLUS_LINE.fullmatch(line))}
    with_space = {line: tuple(words) for _, line in numbered if len(words := line.split()) == 2}
    found = with_plus if len(with_plus) >= len(with_space) and with_plus else with_space
    form = "'attr+obj', as other lines are" if found is with_plus else "'attr obj'"
    wrong = [
        f"{file}:{number}: {line[:_LONGEST_LINE]!r} is not {form}" for number, line in numbered if line not in found
    ]
    return [(n, (found[line][0], found[line][1])) for n, line in numbered if line in found], wrong


def encode_pairs(pairs: Iterable[Pair]) -> bytes:
    """Return the content of a list with ``pairs`` in this order, with ``+`` between words if some words have spaces."""
    pairs = tuple(pairs)
    mark = "+" if any(" " in word for pair in pairs for word in pair) else " "
    return "".join(f"{attr}{mark}{obj}\n" for attr, obj in pairs).encode(errors="replace")


def unlistable(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the pairs that a list of all of ``pairs`` cannot hold: it would be read as other pairs.

    >>> unlistable([("light blue", "dog"), ("c+", "dog"), ("", "dog"), ("wet", "dog")])
    [('c+', 'dog'), ('', 'dog')]
    """
    pairs = tuple(pairs)
    mark = "+" if any(" " in word for pair in pairs for word in pair) else " "
    lines = [f"{attr}{mark}{obj}" for attr, obj in pairs if mark == " " or "+" not in attr + obj]
    rows, _ = split_lines(lines, Path())
    listed = {pair for _, pair in rows}
    return [pair for pair in pairs if pair not in listed]


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
    without pairs that are :func:`unlistable`. The list is written to its path, or kept in memory if the folder cannot
    be written. Only rebuilding imports torch.

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
        return {
            split: rebuilt[split] if split in rebuilt else read_regular(files[split], TEXT_LIMIT) for split in SPLITS
        }
    except OSError as error:
        raise DataError(f"{folder}: a pair list cannot be read: {error}") from error


def _rebuild_lists(folder: Path, splits: Sequence[str]) -> dict[str, bytes]:
    """Rebuild the lists of ``splits`` from the metadata, write them if the folder can be written, and return them."""
    pairs: dict[str, set[Pair]] = {split: set() for split in splits}
    for instance in read_metadata(metadata_file(folder)):
        words = (instance.attr, instance.obj)
        if instance.set in pairs and instance.attr != ABSENT:
            pairs[instance.set].add(words)
    listed = {split: sorted(pairs[split].difference(unlistable(pairs[split]))) for split in splits}
    lists = {split: encode_pairs(listed[split]) for split in splits}
    try:
        for split, content in lists.items():
            write_bytes(pairs_file(folder, split), content)
        outcome = "and written"
    except OSError as error:
        outcome = f"but not written: {error.strerror or error}"
    spaced = sorted({word for split in splits for pair in listed[split] for word in pair if " " in word})
    if spaced:
        outcome += f", with '+' between words because some have spaces: {first_ten(spaced)}"
    names = ", ".join(pairs_file(folder, split).name for split in splits)
    _print_once(f"{folder}: {names} rebuilt from the metadata, {outcome}")
    return lists


#: Prints a message to standard error, unless this process has printed it before.
_print_once = functools.cache(log_to_stderr)
