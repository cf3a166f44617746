from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

import czslkit
from czslkit.backbones.timm import tower_of
from czslkit.errors import ConfigError
from czslkit.testing import demo_space
from czslkit.types import Batch
from czslkit_plugins.ade_attention import AttentionBlock, check_solver, similarity, transport, transported


def attention(tokens: int, seed: int) -> torch.Tensor:
    return torch.randn(2, 3, tokens, tokens, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_a_transport_of_two_by_two_patches_takes_the_cheap_routes():
    cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    flow = transport(cost, torch.tensor([[1.5, 0.5]]), torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(flow, torch.tensor([[[1.0, 0.5], [0.0, 0.5]]]))


def test_gradients_reach_the_similarity_only():
    forth, back = (attention(17, seed).requires_grad_() for seed in (0, 1))
    found, rows, columns = similarity(forth, back)
    assert not (rows.requires_grad or columns.requires_grad)
    flow = transport(1 - found.detach(), rows, columns)
    (gradient,) = torch.autograd.grad(transported(found, rows, columns), found)
    torch.testing.assert_close(gradient, flow / 2)


def test_many_patches_are_averaged_two_by_two():
    forth, back = attention(197, 0), attention(197, 1)
    found, rows, columns = similarity(forth, back)
    assert found.shape == (2, 49, 49)
    rows_of = [0, 1, 14, 15]  # patches of the first square of 2 x 2
    ways = [(1 + i, 1 + j) for i in rows_of for j in rows_of]
    expected = np.mean([[a.sum(1)[:, i, j].numpy() for i, j in ways] for a in (forth, back)], axis=(0, 1))
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-5)
    torch.testing.assert_close(rows.sum(1), torch.full((2,), 49.0))
    assert columns.shape == (2, 49)


def test_many_patches_that_are_no_even_square_are_refused():
    with pytest.raises(ValueError, match="an image has 121 patches; more than 99 must be a square of even size"):
        similarity(attention(122, 0), attention(122, 1))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="5 attention heads do not divide the width 32"):
        AttentionBlock(32, 5)


def test_a_backbone_without_tokens_is_refused(monkeypatch):
    monkeypatch.setattr("czslkit.backbones.timm.Timm._positions", lambda self, features: None)
    with pytest.raises(ConfigError, match="need the tokens of an image, the backbone returns none"):
        czslkit.build("ade", demo_space(), backbone="timm/resnet10t/random")


def test_a_missing_solver_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package POT .* which is not installed: pip install POT"):
        check_solver()


def test_an_image_without_companions_is_its_own():
    method = czslkit.build("ade", demo_space(), backbone="demo").eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pairs = method.space.pairs[:2]
    batch = Batch(images, pairs[:, 0], pairs[:, 1])
    explicit = Batch(images, pairs[:, 0], pairs[:, 1], companions={"same_attr": batch, "same_obj": batch})
    assert torch.equal(method.loss(batch, pairs), method.loss(explicit, pairs))


@torch.no_grad()
def test_a_convolutional_tower_has_its_pooled_features_and_positions_as_tokens():
    import timm

    tower = timm.create_model("resnet18", num_classes=0).eval()
    backbone = tower_of(tower.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    (tokens,) = backbone.encode_image(images, (0,)).layers
    positions = tower.forward_features(images)
    torch.testing.assert_close(tokens[:, 0], tower(images))
    torch.testing.assert_close(tokens[:, 1:], positions.flatten(2).transpose(1, 2))
    assert (backbone.depth, backbone.visual_tokens, backbone.visual_width) == (1, 50, 512)


@torch.no_grad()
def test_a_vision_transformer_has_its_class_token_and_patches_as_tokens():
    backbone = czslkit.backbones.load_backbone("timm/test_vit/random")
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(0))
    (tokens,) = backbone.encode_image(images, (0,)).layers
    torch.testing.assert_close(tokens, backbone.tower.forward_features(images))
    assert tokens.shape == (2, backbone.visual_tokens, backbone.dim)


def test_the_heads_of_a_vision_transformer_may_be_given():
    import timm

    tower = timm.create_model("test_vit", num_classes=0, img_size=32)
    state = tower.state_dict()
    assert tower_of(state).tower.blocks[0].attn.num_heads == 8  # 64 channels, less than any published tower
    assert tower_of(state, heads=2).tower.blocks[0].attn.num_heads == 2
