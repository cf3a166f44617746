"""Every tower of open_clip has the features here that open_clip's own program computes."""

from __future__ import annotations

import functools
import json

import open_clip
import pytest
import torch

import czslkit
from czslkit.backbones import load_backbone
from czslkit.backbones.clip import ClipBackbone
from czslkit.backbones.openai_format import from_openai
from czslkit.errors import ConfigError

SENTENCES = ["a photo of a wet dog", "rust", "a photo of a very old dry-erase board"]


def draw(backbone: ClipBackbone) -> torch.Tensor:
    return torch.randn(2, 3, backbone.image_size, backbone.image_size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("sizes", "pixels", "tokens", "heads"),
    [
        ({"patch": 4, "grid": 7}, 28, 50, (2, 1)),  # tokens of ViT-B-32
        ({"patch": 2, "grid": 14, "width": 192, "depth": 3}, 28, 197, (3, 1)),  # of ViT-B-16, and three heads
        ({"patch": 14, "grid": 24, "width": 64, "depth": 2}, 336, 577, (1, 1)),  # 336 pixels
        ({"patch": 5, "grid": 3, "width": 256, "text_width": 192, "dim": 96, "depth": 1}, 15, 10, (4, 3)),
        ({"patch": 8, "grid": 2, "width": 128, "text_width": 128, "dim": 160, "depth": 7}, 16, 5, (2, 2)),
        ({"patch": 8, "grid": 2, "width": 32, "text_width": 64, "dim": 16, "depth": 2}, 16, 5, (1, 1)),
    ],
)
@torch.no_grad()
def test_a_tower_of_any_size_is_the_one_of_open_clip(openai_state, sizes, pixels, tokens, heads):
    backbone = ClipBackbone(from_openai(openai_state(**sizes))).eval()
    clip = backbone.clip
    visual, images = clip.visual, draw(backbone)
    assert (backbone.image_size, backbone.visual_tokens) == (pixels, tokens)
    assert (visual.transformer.resblocks[0].attn.num_heads, clip.transformer.resblocks[0].attn.num_heads) == heads

    outputs = []
    for block in visual.transformer.resblocks:
        block.register_forward_hook(lambda module, given, output: outputs.append(output))
    expected = clip.encode_image(images)
    found = backbone.encode_image(images, range(backbone.depth))
    torch.testing.assert_close(found.pooled, expected)
    torch.testing.assert_close(found.tokens, outputs[-1])
    assert len(found.layers) == backbone.depth == len(outputs)
    for layer, output in zip(found.layers, outputs, strict=True):
        assert layer.shape == (2, tokens, backbone.dim)
        torch.testing.assert_close(layer, visual.ln_post(output) @ visual.proj)
    ids = open_clip.SimpleTokenizer()(SENTENCES, context_length=77)
    torch.testing.assert_close(backbone.encode_sentences(SENTENCES), clip.encode_text(ids))


@pytest.fixture
def without_memory(monkeypatch):
    """Create models on the meta device: their tensors have shapes but no numbers."""
    monkeypatch.setattr("open_clip.create_model", functools.partial(open_clip.create_model, device="meta"))
    with torch.device("meta"):
        yield


@pytest.mark.parametrize(
    ("name", "depth", "widths", "pixels", "tokens", "heads"),
    [
        ("ViT-B-32", 12, (768, 512, 512), 224, 50, (12, 8)),
        ("ViT-B-16", 12, (768, 512, 512), 224, 197, (12, 8)),
        ("ViT-L-14-quickgelu", 24, (1024, 768, 768), 224, 257, (16, 12)),
        ("ViT-L-14-336-quickgelu", 24, (1024, 768, 768), 336, 577, (16, 12)),
    ],
)
def test_the_models_of_the_papers_have_their_sizes(without_memory, name, depth, widths, pixels, tokens, heads):
    backbone = load_backbone(f"{name}/random")
    assert (backbone.depth, backbone.image_size, backbone.visual_tokens) == (depth, pixels, tokens)
    assert (backbone.visual_width, backbone.token_width, backbone.dim) == widths
    towers = (backbone.clip.visual.transformer, backbone.clip.transformer)
    assert tuple(tower.resblocks[0].attn.num_heads for tower in towers) == heads
    first, last = backbone.encode_image(draw_nothing(backbone), (0, depth - 1)).layers
    assert first.shape == last.shape == (2, tokens, widths[2])


def draw_nothing(backbone: ClipBackbone) -> torch.Tensor:
    return torch.empty(2, 3, backbone.image_size, backbone.image_size)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in open_clip.list_models() if "hf_model_name" not in json.dumps(open_clip.get_model_config(n))]
)
def test_every_model_of_open_clip_is_a_backbone(without_memory, name):
    backbone = load_backbone(f"{name}/random")
    layers = tuple(range(backbone.depth))[-2:]
    features = backbone.encode_image(draw_nothing(backbone), layers)
    assert features.pooled.shape == (2, backbone.dim)
    assert all(layer.shape == (2, backbone.visual_tokens, backbone.dim) for layer in features.layers)
    if backbone._no_prompts_reason():
        length = open_clip.get_model_config(name)["text_cfg"].get("context_length", 77)
        text = backbone.clip.encode_text(torch.zeros(2, length, dtype=torch.long))
    else:
        text = backbone.project_text(backbone.encode_text(torch.empty(2, 8, backbone.token_width))[:, -1])
    assert text.shape == (2, backbone.dim)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("csp", {}), ("msci", {"heads": (8, 8)}), ("troika", {})])
@torch.no_grad()
def test_methods_run_on_a_tower_of_full_size(space, name, options):
    method = czslkit.build(name, space, backbone="ViT-B-32/random", **options).eval()
    images = draw(method.backbone)
    found = method.rank(images, method.text(space.pairs))
    assert found.shape == (2, len(space.pairs))
    assert found.isfinite().all()
    layers = method.encode(images).layers
    assert [layer.shape for layer in layers] == [(2, 50, 512)] * len(method.layers)


VISION = {"image_size": 16, "patch_size": 8, "layers": 1, "width": 64}
SIGLIP_TEXT = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
#: open_clip models of each kind of text tower that is not OpenAI's, in small; each replaces parts of a plain one.
FOREIGN = {
    "siglip": {  # image and text tower
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": SIGLIP_TEXT | {"vocab_size": 500, "context_length": 16, "hf_tokenizer_name": "nobody/nothing"},
    },
    "mobile": {"text_cfg": {"no_causal_mask": True}},  # OpenAI's tokens
    "worldwide": {"text_cfg": {"vocab_size": 500, "pool_type": "eos", "hf_tokenizer_name": "nobody/nothing"}},
    "coca": {
        "custom_text": True,
        "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {"context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"width": 96, "context_length": 76, "heads": 2, "layers": 1, "attn_pooler_heads": 2},
    },
}


@pytest.fixture(params=FOREIGN)
def foreign(request, monkeypatch):
    """Return the setting of a small model whose text tower is not OpenAI's."""
    parts = FOREIGN[request.param]
    text = {"context_length": 77, "vocab_size": 49408, "width": 96, "heads": 2, "layers": 2} | parts["text_cfg"]
    config = {"embed_dim": 96, "vision_cfg": VISION} | parts | {"text_cfg": text}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, request.param, config)
    return f"{request.param}/random"


class Letters:
    """A tokenizer of 500 tokens: one token for each letter, and 2 for the end."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, texts):
        rows = [[*(ord(c) % 400 + 10 for c in text), 2][: self.length] for text in texts]
        return torch.tensor([row + [1] * (self.length - len(row)) for row in rows])


@pytest.fixture
def letters(monkeypatch):
    """Use ``Letters`` for every tokenizer that would be downloaded."""
    real = open_clip.get_tokenizer

    def get_tokenizer(name):
        text = open_clip.get_model_config(name)["text_cfg"]
        return Letters(text["context_length"]) if "hf_tokenizer_name" in text else real(name)

    monkeypatch.setattr(open_clip, "get_tokenizer", get_tokenizer)


@torch.no_grad()
def test_zero_shot_on_any_text_tower_is_the_cosine_of_open_clip(foreign, letters, space):
    method = czslkit.build("clip", space, backbone=foreign).eval()
    clip, images = method.backbone.clip, draw(method.backbone)
    found = method.rank(images, method.text(space.pairs[[1, 5, 3]]))
    sentences = ["a photo of dotted ring", "a photo of faux fur ring", "a photo of dotted dry-erase_board"]
    ids = open_clip.get_tokenizer(foreign.partition("/")[0])(sentences)
    image, text = clip.encode_image(images, normalize=True), clip.encode_text(ids, normalize=True)
    torch.testing.assert_close(found, clip.logit_scale.exp() * image @ text.T)
    assert found[:, 0].ne(found[:, 1]).all()


def test_a_tokenizer_is_made_once_and_only_if_needed(foreign, letters, space, monkeypatch):
    made, get = [], open_clip.get_tokenizer
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: made.append(name) or get(name))
    method = czslkit.build("clip", space, backbone=foreign)
    assert made == []
    for chunk in space.pairs.split(5):
        method.text(chunk)
    assert made == [foreign.partition("/")[0]]


@pytest.mark.parametrize("foreign", ["siglip"], indirect=True)
def test_a_tokenizer_that_cannot_be_had_is_a_clear_error(foreign, space, monkeypatch):
    def offline(name):
        raise OSError("the hub is not there\nand much more")

    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    message = r"^the tokenizer of siglip could not be loaded: the hub is not there; it is downloaded from a hub by"
    with pytest.raises(ConfigError, match=message):
        czslkit.build("clip", space, backbone=foreign).text(space.pairs)


@pytest.mark.parametrize("name", ["coop", "csp"])
@pytest.mark.parametrize(
    ("foreign", "found"),
    [
        ("siglip", "TextTransformer with 500 tokens, not causal, pooled by last"),
        ("mobile", "CLIP with 49408 tokens, not causal, pooled by argmax"),
        ("worldwide", "CLIP with 500 tokens, causal, pooled by eos"),
        ("coca", "TextTransformer with 49408 tokens, causal, pooled by class token"),
    ],
    indirect=["foreign"],
)
def test_soft_prompts_say_what_a_text_tower_lacks(foreign, found, name, space):
    message = (
        rf"^{name}: prompts need a causal text tower .* OpenAI's 49408 tokens; this model has a {found}"
        r"(, with the tokenizer nobody/nothing)?$"
    )
    with pytest.raises(ConfigError, match=message):
        czslkit.build(name, space, backbone=foreign)


@pytest.mark.parametrize(
    ("foreign", "found"), [("siglip", "TimmModel"), ("coca", "VisionTransformer")], indirect=["foreign"]
)
def test_adapters_say_what_an_image_tower_lacks(foreign, found, space):
    with pytest.raises(ConfigError, match=rf"^msci: adapters need a vision transformer .* class token, not a {found}$"):
        czslkit.build("msci", space, backbone=foreign)


def test_sentences_need_a_text_tower(space):
    with pytest.raises(NotImplementedError, match="Timm has no text tower"):
        load_backbone("timm/resnet10t/random").encode_sentences(["wet dog"])
