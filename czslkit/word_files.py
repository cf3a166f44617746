"""Read the vectors of some words from files of GloVe, word2vec and fastText, without reading the other words."""

from __future__ import annotations

import gzip
import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import DataError
from .foreign_files import check_regular

Vector = np.ndarray[Any, Any]
Bytes = mmap.mmap | bytes
_LONGEST_LINE, _LONGEST_WORD = 1 << 20, 10_000  # bytes of a line of a text file, and of a word
_LONGEST_REASON = 300  # characters of an error of another program
_MOST_NUMBERS = 1 << 20  # numbers of a vector
_SAMPLE, _CONTROL = 4096, frozenset(range(32)) - set(b"\t\n\r")  # bytes that are looked at; those that no text has
_FASTTEXT_MAGIC, _FASTTEXT_VERSION = 793712314, 12


def read_vectors(file: Path, words: Sequence[str]) -> dict[str, Vector]:
    """Return the vectors of those of ``words`` that a file has, float64; fastText has one for every word.

    The file is one of: text with ``word v1 v2 ...`` a line, as of GloVe, or with a line ``words numbers`` before it, as
    of word2vec and of fastText's ``.vec``, also compressed with gzip; word2vec's ``.bin``; fastText's model ``.bin``;
    or safetensors with a tensor for each word.

    Raises:
        DataError: the file cannot be read.
    """
    if file.suffix.lower() == ".safetensors":
        return _from_safetensors(file, words)
    try:
        check_regular(file)
        with file.open("rb") as opened:
            start = opened.read(4)
            opened.seek(0)
            if start == b"PK\x03\x04" or start[:1] == b"\x80":
                raise ValueError(
                    "it is a file of torch, such as a graph file of CGE, and is not read; give the file of the "
                    "words in the graph, which is that of word2vec for the published graph of UT-Zappos"
                )
            if start[:2] == b"\x1f\x8b":
                with gzip.open(opened) as unpacked:
                    return _from_lines(unpacked, words, file)
            if len(start) == 4:
                with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    if struct.unpack("<i", start)[0] == _FASTTEXT_MAGIC:
                        return _FastText(data, file).vectors(words)
                    if header := _binary_header(data):
                        return _from_word2vec(data, words, file, *header)
            return _from_lines(opened, words, file)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def read_safetensors(file: Path, read: Callable[[Any], Any]) -> Any:
    """Open a safetensors file and return the result of ``read``, which loads only the tensors that it needs.

    Raises:
        DataError: the file cannot be read safely.
    """
    from safetensors import safe_open

    try:
        check_regular(file)
        with safe_open(file, framework="pt") as content:
            return read(content)
    except Exception as error:
        raise refused_file(file, error) from error


def refused_file(file: Path, error: Exception) -> DataError:
    """Return the error to raise for a file whose content cannot be loaded safely."""
    reason = str(error).strip().partition("\n")[0]
    return DataError(
        f"{file} is refused, and nothing in it was run: {type(error).__name__}: {reason[:_LONGEST_REASON]}"
    )


def _from_safetensors(file: Path, words: Sequence[str]) -> dict[str, Vector]:
    """Return the tensors that are named like one of ``words``; no other tensor is read."""

    def read(content: Any) -> dict[str, Vector]:
        names = set(content.keys())
        return {word: content.get_tensor(word).double().numpy() for word in words if word in names}

    found: dict[str, Vector] = read_safetensors(file, read)
    return found


def _from_lines(opened: IO[bytes] | gzip.GzipFile, words: Sequence[str], file: Path) -> dict[str, Vector]:
    """Return the first vector of each of ``words`` in lines of text."""
    wanted = {word.encode(): word for word in words}
    found: dict[str, Vector] = {}
    for line in iter(lambda: opened.readline(_LONGEST_LINE), b""):
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{file} has a line of more than {_LONGEST_LINE:,} bytes, expected 'word v1 v2 ...'")
        first, _, rest = line.partition(b" ")
        word = wanted.get(first)
        if word is None or word in found or not (numbers := _parse_numbers(rest)):
            continue
        found[word] = np.array(numbers)
        if len(found) == len(words):
            break
    return found


def _parse_numbers(text: bytes) -> list[float]:
    """Return the numbers of a line; an empty list if the line's word has a space in it, as some words of GloVe have."""
    try:
        return [float(number) for number in text.split()]
    except ValueError:
        return []


def _binary_header(data: Bytes) -> tuple[int, int, int] | None:
    """Return the numbers of words and of numbers of a binary word2vec file and its header's length; else None."""
    end = data.find(b"\n", 0, 64)
    counts = data[: max(end, 0)].split()
    if len(counts) != 2 or not all(count.isdigit() for count in counts):
        return None
    words, numbers = map(int, counts)
    sample = data[end + 1 : end + 1 + _SAMPLE]
    return (words, numbers, end + 1) if _CONTROL.intersection(sample) else None


def _from_word2vec(
    data: Bytes, words: Sequence[str], file: Path, count: int, numbers: int, position: int
) -> dict[str, Vector]:
    """Return the vectors of ``words`` in word2vec's binary format, in which a word ends at a space."""
    if numbers > _MOST_NUMBERS:
        raise DataError(f"{file} claims vectors of {numbers:,} numbers, expected at most {_MOST_NUMBERS:,}")
    wanted = {word.encode(): word for word in words}
    found: dict[str, Vector] = {}
    for number in range(count):
        end = data.find(b" ", position, position + _LONGEST_WORD)
        if end < 0 or end + 1 + 4 * numbers > len(data):
            raise DataError(f"{file} ends or is damaged at word {number + 1:,}, expected {count:,} words")
        word = wanted.get(data[position:end].lstrip(b"\n"))
        position = end + 1 + 4 * numbers
        if word is not None and word not in found:
            found[word] = _numbers(data, end + 1, numbers)
            if len(found) == len(words):
                break
    return found


def _numbers(data: Bytes, position: int, count: int) -> Vector:
    """Return little-endian float32 numbers as float64."""
    return np.frombuffer(data[position : position + 4 * count], "<f4").astype(np.float64)


class _FastText:
    """A model file of fastText, of which only the rows that are asked for are read.

    Raises:
        DataError: it has another version, is quantised, or is damaged.
    """

    def __init__(self, data: Bytes, file: Path) -> None:
        self._data, self._file, self._position = data, file, 0
        _, version = self._read("<ii")
        if version != _FASTTEXT_VERSION:
            raise DataError(f"{file} is a fastText model of version {version}, expected {_FASTTEXT_VERSION}")
        sizes = self._read("<12i")  # as in fastText's class Args
        self._numbers, self._buckets, self._shortest, self._longest = sizes[0], sizes[8], sizes[9], sizes[10]
        self._read("<d")
        entries, self._words, _ = self._read("<3i")
        _, pruned = self._read("<2q")
        self._rows = {name: row for row, name in enumerate(self._entries(entries)) if row < self._words}
        if pruned > 0 or self._read("<?")[0]:
            raise DataError(f"{file} is a quantised fastText model, expected one that was not made smaller")
        found, expected = self._read("<2q"), (self._words + self._buckets, self._numbers)
        if found != expected or len(data) < self._position + 4 * found[0] * found[1]:
            raise DataError(
                f"{file} is damaged: a matrix of {found[0]:,} x {found[1]:,} in {len(data):,} bytes, expected "
                f"{expected[0]:,} x {expected[1]:,}"
            )

    def vectors(self, words: Sequence[str]) -> dict[str, Vector]:
        """Return the vector of each word, the mean of its row and of the rows of its parts."""
        found = {}
        for word in words:
            own = self._rows.get(word.encode())
            parts = [self._words + hash % self._buckets for hash in map(_hash, self._parts(word))]
            if rows := [*([] if own is None else [own]), *parts]:
                starts = (self._position + 4 * row * self._numbers for row in rows)
                found[word] = np.mean([_numbers(self._data, start, self._numbers) for start in starts], 0)
        return found

    def _parts(self, word: str) -> list[str]:
        """Return the parts of a word that have a row; a mark at the beginning or at the end alone is none."""
        marked, end = f"<{word}>", len(word) + 2
        return [
            marked[start:stop]
            for start in range(end)
            for stop in range(start + max(self._shortest, 1), min(start + self._longest, end) + 1)
            if self._buckets and not (stop == start + 1 and (start == 0 or stop == end))
        ]

    def _entries(self, count: int) -> Iterator[bytes]:
        """Yield the words, then the labels of the dictionary: each ends with a zero, a count and a kind."""
        for number in range(count):
            end = self._data.find(b"\0", self._position, self._position + _LONGEST_WORD)
            if end < 0:
                raise DataError(f"{self._file} ends or is damaged at word {number + 1:,}, expected {count:,} words")
            yield self._data[self._position : end]
            self._position = end + 1 + struct.calcsize("<qb")

    def _read(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._data, self._position)
        self._position += struct.calcsize(layout)
        return values


def _hash(part: str) -> int:
    """Return fastText's hash of a text: FNV-1a with 32 bits, in which bytes have a sign."""
    value = 2166136261
    for byte in part.encode():
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value
