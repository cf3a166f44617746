"""Word vectors of attribute and object names, from a file or a callable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, first_ten
from ..foreign_files import check_regular
from ..metrics.score_columns import Array
from ..options import user_path

#: A source of word vectors: the path of a file, or a callable that returns the vector of a word. For an unknown word
#: the callable returns None or raises a KeyError.
WordVectors = str | Path | Callable[[str], Array]
Vector = np.ndarray[Any, Any]
_LONGEST_LINE, _LONGEST_REASON = (
    1 << 20,
    300,
)  # bytes of a line of a text file; characters of an error of another program

#: Label in lower case -> the words, joined by ``_``, whose vectors were used for the published feasibility.
PUBLISHED_SPELLINGS = {
    "faux.fur": "fake_fur",
    "faux.leather": "fake_leather",
    "full.grain.leather": "thick_leather",
    "hair.calf": "hair_leather",
    "patent.leather": "shiny_leather",
    "nubuck": "grainy_leather",
    "boots.ankle": "ankle_boots",
    "boots.knee.high": "knee_high_boots",
    "boots.mid-calf": "midcalf_boots",
    "shoes.boat.shoes": "boat_shoes",
    "shoes.clogs.and.mules": "clogs_shoes",
    "shoes.flats": "flats_shoes",
    "shoes.heels": "heels",
    "shoes.loafers": "loafers",
    "shoes.oxfords": "oxford_shoes",
    "shoes.sneakers.and.athletic.shoes": "sneakers",
    "trash_can": "trashcan",
    "dry-erase_board": "dry_erase_board",
    "black_and_white": "black_white",
    "eiffel_tower": "tower",
}


def word_vectors(vectors: WordVectors, labels: Sequence[str]) -> Tensor:
    """Return the vector of each label: the mean of the vectors of its words, in lower case.

    Labels that no vocabulary has, such as ``Faux.Fur``, are replaced by the words that were used for the published
    feasibility, such as ``fake`` and ``fur``.

    Args:
        vectors: a source as in :func:`word_feasibility`.
        labels: ``N`` names of attributes or objects.

    Returns:
        ``[N, D]`` float64.

    Raises:
        DataError: the file cannot be read, or words have no vector; the message names all of them.
    """
    words_of_labels = [label_words(label) for label in labels]
    words = sorted({word for words in words_of_labels for word in words})
    if callable(vectors):
        source, expected = "the callable", "a vector for each"
        found = _vectors_from_callable(vectors, words)
    else:
        file = user_path(vectors)
        source = str(file)
        if file.suffix.lower() == ".safetensors":
            expected, found = "a tensor named like each", _vectors_from_safetensors(file, words)
        else:
            expected, found = "'word v1 v2 ...' a line", _vectors_from_text(file, words)
    if lacking := [
        f"{label} ({', '.join(absent)})"
        for label, words in zip(labels, words_of_labels, strict=True)
        if (absent := [word for word in words if word not in found])
    ]:
        raise DataError(f"{source} has no vector for {first_ten(lacking)}; expected {expected}")
    _check_vectors(found, source)
    means = [np.mean([found[word] for word in words], 0) for words in words_of_labels]
    return torch.from_numpy(np.stack(means))


def label_words(label: str) -> list[str]:
    """Return the words whose vectors make the vector of a label.

    >>> label_words("dry-erase_board")
    ['dry', 'erase', 'board']
    """
    return PUBLISHED_SPELLINGS.get(label.lower(), label.lower()).replace(" ", "_").split("_")


def _check_vectors(vectors: Mapping[str, Vector], source: str) -> None:
    """Check that the vectors of all words are finite and of one width, or raise DataError."""
    if shapes := [f"{word} {list(vector.shape)}" for word, vector in vectors.items() if vector.ndim != 1]:
        raise DataError(f"{source}: expected a vector [D] for each word, found {first_ten(shapes)}")
    widths = {len(vector) for vector in vectors.values()}
    if len(widths) > 1:
        raise DataError(
            f"{source}: the vectors have {' or '.join(map(str, sorted(widths)))} numbers, expected one width"
        )
    if broken := [word for word, vector in vectors.items() if not np.isfinite(vector).all()]:
        raise DataError(f"{source}: the vector of {first_ten(broken)} is not finite")


def _vectors_from_callable(vectors: Callable[[str], Array], words: Iterable[str]) -> dict[str, Vector]:
    """Return the vector that a callable gives for each of ``words`` that it knows."""
    found = {}
    for word in words:
        try:
            vector = vectors(word)
        except KeyError:
            continue
        if vector is None:
            continue
        vector = vector.detach().cpu() if isinstance(vector, Tensor) else vector
        try:
            found[word] = np.asarray(vector, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"the callable gave {vector!r} for {word!r}, expected numbers") from error
    return found


def _vectors_from_safetensors(file: Path, words: Iterable[str]) -> dict[str, Vector]:
    """Return the tensors of a safetensors file that are named like one of ``words``; no other tensor is read."""

    def read(content: Any) -> dict[str, Vector]:
        names = set(content.keys())
        return {word: content.get_tensor(word).double().numpy() for word in words if word in names}

    return read_safetensors(file, read)


def _vectors_from_text(file: Path, words: Sequence[str]) -> dict[str, Vector]:
    """Return the first vector of each of ``words`` in a text file like GloVe, ``word v1 v2 ...`` a line."""
    wanted = {word.encode(): word for word in words}
    found: dict[str, Vector] = {}
    try:
        check_regular(file)
        with file.open("rb") as opened:
            for line in iter(lambda: opened.readline(_LONGEST_LINE), b""):
                if len(line) == _LONGEST_LINE:
                    raise DataError(
                        f"{file} has a line of more than {_LONGEST_LINE:,} bytes, expected 'word v1 v2 ...'"
                    )
                first, _, rest = line.partition(b" ")
                word = wanted.get(first)
                if word is None or word in found or not (numbers := _parse_numbers(rest)):
                    continue
                found[word] = np.array(numbers)
                if len(found) == len(words):
                    break
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return found


def _parse_numbers(text: bytes) -> list[float]:
    """Return the numbers of a line; an empty list if the line's word has a space in it, as some words of GloVe have."""
    try:
        return [float(number) for number in text.split()]
    except ValueError:
        return []


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
