"""Labels become words by the rules of the authors' tables of word vectors."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from czslkit.errors import DataError
from czslkit.word_vectors import TABLES, joined_vectors, label_words, word_vectors

NUMBERS = {"glove": 2, "word2vec": 3, "fasttext": 4}


def vector(table: str, word: str, width: int) -> Tensor:
    """Return random numbers that depend on the table and the word, as many as the table has."""
    random = np.random.RandomState(zlib.crc32(f"{table}:{word}".encode()))
    return torch.from_numpy(random.standard_normal(NUMBERS[table]))


@pytest.mark.parametrize(
    ("table", "label", "ways"),
    [
        ("glove", "Hair.Calf", [["hair", "leather"]]),
        ("glove", "Nubuck", [["grainy", "leather"]]),
        ("glove", "traffic_light", [["traffic", "light"]]),
        ("glove", "Leather", [["leather"]]),
        ("word2vec", "Leather", [["Leather"]]),
        ("word2vec", "Nubuck", [["Nubuck"]]),
        ("word2vec", "Full.grain.leather", [["thick_leather"], ["thick", "leather"]]),
        ("word2vec", "full.grain.leather", [["full.grain.leather"]]),
        ("word2vec", "dry-erase_board", [["dry_erase_board"], ["dry", "erase", "board"]]),
        ("fasttext", "Faux.Fur", [["faux.fur"]]),
        ("fasttext", "traffic_light", [["traficlight"]]),
        ("fasttext", "fire_hydrant", [["fire", "hydrant"]]),
    ],
)
def test_labels_become_words_by_the_rules_of_each_table(table: str, label: str, ways: list[list[str]]) -> None:
    assert list(map(list, label_words(label, table))) == ways


def test_other_spellings_go_before_those_of_the_table() -> None:
    assert label_words("eiffel_tower", "glove", {"eiffel_tower": "paris_tower"}) == (("paris", "tower"),)


def test_a_phrase_of_word2vec_counts_if_the_table_has_it() -> None:
    table = {"ankle_boots": [1.0], "ankle": [2.0], "boots": [4.0], "knee": [1.0], "high": [3.0]}
    found = word_vectors(table.get, ["Boots.Ankle", "Boots.Knee.High"], "word2vec")
    assert found[:, 0].tolist() == [1, pytest.approx(8 / 3)]


def test_joined_tables_have_the_numbers_of_each_in_turn() -> None:
    labels = ["wet", "Faux.Fur"]
    for tables, names in TABLES.items():
        found = joined_vectors(tables, vector, labels, sum(NUMBERS[name] for name in names))
        parts = [word_vectors(lambda word, name=name: vector(name, word, 0), labels, name) for name in names]
        assert torch.equal(found, torch.cat(parts, 1).float())


def test_the_callable_is_told_the_share_of_the_width() -> None:
    asked: list[tuple[str, str, int]] = []

    def ones(table: str, word: str, width: int) -> Tensor:
        asked.append((table, word, width))
        return torch.ones(width)

    joined_vectors("ft+w2v", ones, ["wet"], 600)
    assert asked == [("fasttext", "wet", 300), ("word2vec", "wet", 300)]


@pytest.mark.parametrize(
    ("tables", "vectors", "width", "message"),
    [
        ("ft+elmo", vector, 6, r"the tables of word vectors are 'ft\+elmo', expected one of glove, word2vec, "),
        ("ft+w2v", {"fasttext": "cc.en.300.bin"}, 6, r"'ft\+w2v' need word2vec, but only fasttext is given"),
        ("glove", {}, 6, "'glove' need glove, but only none is given"),
        ("ft+gl", vector, 600, r"'ft\+gl' have 4 \+ 2 numbers, expected 600"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tables: str, vectors: Any, width: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        joined_vectors(tables, vectors, ["wet"], width)
