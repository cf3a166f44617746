"""An explanation has the scores of its method, and attention, weights and contributions as plain loops compute them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import czslkit
from czslkit.components import Interaction
from czslkit.errors import CzslkitError
from czslkit.heads import CosineHead
from czslkit.interactions import CrossAttention, attended
from czslkit.method import METHODS, Method
from czslkit.prompts import SoftPrompt
from czslkit.types import AttentionMaps, Setting

STAGED = {"adapter_dim": 4, "low_layers": 2, "high_layers": 3, "heads": (4, 2), "layers": (2, 1)}
VARIANTS = {
    "weighted_sum": ("msci", STAGED),
    "gated": ("msci", STAGED | {"fusion": "gated"}),
    "troika": ("troika", {"adapter_dim": 4, "heads": 4, "layers": 2}),
}
BRANCHES = ("pair", "attr", "obj")


def with_changed_parameters(method):
    """Return the method with noise added to every trained parameter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in method.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return method.eval()


@pytest.fixture
def make(clip_file, space):
    def make(variant):
        name, options = VARIANTS[variant]
        return with_changed_parameters(czslkit.build(name, space, backbone=str(clip_file), **options))

    return make


@pytest.fixture(params=VARIANTS)
def method(request, make):
    return make(request.param)


def attention_of(layer, query, context):
    """Return the attention of one image, computed text by text and head by head: ``[N, T]``, mean over heads."""
    q, k = layer.query(query), layer.key(context)
    width = q.shape[1] // layer.heads
    rows = torch.zeros(len(query), len(context))
    for n in range(len(query)):
        for h in range(layer.heads):
            part = slice(h * width, (h + 1) * width)
            exponentials = torch.stack([(q[n, part] @ token[part] / width**0.5).exp() for token in k])
            rows[n] += exponentials / exponentials.sum() / layer.heads
    return rows


def attend(layers, query, context):
    """Return the texts after the layers and the mean attention, ``[N, T]``, for one image."""
    rows = []
    for layer in layers:
        rows.append(attention_of(layer, query, context))
        query = layer(query, context[None])[0]
    return query, torch.stack(rows).mean(0)


@torch.no_grad()
def test_attention_equals_torchs_multihead_attention():
    torch.manual_seed(0)
    layer = CrossAttention(12, heads=3, dropout=0.5).eval()
    reference = nn.MultiheadAttention(12, 3, batch_first=True)
    reference.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
    reference.in_proj_bias.zero_()
    query, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    expected = reference(query, context, context, average_attn_weights=False)[1]
    torch.testing.assert_close(layer.attention(query, context), expected)
    torch.testing.assert_close(layer.attention(query[0], context)[0], expected[0])


@torch.no_grad()
def test_the_output_of_a_layer_follows_from_its_attention():
    torch.manual_seed(0)
    layer = CrossAttention(12, heads=3, dropout=0.5).eval()
    query, context = torch.randn(5, 12), torch.randn(2, 7, 12)
    value = layer.value(context).unflatten(-1, (3, 4)).transpose(1, 2)  # [2, 3, 7, 4]
    x = query + layer.out((layer.attention(query, context) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(query, context), x + layer.mlp(layer.norm(x)))


@torch.no_grad()
def test_a_stack_of_layers_attends_with_the_mean_of_its_layers():
    torch.manual_seed(0)
    layers = nn.ModuleList(CrossAttention(12, heads=3, dropout=0.5) for _ in range(2)).eval()
    query, context = torch.randn(5, 12), torch.randn(2, 7, 12)
    found, attention = attended(layers, query, context)
    for i in range(2):
        expected, rows = attend(layers, query, context[i])
        torch.testing.assert_close(found[i], expected)
        torch.testing.assert_close(attention[i], rows)


@torch.no_grad()
def test_explained_scores_are_the_scores(method, images):
    text = method.text(method.space.pairs)
    explanation, scores = method.explain(images, text), method(images, text)
    for branch in BRANCHES:
        torch.testing.assert_close(getattr(explanation.scores, branch), getattr(scores, branch), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(explanation.ranked, method.rank(images, text), atol=1e-5, rtol=1e-5)
    assert torch.equal(explanation.pairs, method.space.pairs)


@torch.no_grad()
def test_explained_features_are_the_features(method, images):
    image, text = method.aggregator(method.encode(images)), method.text(method.space.pairs)
    _, expected = method.interaction(image, text, method.backbone)
    seen, found, _ = method.interaction.explain(image, text, method.backbone)
    assert seen is image
    for branch in BRANCHES:
        torch.testing.assert_close(getattr(found, branch), getattr(expected, branch), atol=1e-5, rtol=1e-5)


def test_ranks_depend_on_the_setting(clip_file, space, images):
    options = VARIANTS["weighted_sum"][1] | {"open_score_weights": (0.5, 2.0, 2.0), "backbone": str(clip_file)}
    method = with_changed_parameters(czslkit.build("msci", space, **options))
    text, setting = method.text(space.pairs), Setting("test", "open", len(space.pairs))
    found = method.explain(images, text, setting).ranked
    torch.testing.assert_close(found, method.rank(images, text, setting), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, method.rank(images, text))


def test_shapes_are_as_documented(method, images):
    explanation = method.explain(images, method.text(method.space.pairs[:5]))
    stages = ["traction"] if "Troika" in type(method).__name__ else ["local", "global"]
    for group, last in ((explanation.attention, (17,)), (explanation.weights, (64,)), (explanation.contribution, ())):
        assert list(group) == stages
        for stage in stages:
            shapes = {branch: tuple(value.shape) for branch, value in group[stage].items()}
            assert shapes == {"pair": (5, 5, *last), "attr": (5, 3, *last), "obj": (5, 4, *last)}
    for stage in stages:
        for branch in BRANCHES:
            sums = explanation.attention[stage][branch].sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums))


def test_an_explanation_holds_no_graph(method, images):
    explanation = method.explain(images, method.text(method.space.pairs))
    assert not explanation.scores.pair.requires_grad
    for group in (explanation.attention, explanation.weights, explanation.contribution):
        assert not any(value.requires_grad for branches in group.values() for value in branches.values())


@torch.no_grad()
def test_an_images_explanation_does_not_depend_on_its_batch_or_on_the_other_pairs(method, images):
    together = method.explain(images, method.text(method.space.pairs))
    alone = method.explain(method.encode(images[2:3]), method.text(method.space.pairs[4:6]))
    torch.testing.assert_close(alone.ranked[0], together.ranked[2, 4:6], atol=2e-5, rtol=1e-4)
    for stage in together.attention:
        for name in ("attention", "weights", "contribution"):
            one, all_ = getattr(alone, name)[stage], getattr(together, name)[stage]
            torch.testing.assert_close(one["pair"][0], all_["pair"][2, 4:6], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(one["obj"][0], all_["obj"][2], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ["weighted_sum", "gated"])
@torch.no_grad()
def test_two_stages_are_explained_as_a_loop_does(make, variant, images):
    method = make(variant)
    text = method.text(method.space.pairs)
    explanation = method.explain(images, text)
    interaction, levels = method.interaction, method.aggregator(method.encode(images)).levels
    for branch in BRANCHES:
        for i in range(len(images)):
            t = F.normalize(getattr(text, branch), dim=-1)
            t1, local = attend(interaction.local.layers, t, interaction.local.norm(levels[0][i]))
            t2, overall = attend(interaction.overall.layers, t1, interaction.overall.norm(levels[1][i]))
            torch.testing.assert_close(explanation.attention["local"][branch][i], local, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(explanation.attention["global"][branch][i], overall, atol=1e-5, rtol=1e-4)
            a, b = (weights[0] for weights in interaction.fusion.weights(t, t1[None], t2[None]))
            torch.testing.assert_close(explanation.weights["local"][branch][i], a, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(explanation.weights["global"][branch][i], b, atol=1e-5, rtol=1e-4)
            for n in range(len(t)):
                moves = (a[n] + b[n]) * (t1[n] - t[n]), b[n] * (t2[n] - t1[n])
                fused = interaction.fusion(t, t1[None], t2[None])[0, n]
                torch.testing.assert_close((1 + a[n] + b[n]) * t[n] + sum(moves), fused, atol=1e-5, rtol=1e-4)
                lengths = [sum(float(x) ** 2 for x in move) ** 0.5 for move in moves]
                for stage, length in zip(("local", "global"), lengths, strict=True):
                    found = float(explanation.contribution[stage][branch][i, n])
                    assert found == pytest.approx(length / sum(lengths), abs=1e-4)


@torch.no_grad()
def test_weights_of_the_gated_fusion_are_those_of_its_gate(make, images):
    method = make("gated")
    text, interaction = method.text(method.space.pairs), method.interaction
    low, high = method.aggregator(method.encode(images)).levels
    joined = F.normalize(torch.cat([getattr(text, branch) for branch in BRANCHES]), dim=-1)
    local = interaction.local(joined, low)
    weights = interaction.fusion.weights(joined, local, interaction.overall(local, high))
    explanation = method.explain(images, text)
    for stage, expected in zip(("local", "global"), weights, strict=True):
        assert torch.equal(torch.cat([explanation.weights[stage][branch] for branch in BRANCHES], 1), expected)
    assert explanation.weights["local"]["pair"].std(0).min() > 0  # they differ from image to image


def test_weights_of_the_sum_are_the_learned_vectors(make, images):
    method = make("weighted_sum")
    explanation = method.explain(images, method.text(method.space.pairs))
    fusion = method.interaction.fusion
    for stage, learned in (("local", fusion.local_weight), ("global", fusion.global_weight)):
        for weights in explanation.weights[stage].values():
            assert torch.equal(weights, learned.detach().expand_as(weights))


@pytest.mark.parametrize(("idle", "local"), [("overall", 1.0), ("local", 0.0)])
def test_a_stage_that_adds_nothing_contributes_nothing(make, images, idle, local):
    method = make("gated")
    with torch.no_grad():
        for layer in getattr(method.interaction, idle).layers:
            for last in (layer.out[0], layer.mlp[3]):
                last.weight.zero_()
                last.bias.zero_()
    contribution = method.explain(images, method.text(method.space.pairs)).contribution
    for branch in BRANCHES:
        torch.testing.assert_close(contribution["local"][branch], torch.full_like(contribution["local"][branch], local))
        torch.testing.assert_close(
            contribution["global"][branch], torch.full_like(contribution["global"][branch], 1 - local)
        )


@torch.no_grad()
def test_traction_is_explained_as_a_loop_does(make, images):
    method = make("troika")
    text = method.text(method.space.pairs)
    explanation = method.explain(images, text)
    interaction = method.interaction
    (tokens,) = method.aggregator(method.encode(images)).levels
    for branch in BRANCHES:
        tokens = interaction.norm(tokens)  # once for pairs, twice for attributes, three times for objects
        t = F.normalize(getattr(text, branch), dim=-1)
        for i in range(len(images)):
            _, expected = attend(interaction.layers, t, tokens[i])
            torch.testing.assert_close(explanation.attention["traction"][branch][i], expected, atol=1e-5, rtol=1e-4)
        weights, contribution = explanation.weights["traction"][branch], explanation.contribution["traction"][branch]
        assert torch.equal(weights, interaction.weight.expand_as(weights))
        torch.testing.assert_close(contribution, torch.ones_like(contribution))  # all that there is


@pytest.mark.parametrize(
    ("name", "interaction"),
    [
        ("clip", "NoInteraction"),
        ("coop", "NoInteraction"),
        ("csp", "NoInteraction"),
        ("visprod", "NoInteraction"),
        *((f"dfsp-{variant}", "DecomposedFusion") for variant in ("i2t", "t2i", "bif", "spm")),
    ],
)
def test_an_interaction_without_attention_names_those_with_it(name, interaction, space):
    backbone = "timm/resnet10t/random" if name == "visprod" else "demo"
    method = czslkit.build(name, space, backbone=backbone).eval()
    size = method.backbone.image_size
    with pytest.raises(
        CzslkitError, match=f"^{interaction} has nothing to explain: its texts do not attend to an image's tokens"
    ) as raised:
        method.explain(torch.zeros(1, 3, size, size), method.text(space.pairs))
    able = str(raised.value).split("Interactions that can be explained: ")[1]
    assert "traction (czslkit_plugins.troika)" in able
    assert "two_stage (czslkit_plugins.msci)" in able
    assert "none" not in able


def test_every_method_explains_itself_or_says_why_not(space):
    for name in METHODS:
        method = czslkit.build(name, space, backbone="timm/resnet10t/random" if name == "visprod" else "demo").eval()
        size = method.backbone.image_size
        images, text = torch.zeros(1, 3, size, size), method.text(space.pairs)
        if type(method.interaction).explain is Interaction.explain:
            with pytest.raises(CzslkitError, match="has nothing to explain"):
                method.explain(images, text)
        else:
            assert method.explain(images, text).ranked.shape == (1, len(space.pairs))


def test_an_interaction_of_ones_own_is_explained_through_its_hook(clip_file, space, images):
    class Glance(Interaction):
        """Texts move towards the class token."""

        def forward(self, image, text, backbone):
            return image, replace(text, pair=text.pair + image.pooled[:, None])

        def explain(self, image, text, backbone):
            one = torch.ones(len(image.pooled), len(text.pair))
            return *self(image, text, backbone), AttentionMaps(
                {"glance": {"pair": one[..., None]}}, {"glance": {"pair": one[..., None]}}, {"glance": {"pair": one}}
            )

    backbone = czslkit.load_backbone(str(clip_file))
    method = Method(
        space=space,
        backbone=backbone,
        prompt=SoftPrompt(backbone, space),
        head=CosineHead(backbone.scale),
        interaction=Glance(),
    ).eval()
    text = method.text(space.pairs)
    explanation = method.explain(images, text)
    assert list(explanation.attention) == ["glance"]
    torch.testing.assert_close(explanation.ranked, method.rank(images, text).detach())
