"""The vectors of words from which methods without a text tower make the features of pairs.

A method with such a table is a :class:`FromWordVectors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .components import Backbone
from .errors import ConfigError
from .linear import Linear
from .options import option
from .prompts import clean
from .training_hooks import TrainingData
from .types import PairSpace, TextFeatures
from .word_vectors import TABLES, TableVectors, WordVectors, joined_vectors


@dataclass(frozen=True)
class WordVectorOptions:
    """The options of every method that starts from vectors of words."""

    word_vectors: Literal[
        "clip", "glove", "word2vec", "fasttext", "ft+w2v", "ft+gl", "gl+w2v", "ft+ft", "ft+w2v+gl"
    ] = option(
        "clip",
        "vectors of words: clip takes the text features of 'a photo of WORD' from the backbone; other values name a "
        "table, or several that are joined (ft is fasttext, w2v word2vec, gl glove)",
    )
    glove: Path | None = option(None, "file of the table glove, such as glove.6B.300d.txt")
    word2vec: Path | None = option(None, "file of the table word2vec, such as GoogleNews-vectors-negative300.bin")
    fasttext: Path | None = option(None, "file of the table fasttext, such as cc.en.300.bin")

    @property
    def files(self) -> dict[str, Path]:
        """The files that are given, by table."""
        given = {"glove": self.glove, "word2vec": self.word2vec, "fasttext": self.fasttext}
        return {table: file for table, file in given.items() if file is not None}

    def width(self, backbone: Backbone) -> int:
        """Return the numbers of a vector: 300 for each table, as published tables have."""
        return backbone.dim if self.word_vectors == "clip" else 300 * len(TABLES[self.word_vectors])


class WordTable(nn.Module):
    """One vector for each attribute and object. They are zero until they are filled or loaded.

    Args:
        space: label space with the words.
        width: numbers of a vector.
        learned: train the vectors; otherwise they are saved with a trained method, but never change.
        spellings: other words for labels, by table and label; see :func:`czslkit.word_vectors.joined_vectors`.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    attr: Tensor  # [A, width]
    obj: Tensor  # [O, width]

    def __init__(
        self,
        space: PairSpace,
        width: int,
        *,
        learned: bool = True,
        spellings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__()
        self.names = {"attr": space.attrs, "obj": space.objs}
        self.width, self.spellings = width, spellings
        for kind, names in self.names.items():
            zeros = torch.zeros(len(names), width)
            if learned:
                self.register_parameter(kind, nn.Parameter(zeros))
            else:
                self.register_buffer(kind, zeros)

    @property
    def all(self) -> Tensor:
        """The vectors of all words, ``[A + O, width]``, attributes first."""
        return torch.cat((self.attr, self.obj))

    @torch.no_grad()
    def fill(self, tables: str, vectors: Mapping[str, WordVectors] | TableVectors) -> None:
        """Take the vectors from tables; see :func:`czslkit.word_vectors.joined_vectors` for arguments and errors."""
        for kind, names in self.names.items():
            found = joined_vectors(tables, vectors, names, self.width, self.spellings)
            getattr(self, kind).copy_(found)

    @torch.no_grad()
    def fill_by_options(self, options: WordVectorOptions, backbone: Backbone) -> None:
        """Take the vectors from the files that options name, or from the text tower of the backbone.

        Raises:
            ConfigError: no file is given for a table, or the backbone has no text features of this width.
            DataError: a file cannot be read, or does not have all words.
        """
        if options.word_vectors != "clip":
            if missing := [
                table for table in dict.fromkeys(TABLES[options.word_vectors]) if table not in options.files
            ]:
                raise ConfigError(
                    [
                        f"word_vectors is {options.word_vectors!r}, but no file is given for {' and '.join(missing)}: "
                        f"set {missing[0]} to the path of the file, or word_vectors to clip"
                    ]
                )
            return self.fill(options.word_vectors, options.files)
        for kind, names in self.names.items():
            try:
                found = backbone.encode_sentences([f"a photo of {clean(name)}" for name in names])
            except NotImplementedError:
                raise ConfigError(
                    [
                        f"word_vectors is 'clip', but {type(backbone).__name__} has no text tower: set word_vectors to "
                        "a table and give its file, or backbone to a CLIP model"
                    ]
                ) from None
            if found.shape[1] != self.width:
                raise ConfigError(
                    [f"word_vectors is 'clip', whose vectors have {found.shape[1]} numbers, expected {self.width}"]
                )
            getattr(self, kind).copy_(F.normalize(found, dim=1))
        return None


class ComposedWords(nn.Module):
    """A prompt without a text tower: the features of a pair are a linear function of the vectors of its two words.

    Mancini et al., "Open World Compositional Zero-Shot Learning", CVPR 2021, https://arxiv.org/abs/2101.12609

    Args:
        words: the vectors of the words, of width ``D``.
        normalised: divide the features by their length.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    def __init__(self, words: WordTable, *, normalised: bool = True) -> None:
        super().__init__()
        self.words, self.normalised = words, normalised
        self.projection = Linear(2 * words.width, words.width)

    def forward(self, backbone: nn.Module, pairs: Tensor) -> TextFeatures:
        """Return the features of ``pairs`` ``[P, 2]`` as ``pair`` ``[P, D]``."""
        joined = torch.cat((self.words.attr[pairs[:, 0]], self.words.obj[pairs[:, 1]]), 1)
        features = self.projection(joined)
        return TextFeatures(pairs, F.normalize(features, dim=-1) if self.normalised else features)


class FromWordVectors:
    """What methods share whose prompt has a :class:`WordTable` as ``words``; it stands before ``Method`` in a class.

    The hook ``prepare`` fills the table by the options of the method. :func:`czslkit.load_original` calls
    ``load_word_vectors`` with its argument ``word_vectors``.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    options: WordVectorOptions
    backbone: Backbone
    prompt: nn.Module

    @property
    def words(self) -> WordTable:
        """The vectors of the words."""
        words = self.prompt.words
        assert isinstance(words, WordTable)
        return words

    def prepare(self, data: TrainingData) -> None:
        """Fill the table; see :meth:`WordTable.fill_by_options`."""
        self.words.fill_by_options(self.options, self.backbone)

    def load_word_vectors(self, vectors: Mapping[str, WordVectors] | TableVectors) -> None:
        """Take the vectors of words from tables; see :meth:`WordTable.fill`."""
        self.words.fill(self.options.word_vectors, vectors)
