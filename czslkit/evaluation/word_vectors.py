"""TODO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, first_ten
from ..metrics.candidates import Array

#: Where word vectors come from: the path of a file, or what gives the vector of a word, and None or a KeyError if none.
WordVectors = str | Path | Callable[[str], Array]


#: Names that word vectors are looked up under, after those of the published vectors; ``_`` stands between words.
_SPELLED = {
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


def word_vectors(vectors: WordVectors, names: Sequence[str]) -> Tensor:
    """The vectors of labels, ``[N, D]``: of ``dry-erase_board`` the mean of those of its words, in lower case.

    What no vocabulary has is looked up under the words that the published vectors took for it, such as
    ``Faux.Fur`` under ``fake`` and ``fur``.

    Args:
        vectors: as of :func:`word_feasibility`.

    Raises:
        DataError: the file cannot be read, or words are lacking; all of them are named.
    """
    spelled = [words_of(name) for name in names]
    words = sorted({word for parts in spelled for word in parts})
    if callable(vectors):
        source, expected = "the callable", "a vector for each"
        found = _asked(vectors, words)
    else:
        file = Path(vectors).expanduser()
        named = file.suffix == ".safetensors"
        source, expected = str(file), "a tensor named like each" if named else "'word v1 v2 ...' a line"
        found = _named(file, words) if named else _lines(file, words)
    if lacking := [
        f"{name} ({', '.join(absent)})"
        for name, parts in zip(names, spelled, strict=True)
        if (absent := [word for word in parts if word not in found])
    ]:
        raise DataError(f"{source} has no vector for {first_ten(lacking)}; expected {expected}")
    if shaped := [f"{word} {list(vector.shape)}" for word, vector in found.items() if vector.ndim != 1]:
        raise DataError(f"{source}: the vectors are [D] each, not {first_ten(shaped)}")
    widths = {len(vector) for vector in found.values()}
    if len(widths) > 1:
        raise DataError(
            f"{source}: the vectors have {' or '.join(map(str, sorted(widths)))} numbers, expected one width"
        )
    if broken := [word for word, vector in found.items() if not np.isfinite(vector).all()]:
        raise DataError(f"{source}: the vector of {first_ten(broken)} is not finite")
    return torch.from_numpy(np.stack([np.mean([found[word] for word in parts], 0) for parts in spelled]))


def words_of(name: str) -> list[str]:
    """What the vector of a label is made of."""
    return _SPELLED.get(name.lower(), name.lower()).split("_")


def _asked(vectors: Callable[[str], Array], words: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
    """What a callable gives for each of ``words`` that it knows."""
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


def _named(file: Path, words: Iterable[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of safetensors that are named like one of ``words``; no other is read."""

    def read(content: Any) -> dict[str, np.ndarray[Any, Any]]:
        names = set(content.keys())
        return {word: content.get_tensor(word).double().numpy() for word in words if word in names}

    return open_safetensors(file, read)


def _lines(file: Path, words: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The first vector of each of ``words`` that has one in a file as of GloVe."""
    wanted = {word.encode(): word for word in words}
    found: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with file.open("rb") as lines:
            for line in lines:
                start, _, rest = line.partition(b" ")
                word = wanted.get(start)
                if word is None or word in found or not (numbers := _numbers(rest)):
                    continue
                found[word] = np.array(numbers)
                if len(found) == len(words):
                    break
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    return found


def _numbers(text: bytes) -> list[float]:
    """The numbers of a line; none where it belongs to a word with a space in it, of which GloVe has some."""
    try:
        return [float(number) for number in text.split()]
    except ValueError:
        return []


def open_safetensors(file: Path, read: Callable[[Any], Any]) -> Any:
    """What ``read`` makes of safetensors, of which only the tensors asked for are read."""
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as content:
            return read(content)
    except Exception as error:
        raise refusal(file, error) from error


def refusal(file: Path, error: Exception) -> DataError:
    reason = str(error).strip().partition("\n")[0]
    return DataError(f"{file} is refused, and nothing in it was run: {type(error).__name__}: {reason}")
