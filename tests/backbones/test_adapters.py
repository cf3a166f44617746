"""Adapters in the blocks of either tower of a CLIP."""

from __future__ import annotations

import pytest
import torch

import czslkit
from czslkit.backbones import load_backbone
from czslkit.backbones.adapters import Adapter, Bottleneck, ConceptAdapters, adapter_mode
from czslkit.backbones.clip import ClipBackbone
from czslkit.components import Backbone
from czslkit.prompts import FixedPrompt, SoftPrompt
from czslkit.recompute import Recomputation, recompute

PAIRS = torch.tensor([[0, 0], [1, 1], [0, 1]])


def random_adapter(width):
    adapter = Adapter(width, 4, dropout=0.0)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return adapter


@pytest.fixture
def backbone(clip_file):
    torch.manual_seed(0)
    return load_backbone(str(clip_file)).eval()


def expected_text(backbone, ids, adapters):
    """The text tower of open_clip, block by block, with ``adapters[block, kind]``."""
    clip = backbone.clip
    x = clip.token_embedding(ids) + clip.positional_embedding[: ids.shape[1]]
    mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)
    for i, block in enumerate(clip.transformer.resblocks):
        y = block.ln_1(x)
        attention = block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        x = x + attention + added(adapters, (i, "attention"), x) + added(adapters, (i, "after_attention"), attention)
        mlp = block.mlp(block.ln_2(x))
        x = x + mlp + added(adapters, (i, "mlp"), x) + added(adapters, (i, "after_mlp"), mlp)
    return clip.ln_final(x[torch.arange(len(ids)), ids.argmax(1)]) @ clip.text_projection


def added(adapters, place, x):
    return adapters[place](x) if place in adapters else torch.zeros_like(x)


PLACES = [
    (None, ("attention", "mlp"), [(0, "attention"), (1, "attention"), (0, "mlp"), (1, "mlp")]),
    ([1], ("attention", "mlp"), [(1, "attention"), (1, "mlp")]),
    (range(2), ("mlp",), [(0, "mlp"), (1, "mlp")]),
    ([0], ("attention",), [(0, "attention")]),
    ([1], ("after_attention", "after_mlp"), [(1, "after_attention"), (1, "after_mlp")]),
    ([0], ("after_mlp", "mlp", "attention"), [(0, "after_mlp"), (0, "mlp"), (0, "attention")]),
]


@pytest.mark.parametrize(("blocks", "kinds", "places"), PLACES)
@torch.no_grad()
def test_text_adapters_act_at_the_sub_layers_of_their_blocks(backbone, blocks, kinds, places):
    texts = ["a photo of a wet dog", "rust"]
    ids = backbone.tokenize(texts, 77)
    plain = backbone.encode_sentences(texts)
    backbone.add_adapters(random_adapter, tower="text", blocks=blocks, kinds=kinds)
    adapters = dict(zip(places, backbone.text_adapters, strict=True))
    found = backbone.encode_sentences(texts)
    torch.testing.assert_close(found, expected_text(backbone, ids, adapters))
    assert (found - plain).abs().max() > 1e-3


@torch.no_grad()
def test_text_adapters_act_on_a_start_that_prompts_share(backbone):
    backbone.add_adapters(random_adapter, tower="text")
    start, rest = torch.randn(4, 64), torch.randn(3, 2, 64)
    found = backbone.encode_text_after(start, rest)
    torch.testing.assert_close(found, Backbone.encode_text_after(backbone, start, rest))


@torch.no_grad()
def test_a_soft_prompt_goes_through_text_adapters(backbone):
    space = czslkit.PairSpace(("wet", "old"), ("dog", "car"), PAIRS, torch.tensor([True, True, False]))
    soft, fixed = SoftPrompt(backbone, space), FixedPrompt(space)
    plain = soft(backbone, PAIRS).pair
    backbone.add_adapters(random_adapter, tower="text")
    torch.testing.assert_close(soft(backbone, PAIRS).pair, fixed(backbone, PAIRS).pair)
    assert (soft(backbone, PAIRS).pair - plain).abs().max() > 1e-3


def test_every_text_adapter_gets_a_gradient(backbone):
    backbone.add_adapters(random_adapter, tower="text")
    backbone.encode_sentences(["a photo of a wet dog"]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.text_adapters.parameters())
    assert not any(p.requires_grad for p in backbone.clip.parameters())


@torch.no_grad()
def test_visual_adapters_by_block_and_kind_are_some_of_all_adapters(backbone, clip_file, images):
    everywhere = load_backbone(str(clip_file), adapter_dim=4).eval()  # 5 blocks; adapters start at zero
    backbone.add_adapters(random_adapter, blocks=[1, 4], kinds=("mlp",))
    backbone.add_adapters(random_adapter, blocks=[2], kinds=("attention",))
    for place, adapter in zip((5 + 1, 5 + 4, 2), backbone.adapters, strict=True):
        everywhere.adapters[place].load_state_dict(adapter.state_dict())
    found = backbone.encode_image(images, (0, 2))
    expected = everywhere.encode_image(images, (0, 2))
    torch.testing.assert_close(found.pooled, expected.pooled)
    torch.testing.assert_close(found.layers, expected.layers)


@torch.no_grad()
def test_adapters_at_one_place_add_up(backbone, clip_file, images):
    twice = load_backbone(str(clip_file)).eval()
    backbone.add_adapters(random_adapter, blocks=[3], kinds=("mlp",))
    (adapter,) = backbone.adapters
    doubled = Adapter(128, 4, dropout=0.0)
    doubled.load_state_dict(adapter.state_dict())
    doubled.up.weight.mul_(2)
    doubled.up.bias.mul_(2)
    backbone.add_adapters(lambda width: adapter, blocks=[3], kinds=("mlp",))
    twice.add_adapters(lambda width: doubled, blocks=[3], kinds=("mlp",))
    torch.testing.assert_close(backbone.encode_image(images).pooled, twice.encode_image(images).pooled)


@torch.no_grad()
def test_blocks_run_in_parts_on_any_number_of_tokens(backbone, images):
    backbone.add_adapters(random_adapter, kinds=("after_mlp",))
    tokens = backbone.run_image_blocks(backbone.embed_image(images), range(2))
    whole = backbone.encode_image(images)
    torch.testing.assert_close(backbone.run_image_blocks(tokens, range(2, 5)), whole.tokens)
    twice = backbone.run_image_blocks(torch.cat((tokens, tokens), 1), range(2, 5))  # attention to a token and its copy
    torch.testing.assert_close(twice, torch.cat((whole.tokens, whole.tokens), 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("call", [lambda b: b.embed_image(None), lambda b: b.run_image_blocks(None, [0])])
def test_a_backbone_without_visual_blocks_says_so(call):
    for name in ("timm/resnet10t/random", "RN50/random"):
        with pytest.raises(NotImplementedError, match="has no visual blocks; this method needs a CLIP with a vision"):
            call(load_backbone(name))


def add_concepts(backbone, tower="visual", mixture=None):
    def make(width):
        adapter = ConceptAdapters(width, 4, ("attr", "obj"), mixture)
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return adapter

    backbone.add_adapters(make, tower=tower, blocks=[1], kinds=("after_attention", "after_mlp"))


@torch.no_grad()
@pytest.mark.parametrize("concept", ["attr", "obj"])
def test_a_pass_uses_the_adapters_of_its_mode(backbone, clip_file, images, concept):
    add_concepts(backbone)
    single = load_backbone(str(clip_file)).eval()
    chosen = iter([adapters.concepts[concept] for adapters in backbone.adapters])
    single.add_adapters(lambda width: next(chosen), blocks=[1], kinds=("after_attention", "after_mlp"))
    with adapter_mode(concept):
        found = backbone.encode_image(images).pooled
    torch.testing.assert_close(found, single.encode_image(images).pooled)


@torch.no_grad()
def test_the_mixture_raises_the_mean_of_all_latent_numbers():
    torch.manual_seed(0)
    adapters, x = ConceptAdapters(6, 3, ("attr", "obj"), "all"), torch.randn(2, 5, 6)
    for layer in adapters.concepts.values():
        torch.nn.init.normal_(layer.up.bias)
    latent = {}
    for name, layer in adapters.concepts.items():
        down = x @ layer.down.weight.T + layer.down.bias
        latent[name] = down / (1 + (-1.702 * down).exp())
    latent["all"] = (latent["attr"] + latent["obj"] + latent["all"]) / 3
    raised = [latent[name] @ layer.up.weight.T + layer.up.bias for name, layer in adapters.concepts.items()]
    torch.testing.assert_close(adapters(x, "all"), sum(raised) / 3)


@pytest.mark.parametrize("tower", ["visual", "text"])
def test_a_block_that_is_recomputed_keeps_its_mode(backbone, images, tower):
    add_concepts(backbone, tower)
    visual = tower == "visual"
    adapters = backbone.adapters if visual else backbone.text_adapters

    def encode(backbone):
        return backbone.encode_image(images).pooled if visual else backbone.encode_sentences(["a wet dog"])

    gradients = []
    for share in (0, 1):
        with recompute(Recomputation(text=share, image=share)):
            losses = []
            for concept in ("attr", "obj"):
                with adapter_mode(concept):
                    losses.append(encode(backbone).square().sum())
            sum(losses).backward()
        gradients.append([parameter.grad for parameter in adapters.parameters()])
        adapters.zero_grad()
    torch.testing.assert_close(*gradients)


def test_a_mode_that_adapters_do_not_have_is_refused(backbone, images):
    add_concepts(backbone, mixture="all")
    message = r"adapters of attr, obj, all run in the mode '{}', expected one of these: encode in a with block"
    with pytest.raises(ValueError, match=message.format("")):
        backbone.encode_image(images)
    with adapter_mode("pair"), pytest.raises(ValueError, match=message.format("pair")):
        backbone.encode_image(images)
    with adapter_mode("all"):
        backbone.encode_image(images)


def test_a_bottleneck_starts_with_zero_biases_and_changes_the_model():
    layer = Bottleneck(8, 2)
    assert not layer.down.bias.any() and not layer.up.bias.any() and layer(torch.ones(1, 8)).any()


def test_adapters_of_either_tower_have_its_width(backbone):
    widths = []
    backbone.add_adapters(lambda width: widths.append(width) or torch.nn.Identity(), blocks=[0])
    backbone.add_adapters(lambda width: widths.append(width) or torch.nn.Identity(), tower="text", blocks=[0])
    assert widths == [128, 128, 64, 64]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"tower": "audio"}, "adapters for tower 'audio', expected 'visual' or 'text'"),
        ({"blocks": [5]}, "kind 'attention' for block 5, expected .* a block from 0 to 4"),
        ({"tower": "text", "blocks": [-1]}, "for block -1, expected .* a block from 0 to 1"),
        (
            {"kinds": ("norm",)},
            "an adapter of kind 'norm' for block 0, expected a kind of attention, mlp, after_attention,",
        ),
        ({"kinds": "mlp"}, r"kinds of adapters are 'mlp', expected several: write kinds=\('mlp',\)"),
        ({"kinds": ()}, r"adapters for blocks None and kinds \(\) have no place, expected at least one block and one"),
        ({"blocks": []}, r"adapters for blocks \[\] and kinds .* have no place, expected at least one block"),
    ],
)
def test_a_place_that_is_not_there_is_refused(backbone, place, message):
    with pytest.raises(ValueError, match=message):
        backbone.add_adapters(random_adapter, **place)
    assert not len(backbone.adapters) and not len(backbone.text_adapters)


def test_a_text_tower_whose_blocks_are_not_run_here_takes_no_adapters():
    import open_clip

    vision = open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=8, image_size=16)
    text = open_clip.CLIPTextCfg(context_length=16, vocab_size=1000, width=64, heads=1, layers=1)
    backbone = ClipBackbone(open_clip.CLIP(64, vision, text))
    with pytest.raises(ValueError, match=r"has OpenAI's 49408 tokens; this model has a CLIP with 1000 tokens"):
        backbone.add_adapters(random_adapter, tower="text")


def test_an_adapter_that_is_no_module_is_refused(backbone):
    with pytest.raises(
        ValueError, match=r"make\(128\) returned a NoneType, expected an nn\.Module: return the adapter"
    ):
        backbone.add_adapters(lambda width: None)
    assert not len(backbone.adapters) and not backbone.adapters.places
