"""Prompts on a backbone with its own words, marks, pooling and padding, against a computation text by text."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import czslkit
from czslkit.backbones import load_backbone
from czslkit.components import BACKBONES, Backbone
from czslkit.errors import ConfigError
from czslkit.prompts import FixedPrompt, SoftPrompt
from czslkit.types import ImageFeatures

WORDS = ("<end>", "<pad>", "<start>", "a", "photo", "of", "wet", "very", "old", "dog", "car", "fire", "truck")
PAIRS = torch.tensor([[0, 0], [1, 1], [0, 1], [1, 0]])


class Both(Backbone):
    """A text tower in which all tokens attend to all tokens. The end mark has the smallest id."""

    depth = visual_tokens = visual_width = 0
    dim, token_width, image_size = 8, 16, 8
    mean = std = (0.5, 0.5, 0.5)
    text_length, padding_token = 10, 1
    pooling = "end"

    def __init__(self, argument: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.positions = nn.Embedding(len(WORDS), 16), nn.Parameter(torch.randn(10, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.project, self.image = nn.Linear(16, 8), nn.Linear(3, 8)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.received: list[int] = []

    def encode_image(self, images, layers=()):
        return ImageFeatures(self.image(images.mean((2, 3))))

    def image_parameters(self):
        return self.image.parameters()

    def tokens(self, text):
        return [2] * self.start_marks + [WORDS.index(word) for word in text.split() if word in WORDS] + [0]

    def tokenize(self, texts, length):
        rows = [self.tokens(text) for text in texts]
        rows = [row if len(row) <= length else [*row[: length - 1], 0] for row in rows]
        return torch.tensor([row + [1] * (length - len(row)) for row in rows])

    def end_of_text(self, ids):
        return (ids == 0).int().argmax(1)

    def embed_tokens(self, ids):
        return self.table(ids)

    def encode_text(self, prompts):
        self.received.append(prompts.shape[1])
        return self.layer(prompts + self.positions[: prompts.shape[1]])

    def project_text(self, tokens):
        return self.project(tokens)

    def pool_text(self, hidden, end):
        if self.pooling == "mean":
            return self.project(torch.stack([row[: e + 1].mean(0) for row, e in zip(hidden, end, strict=True)]))
        return self.project(hidden[:, -1]) if self.pooling == "last" else super().pool_text(hidden, end)


class Mean(Both):
    pooling, start_marks = "mean", 0


class Padded(Both):
    """A text tower that was trained with padding, as SigLIP's: without start mark, read at its last token."""

    pooling, start_marks, pads_texts = "last", 0, True


@pytest.fixture(params=[Both, Mean, Padded])
def backbone(request, monkeypatch):
    monkeypatch.setattr(BACKBONES, "_items", dict(BACKBONES.items()))
    BACKBONES.register("mine")(request.param)
    return load_backbone("mine").eval()


@pytest.fixture
def space():
    return czslkit.PairSpace(("wet", "very old"), ("dog", "fire truck"), PAIRS, torch.tensor([True, True, False, True]))


def feature(backbone, embedded):
    """The feature of one prompt without padding, ``[L, W]``."""
    end = len(embedded) - 1
    if backbone.pads_texts:
        embedded = torch.cat([embedded, backbone.table.weight[1].expand(10 - len(embedded), -1)])
    hidden = backbone.layer(embedded + backbone.positions[: len(embedded)])
    pooled = {"mean": hidden.mean(0), "last": hidden[-1], "end": hidden[end]}[backbone.pooling]
    return backbone.project(pooled)


@torch.no_grad()
def test_sentences_of_different_lengths_are_what_each_is_alone(backbone, space):
    found = FixedPrompt(space)(backbone, PAIRS).pair
    sentences = ["wet dog", "very old fire truck", "wet fire truck", "very old dog"]
    rows = [backbone.tokens(f"a photo of {sentence}") for sentence in sentences]
    expected = torch.stack([feature(backbone, backbone.table.weight[row]) for row in rows])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_only_a_tower_that_was_trained_with_padding_receives_it(backbone, space):
    FixedPrompt(space)(backbone, PAIRS)
    marks = backbone.start_marks + 1
    assert backbone.received == ([10] if backbone.pads_texts else [5 + marks, 6 + marks, 7 + marks])


@torch.no_grad()
def test_a_soft_prompt_has_the_marks_of_its_backbone(backbone, space):
    text = SoftPrompt(backbone, space, primitives=True)(backbone, PAIRS)
    table = backbone.table.weight

    def word(name):
        return table[[WORDS.index(part) for part in name.split()]].mean(0, keepdim=True)

    def prompt(*names):
        return torch.cat([table[backbone.tokens("a photo of")[:-1]], *map(word, names), table[:1]])

    pairs = [(space.attrs[a], space.objs[o]) for a, o in PAIRS.tolist()]
    for found, names in ((text.pair, pairs), (text.attr, [(a,) for a in space.attrs]), (text.obj, zip(space.objs))):
        expected = torch.stack([feature(backbone, prompt(*each)) for each in names])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_method_learns_its_words_on_it(backbone, space):
    method = czslkit.build("csp", space, backbone="mine", word_dropout=0)
    batch = czslkit.Batch(torch.randn(4, 3, 8, 8), PAIRS[:, 0], PAIRS[:, 1])
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(40):
        losses.append(method.loss(batch, PAIRS))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("method", ["clip", "csp"])
def test_a_word_without_tokens_is_named(backbone, method):
    space = czslkit.PairSpace(("wet", "rostig"), ("dog",), PAIRS[:0], torch.tensor([], dtype=torch.bool))
    with pytest.raises((ConfigError, ValueError), match=r"has no token for 'rostig'; rename these attributes"):
        czslkit.build(method, space, backbone="mine").text(torch.tensor([[0, 0]]))


def test_a_context_that_does_not_fit_is_refused_with_the_number_of_marks(backbone, space):
    tokens, marks = 5 + 2 + backbone.start_marks + 1, backbone.start_marks + 1
    with pytest.raises(ValueError, match=rf"pair and the {marks} marks that is {tokens}, more than context_length 7"):
        SoftPrompt(backbone, space, context="a photo of a photo", context_length=7)


@pytest.mark.parametrize("backbone", [Padded], indirect=True)
def test_a_prompt_that_is_longer_than_a_padded_text_is_refused(backbone, space):
    with pytest.raises(ValueError, match=r"pair and the 1 marks that is 11, more than text_length 10"):
        SoftPrompt(backbone, space, context=" ".join(["a photo"] * 4), context_length=20)


def test_tokens_of_a_tower_that_is_not_causal_are_not_kept(backbone, space):
    with pytest.raises(ConfigError, match=rf"^dfsp-spm: {type(backbone).__name__} is not causal, so padding would"):
        czslkit.build("dfsp-spm", space, backbone="mine")
