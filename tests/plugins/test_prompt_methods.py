"""CLIP, CoOp and CSP differ in the learned part of the prompt."""

import pytest
import torch

import czslkit
from czslkit.data.fixed_features import has_fixed_features


@pytest.mark.parametrize(
    ("name", "trained"), [("clip", set()), ("coop", {"prompt.context.0"}), ("csp", {"prompt.words"})]
)
def test_only_its_own_part_of_the_prompt_is_trained(clip_file, space, name, trained):
    method = czslkit.build(name, space, backbone=str(clip_file))
    assert {n for n, p in method.named_parameters() if p.requires_grad} == trained
    assert method.trains == bool(trained)
    assert has_fixed_features(method)


@torch.no_grad()
def test_coop_and_csp_start_as_one_function(clip_file, space, images):
    coop, csp = (czslkit.build(name, space, backbone=str(clip_file)).eval() for name in ("coop", "csp"))
    torch.testing.assert_close(coop.rank(images, coop.text(space.pairs)), csp.rank(images, csp.text(space.pairs)))


@torch.no_grad()
def test_clip_is_the_cosine_of_image_and_sentence(clip_file, space, images):
    method = czslkit.build("clip", space, backbone=str(clip_file)).eval()
    found = method.rank(images, method.text(space.pairs[:2]))
    clip = method.backbone.clip
    ids = method.backbone.tokenize(["a photo of dotted heart", "a photo of dotted ring"], 77)
    image, text = clip.encode_image(images, normalize=True), clip.encode_text(ids, normalize=True)
    torch.testing.assert_close(found, clip.logit_scale.exp() * image @ text.T)


def test_word_dropout_is_alive_in_training_only(clip_file, space):
    method = czslkit.build("csp", space, backbone=str(clip_file), word_dropout=0.9)
    torch.manual_seed(0)
    once, again = (method.train().text(space.pairs).pair for _ in range(2))
    assert not torch.equal(once, again)
    assert torch.equal(method.eval().text(space.pairs).pair, method.text(space.pairs).pair)
