"""Word vectors of attribute and object names, from files or a callable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import DataError, first_ten
from .options import user_path
from .word_files import Vector, read_vectors

Array = Tensor | np.ndarray[Any, Any]
#: A source of word vectors: the path of a file, or a callable that returns the vector of a word. For an unknown word
#: the callable returns None or raises a KeyError.
WordVectors = str | Path | Callable[[str], "Array"]
#: A callable that returns the vector of a word in a table: its arguments are the table, the word, and the numbers that
#: the vector should have.
TableVectors = Callable[[str, str, int], Array]
#: The tables of word vectors that each value of the authors' ``emb_init`` joins.
TABLES = {
    "glove": ("glove",),
    "word2vec": ("word2vec",),
    "fasttext": ("fasttext",),
    "ft+w2v": ("fasttext", "word2vec"),
    "ft+gl": ("fasttext", "glove"),
    "gl+w2v": ("glove", "word2vec"),
    "ft+ft": ("fasttext", "fasttext"),
    "ft+w2v+gl": ("fasttext", "word2vec", "glove"),
}

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


#: The same for tables that keep capital letters: the names of UT-Zappos as its lists have them.
_CAPITALISED = {
    name: PUBLISHED_SPELLINGS[name.lower()]
    for name in (
        "Faux.Fur",
        "Faux.Leather",
        "Full.grain.leather",
        "Hair.Calf",
        "Patent.Leather",
        "Boots.Ankle",
        "Boots.Knee.High",
        "Boots.Mid-Calf",
        "Shoes.Boat.Shoes",
        "Shoes.Clogs.and.Mules",
        "Shoes.Flats",
        "Shoes.Heels",
        "Shoes.Loafers",
        "Shoes.Oxfords",
        "Shoes.Sneakers.and.Athletic.Shoes",
        "trash_can",
        "dry-erase_board",
        "black_and_white",
        "eiffel_tower",
    )
}
#: The same for fastText, whose vectors of the other names come from parts of words.
_FASTTEXT = {
    "traffic_light": "traficlight",  # as the authors' program spells it
    **{name: PUBLISHED_SPELLINGS[name] for name in ("trash_can", "dry-erase_board", "black_and_white", "eiffel_tower")},
}


def word_vectors(
    vectors: WordVectors, labels: Sequence[str], table: str = "glove", spellings: Mapping[str, str] | None = None
) -> Tensor:
    """Return the vector of each label: the mean of the vectors of its words.

    Labels that no vocabulary has, such as ``Faux.Fur``, are replaced by the words that were used in published work,
    such as ``fake`` and ``fur``.

    Args:
        vectors: the path of a file that :func:`czslkit.word_files.read_vectors` reads, or a callable.
        labels: ``N`` names of attributes or objects.
        table: ``glove``, ``word2vec`` or ``fasttext``, whose rules turn a label into words; see :func:`label_words`.
        spellings: other words for labels, which go before those of the table.

    Returns:
        ``[N, D]`` float64.

    Raises:
        DataError: the file cannot be read, or words have no vector; the message names all of them.
    """
    ways = [label_words(label, table, spellings) for label in labels]
    words = sorted({word for way in ways for words in way for word in words})
    if callable(vectors):
        source, expected = "the callable", "a vector for each"
        found = _vectors_from_callable(vectors, words)
    else:
        file = user_path(vectors)
        source = str(file)
        expected = "a tensor named like each" if file.suffix.lower() == ".safetensors" else "'word v1 v2 ...' a line"
        found = read_vectors(file, words)
    chosen = [next((words for words in way if found.keys() >= set(words)), way[-1]) for way in ways]
    if lacking := [
        f"{label} ({', '.join(absent)})"
        for label, words in zip(labels, chosen, strict=True)
        if (absent := [word for word in words if word not in found])
    ]:
        raise DataError(f"{source} has no vector for {first_ten(lacking)}; expected {expected}")
    used = {word for words in chosen for word in words}
    _check_vectors({word: vector for word, vector in found.items() if word in used}, source)
    return torch.from_numpy(np.stack([np.mean([found[word] for word in words], 0) for words in chosen]))


def joined_vectors(
    tables: str,
    vectors: Mapping[str, WordVectors] | TableVectors,
    labels: Sequence[str],
    width: int,
    spellings: Mapping[str, Mapping[str, str]] | None = None,
) -> Tensor:
    """Return the vectors of labels in one table, or joined from several tables, as authors' settings name them.

    Args:
        tables: a key of ``TABLES``, such as ``"glove"`` or ``"ft+w2v"``.
        vectors: the source of each table, or a callable for all of them.
        labels: ``N`` names of attributes or objects.
        width: numbers of the result.
        spellings: other words for labels, by table and label, such as ``{"glove": {"selfie": "photo"}}``.

    Returns:
        ``[N, width]`` float32.

    Raises:
        DataError: a table is not given, cannot be read, or does not have all words; or the widths do not add up.

    >>> joined_vectors("gl+w2v", lambda table, word, width: torch.ones(width), ["wet", "Dry"], 4).shape
    torch.Size([2, 4])
    """
    if tables not in TABLES:
        raise DataError(f"the tables of word vectors are {tables!r}, expected one of {', '.join(TABLES)}")
    names = TABLES[tables]
    if not callable(vectors) and (missing := [name for name in dict.fromkeys(names) if name not in vectors]):
        raise DataError(
            f"word vectors {tables!r} need {' and '.join(missing)}, but only {', '.join(vectors) or 'none'} is given"
        )

    def source(name: str) -> WordVectors:
        return partial(_one_vector, vectors, name, width // len(names)) if callable(vectors) else vectors[name]

    parts = [word_vectors(source(name), labels, name, (spellings or {}).get(name)) for name in names]
    joined = torch.cat(parts, 1).float()
    if joined.shape[1] != width:
        widths = " + ".join(str(part.shape[1]) for part in parts)
        raise DataError(f"word vectors {tables!r} have {widths} numbers, expected {width}")
    return joined


def _one_vector(vectors: TableVectors, table: str, width: int, word: str) -> Array:
    return vectors(table, word, width)


def label_words(
    label: str, table: str = "glove", spellings: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Return the words whose vectors make the vector of a label: several ways, of which the first known one counts.

    The rules are those of the programs of CompCos, CGE and Co-CGE. In ``glove`` and ``fasttext``, labels are in lower
    case. In ``word2vec``, they keep their capital letters, and a label with ``_`` may be an entry of the table.

    >>> label_words("dry-erase_board")
    (('dry', 'erase', 'board'),)
    >>> label_words("Boots.Ankle", "word2vec"), label_words("Boots.Ankle", "fasttext")
    ((('ankle_boots',), ('ankle', 'boots')), (('boots.ankle',),))
    """
    name = label if table == "word2vec" else label.lower()
    known = {"glove": PUBLISHED_SPELLINGS, "word2vec": _CAPITALISED, "fasttext": _FASTTEXT}[table]
    name = {**known, **(spellings or {})}.get(name, name).replace(" ", "_")
    parts = tuple(name.split("_"))
    return ((name,), parts) if table == "word2vec" and len(parts) > 1 else (parts,)


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
