"""Vectors of words are read from the formats of GloVe, word2vec and fastText as gensim reads them."""

from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from czslkit.errors import DataError
from czslkit.word_files import read_vectors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import gensim

WORDS = ["wet", "dog", "ankle_boots", "Leather", "naïve"]
VECTORS = np.random.default_rng(0).standard_normal((len(WORDS), 7)).astype(np.float32)


def keyed() -> Any:
    vectors = gensim.models.KeyedVectors(7)
    vectors.add_vectors(WORDS, VECTORS)
    return vectors


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for word in found:
        np.testing.assert_allclose(found[word], expected[word], atol=1e-6)


@pytest.mark.parametrize("binary", [False, True])
def test_word2vec_files_are_read_as_gensim_writes_them(tmp_path: Path, binary: bool) -> None:
    keyed().save_word2vec_format(str(tmp_path / "w2v.bin"), binary=binary)
    same(
        read_vectors(tmp_path / "w2v.bin", ["naïve", "ankle_boots", "absent", "wet"]),
        {word: VECTORS[WORDS.index(word)] for word in ("naïve", "ankle_boots", "wet")},
    )


def test_lines_between_binary_vectors_do_not_matter(tmp_path: Path) -> None:
    parts = [f"{word} ".encode() + vector.tobytes() for word, vector in zip(WORDS, VECTORS, strict=True)]
    (tmp_path / "w2v.bin").write_bytes(b"5 7\n" + b"\n".join(parts) + b"\n")
    same(read_vectors(tmp_path / "w2v.bin", ["dog", "Leather"]), {"dog": VECTORS[1], "Leather": VECTORS[3]})


def test_compressed_text_is_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "cc.en.300.vec.gz", "wt", encoding="utf-8") as file:
        file.write("2 3\nwet 1 2 3\ndog 4 5 6\n")
    same(read_vectors(tmp_path / "cc.en.300.vec.gz", ["dog"]), {"dog": [4, 5, 6]})


@pytest.fixture(scope="module")
def fasttext(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model that gensim trained on a few sentences, as a file and as gensim has it."""
    sentences = [["wet", "dog", "naïve"], ["dry", "cat", "a"], ["wet", "cat"], ["dry", "dog"]] * 5
    model = gensim.models.FastText(
        sentences, vector_size=6, min_count=1, bucket=50, min_n=1, max_n=4, epochs=1, workers=1, seed=1
    )
    file = tmp_path_factory.mktemp("fasttext") / "cc.en.300.bin"
    gensim.models.fasttext.save_facebook_model(model, str(file))
    return file, gensim.models.fasttext.load_facebook_vectors(str(file))


def test_fasttext_models_have_a_vector_for_every_word(fasttext: tuple[Path, Any]) -> None:
    file, expected = fasttext
    words = ["wet", "naïve", "a", "boots.ankle", "traficlight", "日本"]
    same(read_vectors(file, words), {word: expected[word] for word in words})


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (4, 11, "is a fastText model of version 11, expected 12"),
        (8, 5, r"is damaged: a matrix of \d+ x 6 in .* bytes, expected \d+ x 5"),
        (64, 10_000, r"ends or is damaged at word [\d,]+, expected 10,000 words"),
        (84, 1, "is a quantised fastText model, expected one that was not made smaller"),
    ],
)
def test_other_fasttext_models_are_refused(
    fasttext: tuple[Path, Any], tmp_path: Path, position: int, value: int, message: str
) -> None:
    content = bytearray(fasttext[0].read_bytes())
    content[position : position + 4] = struct.pack("<i", value)
    if position == 84:
        content[84:92] = struct.pack("<q", value)
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path / "model.bin", ["wet"])


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02ctorch"])
def test_a_graph_file_of_cge_is_refused_by_name(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "utzappos-graph.t7").write_bytes(start + bytes(40))
    with pytest.raises(
        DataError, match=r"utzappos-graph.t7 cannot be read: it is a file of torch, such as a graph file"
    ):
        read_vectors(tmp_path / "utzappos-graph.t7", ["wet"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"5 7\nwet " + VECTORS[0].tobytes() + b"dog ", "ends or is damaged at word 2, expected 5 words"),
        (b"5 9999999\nwet " + b"\0" * 99, "claims vectors of 9,999,999 numbers, expected at most 1,048,576"),
        (b"\x1f\x8b\x08broken", "cannot be read: "),
        (struct.pack("<i", 793712314) + b"\x0c\0\0\0", "cannot be read: unpack_from requires a buffer of at least"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "vectors.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"vectors\.bin {message}"):
        read_vectors(tmp_path / "vectors.bin", ["dog"])
