"""Tables of word vectors are filled from files, a callable or the text tower of the backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from czslkit.backbones import load_backbone
from czslkit.backbones.given_features import GivenFeatures
from czslkit.errors import ConfigError
from czslkit.types import PairSpace
from czslkit.word_prompts import WordTable, WordVectorOptions

SPACE = PairSpace(("dotted", "wet"), ("heart",), torch.tensor([[0, 0]]), torch.tensor([True]))


def test_tables_start_from_files(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("wet 1 2\nheart 3 4\ndotted 5 6\n", encoding="utf-8")
    table = WordTable(SPACE, 2)
    table.fill_by_options(WordVectorOptions("glove", glove=tmp_path / "glove.txt"), GivenFeatures(2))
    assert table.all.tolist() == [[5, 6], [1, 2], [3, 4]]
    assert [name for name, _ in table.named_parameters()] == ["attr", "obj"]


def test_every_table_has_300_numbers_and_clip_those_of_the_backbone() -> None:
    assert WordVectorOptions("ft+w2v").width(GivenFeatures(7)) == 600
    assert WordVectorOptions().width(GivenFeatures(7)) == 7


def test_fixed_tables_are_saved_but_not_trained() -> None:
    table = WordTable(SPACE, 2, learned=False)
    assert sorted(table.state_dict()) == ["attr", "obj"]
    assert not list(table.parameters())


def test_clip_gives_text_features() -> None:
    backbone = load_backbone("demo")
    table = WordTable(SPACE, backbone.dim)
    table.fill_by_options(WordVectorOptions("clip"), backbone)
    expected = backbone.encode_sentences(["a photo of dotted", "a photo of wet", "a photo of heart"])
    torch.testing.assert_close(table.all, torch.nn.functional.normalize(expected, dim=1))


@pytest.mark.parametrize(
    ("options", "width", "message"),
    [
        (
            WordVectorOptions("ft+w2v", word2vec=Path("/w2v.bin")),
            4,
            r"word_vectors is 'ft\+w2v', but no file is given for fasttext: set fasttext to the path",
        ),
        (WordVectorOptions("clip"), 3, r"word_vectors is 'clip', whose vectors have \d+ numbers, expected 3"),
    ],
)
def test_tables_that_cannot_be_filled_are_named(options: WordVectorOptions, width: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WordTable(SPACE, width).fill_by_options(options, load_backbone("demo"))


def test_a_backbone_without_a_text_tower_gives_no_vectors() -> None:
    with pytest.raises(ConfigError, match="word_vectors is 'clip', but GivenFeatures has no text tower"):
        WordTable(SPACE, 2).fill_by_options(WordVectorOptions("clip"), GivenFeatures(2))


def test_features_that_are_given_cannot_be_encoded() -> None:
    with pytest.raises(ConfigError, match="loaded without its image encoder, for features of width 5"):
        GivenFeatures(5).encode_image(torch.zeros(1, 3, 8, 8))
