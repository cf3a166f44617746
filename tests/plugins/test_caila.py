"""CAILA: its concept shift, its prompts, and what it refuses. Its numbers are compared in tests/originals."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator

import czslkit
from czslkit.errors import ConfigError
from czslkit.testing import demo_space
from czslkit.training_hooks import TrainingData
from czslkit.types import Batch, PairSpace
from czslkit_plugins.caila_prompts import SPELLINGS, ConceptPrompts, Words, joined


@pytest.fixture
def method(clip_file):
    torch.manual_seed(0)
    return czslkit.build("caila", demo_space(), backbone=str(clip_file), shift=1.0)


@pytest.fixture
def data():
    """Eight images. The object 2 is seen with the attribute 1 alone, the attribute 0 with the objects 0 and 1."""
    pairs = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 2]])
    space = PairSpace(("a", "b"), ("x", "y", "z"), pairs, torch.ones(4, dtype=torch.bool))
    attr, obj = pairs[[0, 0, 1, 1, 2, 2, 3, 3]].T
    return TrainingData("toy", Path(), space, (Path(),) * 8, attr, obj)


def drawn(method, data, image, kind, count=200):
    method.object_share = float(kind == "obj")
    partners = method.companions(data, torch.full((count,), image), Generator().manual_seed(0))
    other = "attr" if kind == "obj" else "obj"
    assert (partners[other] == -1).all() and (partners[kind] >= 0).all()
    return Counter(partners[kind].tolist())


def test_a_partner_shows_a_new_word_that_was_seen_with_the_other_word_of_the_image(method, data):
    assert set(drawn(method, data, 0, "obj")) == {2, 3, 4, 5}  # object 1, whatever the attribute
    assert set(drawn(method, data, 2, "attr")) == {4, 5, 6, 7}  # attribute 1, whatever the object


def test_the_only_partner_of_a_word_is_drawn_again(method, data):
    assert set(drawn(method, data, 6, "attr")) == {4, 5, 6, 7}  # object 2 was seen with attribute 1 alone


def test_new_words_are_drawn_evenly_whatever_the_number_of_their_images(method, data):
    more = torch.tensor([0] * 30)  # the attribute 0 with the object 0
    pairs = torch.tensor([[0, 0], [0, 1], [0, 2]])
    attr, obj = pairs[torch.cat((torch.tensor([1, 2]), more))].T
    crowded = replace(data, attr=attr, obj=obj)
    found = drawn(method, crowded, 0, "obj", 2000)
    assert sum(found[i] for i in range(2, 32)) == pytest.approx(1000, abs=100)
    assert found[1] == pytest.approx(1000, abs=100)


def test_shifts_are_as_likely_as_the_options_say(method, data):
    method.shift, method.object_share = 0.3, 0.25
    partners = method.companions(data, torch.arange(8).repeat(500), Generator().manual_seed(0))
    shares = {concept: (found >= 0).double().mean().item() for concept, found in partners.items()}
    assert shares == {"attr": pytest.approx(0.225, abs=0.03), "obj": pytest.approx(0.075, abs=0.02)}
    method.shift = 0.0
    assert method.companions(data, torch.arange(8), Generator()) == {}


def test_a_shift_replaces_the_image_of_one_pass_and_one_label(method):
    images = torch.arange(5.0)[:, None, None, None].expand(5, 3, 2, 2)
    attr, obj = torch.tensor([0, 1]), torch.tensor([0, 1])
    partner = Batch(images[4:], torch.tensor([1]), torch.tensor([1]), rows=torch.tensor([0]))
    pairs = torch.tensor([[0, 0], [1, 1], [0, 1]])
    batch, views = method.shifted(Batch(images[:2], attr, obj, companions={"obj": partner}), pairs)
    assert (batch.attr.tolist(), batch.obj.tolist()) == ([0, 1], [1, 1])
    assert {concept: view[:, 0, 0, 0].tolist() for concept, view in views.items()} == {"attr": [0, 1], "obj": [4, 1]}
    batch, views = method.shifted(Batch(images[:2], attr, obj, companions={"attr": partner}), pairs)
    assert batch.attr.tolist() == [0, 1]  # the attribute 1 with the object 0 is no candidate
    assert views["attr"] is not None and torch.equal(views["attr"], images[:2])


def test_every_spelling_is_used_for_its_exact_name(clip_file):
    backbone = czslkit.build("clip", demo_space(), backbone=str(clip_file)).backbone
    names = (*SPELLINGS, "Old", "faux.fur")
    space = PairSpace(names, ("dog",), torch.tensor([[0, 0]]), torch.ones(1, dtype=torch.bool))
    prompts = ConceptPrompts(backbone, space)
    expected = backbone.tokenize([f"a photo of a {text}" for text in (*SPELLINGS.values(), "old", "faux.fur")], 77)
    for words, length, ids in zip(prompts.attrs.ids, prompts.attrs.length, expected, strict=True):
        assert [*prompts.start.tolist(), *words[:length].tolist()] == ids[: ids.argmax()].tolist()


def test_words_of_different_lengths_are_joined_without_gaps(method):
    first, second = (
        Words(method.backbone, ["wet", "black and white", "old"]),
        Words(method.backbone, ["dog", "fire truck"]),
    )
    ids, length = joined(first, second, torch.tensor([1, 0, 1]), torch.tensor([1, 0, 0]))
    whole = Words(method.backbone, ["black and white fire truck", "wet dog", "black and white dog"])
    assert length.tolist() == whole.length.tolist() == [5, 2, 4]
    for found, expected, count in zip(ids, whole.ids, length, strict=True):
        assert torch.equal(found[:count], expected[:count])


@torch.no_grad()
def test_a_long_sentence_is_cut_and_keeps_its_end_mark(method):
    prompt, backbone = method.prompt, method.backbone
    long, fitting = prompt.encode(backbone, "pair", torch.full((2, 80), 320), torch.tensor([80, 71]))
    torch.testing.assert_close(long, fitting)


def test_the_validation_loss_is_the_loss_without_dropout_and_takes_encoded_texts(method, images):
    pairs = demo_space().pairs
    batch = Batch(images, *pairs[torch.arange(len(images)) % len(pairs)].T)
    method.eval()
    torch.testing.assert_close(method.validation_loss(batch, method.text(pairs)), method.loss(batch, pairs))
    with pytest.raises(ConfigError, match="Caila has a loss of its own, which has no fused scores"):
        method.validation_loss(batch, method.text(pairs), fused=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion_start": 5}, "fusion_start is 5, but the backbone has 5 visual blocks; expected one of the blocks"),
        ({"backbone": "timm/resnet10t/random"}, "Timm takes no adapters; it needs a method add_adapters"),
    ],
)
def test_a_backbone_without_the_first_block_of_the_joint_pass_is_refused(clip_file, options, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        czslkit.build("caila", demo_space(), **{"backbone": str(clip_file), **options})


def test_a_text_tower_that_is_not_causal_is_refused(method):
    method.backbone.causal = False
    with pytest.raises(ValueError, match="is not causal, so padding would change the texts; CAILA needs a causal"):
        ConceptPrompts(method.backbone, demo_space())
