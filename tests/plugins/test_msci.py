from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import czslkit
from czslkit.errors import ConfigError
from czslkit_plugins.msci import Gated, LowHigh, WeightedSum

OPTIONS = {"adapter_dim": 4, "low_layers": 2, "high_layers": 3, "heads": (4, 2), "layers": (2, 1)}


@pytest.fixture
def method(clip_file, space):
    """Return a method whose trainable parameters have left their initial values."""
    torch.manual_seed(0)
    method = czslkit.build("msci", space, backbone=str(clip_file), **OPTIONS)
    with torch.no_grad():
        for p in method.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    return method.eval()


def attend(layer, query, context):
    """Return the texts of one image after a cross-attention layer, computed head by head."""
    q, k, v = layer.query(query), layer.key(context), layer.value(context)
    width = q.shape[1] // layer.heads
    parts = []
    for h in range(layer.heads):
        part = slice(h * width, (h + 1) * width)
        weights = (q[:, part] @ k[:, part].T / width**0.5).softmax(1)
        parts.append(weights @ v[:, part])
    query = query + layer.out(torch.cat(parts, 1))
    hidden = F.layer_norm(query, query.shape[-1:], layer.norm.weight, layer.norm.bias) @ layer.mlp[0].weight.T
    hidden = hidden + layer.mlp[0].bias
    return query + (hidden * torch.sigmoid(1.702 * hidden)) @ layer.mlp[3].weight.T + layer.mlp[3].bias


@torch.no_grad()
def test_scores_are_those_of_a_loop_over_images_and_branches(method, images):
    text = method.text(method.space.pairs)
    found = method(images, text)
    backbone, aggregator, interaction = method.backbone, method.aggregator, method.interaction
    for i in range(len(images)):
        layers = backbone.encode_image(images[i : i + 1], range(backbone.depth)).layers
        cls = layers[-1][0, 0]
        levels = [
            aggregator.project_low(torch.cat([layers[0], layers[1]], -1))[0],
            aggregator.project_high(torch.cat([layers[2], layers[3], layers[4]], -1))[0],
        ]
        views = {"pair": cls[None], "attr": method.head.attr_view(cls[None]), "obj": method.head.obj_view(cls[None])}
        for branch, view in views.items():
            t = F.normalize(getattr(text, branch), dim=-1)
            read = [t]
            for stage, level in zip((interaction.local, interaction.overall), levels, strict=True):
                query, level = read[-1], stage.norm(level)
                for layer in stage.layers:
                    query = attend(layer, query, level)
                read.append(query)
            fused = t + interaction.fusion.local_weight * read[1] + interaction.fusion.global_weight * read[2]
            expected = backbone.scale.exp() * F.cosine_similarity(view, fused, dim=-1)
            torch.testing.assert_close(getattr(found, branch)[i], expected, atol=2e-5, rtol=1e-4)


def test_only_the_selected_layers_are_asked_for():
    assert LowHigh(8, low=2, high=3).layers(7) == (0, 1, 4, 5, 6)
    assert LowHigh(8, low=4, high=4).layers(5) == (0, 1, 2, 3, 1, 2, 3, 4)


def test_a_group_of_one_layer_passes_as_it_is():
    aggregator = LowHigh(8, low=1, high=2)
    assert isinstance(aggregator.project_low, nn.Identity)
    assert [type(m).__name__ for m in aggregator.project_high] == ["Linear", "LayerNorm", "ReLU", "Dropout"]


def test_more_layers_than_the_backbone_has_are_refused(clip_file, space):
    with pytest.raises(ConfigError, match="low_high needs 9 low and 4 high layers, the backbone has 5"):
        czslkit.build("msci", space, backbone=str(clip_file), low_layers=9, heads=(4, 4))


def test_heads_must_divide_the_width(clip_file, space):
    with pytest.raises(ConfigError, match="12 attention heads do not divide the joint width 64"):
        czslkit.build("msci", space, backbone=str(clip_file))


@torch.no_grad()
def test_the_gate_starts_as_the_weighted_sum():
    torch.manual_seed(0)
    text, local, overall = torch.randn(3, 8), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    torch.testing.assert_close(Gated(8, 0.1)(text, local, overall), WeightedSum(8, 0.1)(text, local, overall))


@torch.no_grad()
def test_gate_weights_are_of_each_image_text_and_channel():
    torch.manual_seed(0)
    gate = Gated(8, 0.1)
    nn.init.normal_(gate.gate.weight)
    text, local, overall = torch.randn(3, 8), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    a, b = gate.weights(text, local, overall)
    for i in range(2):
        for n in range(3):
            joined = torch.cat([text[n], local[i, n], overall[i, n]])
            expected = torch.sigmoid(gate.gate.weight @ joined + gate.gate.bias)
            torch.testing.assert_close(torch.cat([a[i, n], b[i, n]]), expected)
    torch.testing.assert_close(gate(text, local, overall), text + a * local + b * overall)


def test_words_contexts_and_everything_after_clip_is_trained(method):
    trained = {name for name, p in method.named_parameters() if p.requires_grad}
    assert {"prompt.words", "prompt.context.0", "prompt.context.2", "interaction.fusion.local_weight"} <= trained
    assert not [name for name in trained if name.startswith("backbone.clip")]
    assert [context.shape for context in method.prompt.context] == [(3, 64)] * 3
