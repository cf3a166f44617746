import open_clip
import pytest
import torch
from safetensors.torch import save_file

from czslkit.backbones import load_backbone
from czslkit.backbones.adapters import Adapter
from czslkit.backbones.clip import ClipBackbone
from czslkit.backbones.openai_format import from_openai
from czslkit.components import Backbone
from czslkit.errors import ConfigError, UnknownNameError
from czslkit.weights import read_tensors


@torch.no_grad()
def test_images_and_texts_are_encoded_as_open_clip_does(clip_file, images):
    backbone = load_backbone(str(clip_file)).eval()
    torch.testing.assert_close(backbone.encode_image(images).pooled, backbone.clip.encode_image(images))
    ids = open_clip.SimpleTokenizer()(["a photo of a wet dog", "rust"], context_length=77)
    hidden = backbone.encode_text(backbone.embed_tokens(ids))
    found = backbone.project_text(hidden[torch.arange(2), ids.argmax(1)])
    torch.testing.assert_close(found, backbone.clip.encode_text(ids))


@pytest.mark.parametrize("length", [6, 80])  # within the positions of the tower, and past their end
def test_a_start_that_prompts_share_is_encoded_as_in_each_of_them(clip_file, length):
    backbone = load_backbone(str(clip_file)).eval()
    start, rest = (torch.randn(*shape, 64, requires_grad=True) for shape in ((4,), (3, length - 4)))
    once = backbone.encode_text_after(start, rest)
    in_each = Backbone.encode_text_after(backbone, start, rest)
    torch.testing.assert_close(once, in_each)
    weight = torch.randn_like(once)
    grads = (torch.autograd.grad((hidden * weight).sum(), (start, rest)) for hidden in (once, in_each))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_layers_are_what_a_shorter_tower_would_give(clip_file, images):
    backbone = load_backbone(str(clip_file)).eval()
    features = backbone.encode_image(images, (3, 0))
    state = read_tensors(clip_file)
    for depth, layer in ((4, features.layers[0]), (1, features.layers[1])):
        cut = {
            k: v for k, v in state.items() if not (k.startswith("visual.transformer") and int(k.split(".")[3]) >= depth)
        }
        torch.testing.assert_close(layer[:, 0], from_openai(cut).eval().encode_image(images))


@torch.no_grad()
def test_only_the_layers_asked_for_are_projected(clip_file, images, monkeypatch):
    backbone = load_backbone(str(clip_file)).eval()
    calls = []
    project = ClipBackbone.project_image
    monkeypatch.setattr(ClipBackbone, "project_image", lambda self, x: calls.append(x.shape) or project(self, x))
    assert len(backbone.encode_image(images, (1, 4)).layers) == 2
    assert len(calls) == 2
    assert backbone.encode_image(images).layers == ()
    assert calls[2:] == [(5, 128)]  # the class token alone


@torch.no_grad()
def test_fresh_adapters_change_nothing_and_used_ones_do(clip_file, images):
    plain, adapted = load_backbone(str(clip_file)).eval(), load_backbone(str(clip_file), adapter_dim=8).eval()
    torch.testing.assert_close(adapted.encode_image(images).pooled, plain.encode_image(images).pooled)
    adapted.adapters[5 + 2].up.bias.copy_(torch.arange(128.0))  # a constant would vanish in the norms
    assert (adapted.encode_image(images).pooled - plain.encode_image(images).pooled).abs().max() > 1e-3


@torch.no_grad()
def test_each_adapter_reads_what_its_residual_reads(clip_file, images):
    backbone = load_backbone(str(clip_file), adapter_dim=8).eval()
    for p in backbone.adapters.parameters():
        p.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    visual = backbone.clip.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(5, 1, -1), x], 1) + visual.positional_embedding
    x = visual.ln_pre(x)
    adapters = zip(backbone.adapters[:5], backbone.adapters[5:], strict=True)
    for block, (beside_attention, beside_mlp) in zip(visual.transformer.resblocks, adapters, strict=True):
        y = block.ln_1(x)
        x = x + block.attn(y, y, y, need_weights=False)[0] + beside_attention(x)
        x = x + block.mlp(block.ln_2(x)) + beside_mlp(x)
    torch.testing.assert_close(backbone.encode_image(images).pooled, visual.ln_post(x[:, 0]) @ visual.proj)


def test_only_adapters_train(clip_file):
    backbone = load_backbone(str(clip_file), adapter_dim=8)
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    assert len(trained) == 5 * 2 * 4
    assert all(name.startswith("adapters.") for name in trained)


def test_an_adapter_is_a_tenth_of_its_bottleneck():
    adapter = Adapter(4, 2, dropout=0.0)
    x = torch.randn(3, 4)
    assert adapter(x).abs().max() == 0
    torch.nn.init.ones_(adapter.up.weight)
    expected = 0.1 * (x @ adapter.down.weight.T).clamp(min=0).sum(1, keepdim=True).expand(-1, 4)
    torch.testing.assert_close(adapter(x), expected)


@torch.no_grad()
def test_positions_past_the_last_are_zero(clip_file):
    backbone = load_backbone(str(clip_file)).eval()
    prompts = torch.randn(1, 80, 64)
    backbone_long = load_backbone(str(clip_file)).eval()
    backbone_long.clip.positional_embedding = torch.nn.Parameter(
        torch.cat([backbone.clip.positional_embedding, torch.zeros(3, 64)])
    )
    torch.testing.assert_close(backbone.encode_text(prompts), backbone_long.encode_text(prompts))


def test_over_long_texts_keep_their_end_mark(clip_file):
    ids = load_backbone(str(clip_file)).tokenize(["a very long attribute name that does not fit"], 8)
    assert ids.tolist() == [[49406, 320, 1070, 1538, 527, 5493, 1981, 49407]]


def test_safetensors_load_as_torch_files_do(clip_file, tmp_path):
    save_file(read_tensors(clip_file), tmp_path / "clip.safetensors")
    again = load_backbone(str(tmp_path / "clip.safetensors"))
    assert torch.equal(again.clip.text_projection, load_backbone(str(clip_file)).clip.text_projection)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ln_final.bias"), r"ln_final\.bias is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), r"extra is unknown"),
        (lambda s: s.update({"ln_final.bias": torch.zeros(3)}), r"ln_final\.bias is \[3\], expected \[64\]"),
        (lambda s: s.pop("visual.conv1.weight"), r"^these tensors do not fit CLIP:\nvisual\.conv1\.weight is missing$"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("visual.tr")], r"not a CLIP .* no vision transformer"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("transformer")], r"not a CLIP .* no text transformer"),
    ],
)
def test_weights_that_do_not_fit_are_listed(openai_state, change, message):
    state = openai_state(depth=1)
    change(state)
    with pytest.raises(ConfigError, match=message):
        from_openai(state)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weights": Hostile()}, tmp_path / "bad.pt")
    with pytest.raises(ConfigError, match=r"bad\.pt is not a readable weight file"):
        read_tensors(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ("VIT-B-32/openai", UnknownNameError, r"no backbone named 'VIT-B-32'.*Did you mean 'ViT-B-32'"),
        (
            "/nowhere/x.pt",
            UnknownNameError,
            r"^backbone is '/nowhere/x\.pt', which is not the path of a file that exists$",
        ),
        ("./x.pt", UnknownNameError, r"^backbone is '\./x\.pt', which is not the path of a file that exists$"),
        (
            "~nosuch/x.pt",
            UnknownNameError,
            r"^backbone is '~nosuch/x\.pt', but ~nosuch does not exist: there is no such",
        ),
        ("ViT-B-32/openia", ConfigError, r"ViT-B-32 has no weights 'openia'.*Did you mean 'openai'"),
        ("timm/resnet999", ConfigError, r"timm has no model 'resnet999'"),
        ("timm/resnet10t/best", ConfigError, r"'best' is not pretrained, random or a file"),
        ("demo/large", ValueError, r"takes no argument, got 'large'"),
    ],
)
def test_a_backbone_that_is_not_there_is_named(setting, error, message):
    with pytest.raises(error, match=message):
        load_backbone(setting)


@torch.no_grad()
def test_other_towers_give_pooled_features_only():
    model = open_clip.create_model("RN50", pretrained=None)
    backbone = ClipBackbone(model).eval()
    assert backbone.depth == 0
    assert backbone.encode_image(torch.zeros(1, 3, 224, 224)).pooled.shape == (1, backbone.dim)
    with pytest.raises(ValueError, match="adapters need a vision transformer with a class token, not a ModifiedResNet"):
        load_backbone(model, adapter_dim=8)


def test_a_text_tower_of_another_kind_is_refused():
    vision = open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=8, image_size=16)
    text = open_clip.CLIPTextCfg(context_length=16, vocab_size=1000, width=64, heads=1, layers=1)
    backbone = ClipBackbone(open_clip.CLIP(64, vision, text))
    with pytest.raises(ValueError, match=r"has OpenAI's 49408 tokens; this model has a CLIP with 1000 tokens, causal"):
        backbone.tokenize(["wet dog"], 8)


def test_an_image_tower_has_no_prompts():
    backbone = load_backbone("timm/resnet10t/random")
    for ask in (
        lambda: backbone.tokenize(["x"], 8),
        lambda: backbone.embed_tokens(torch.zeros(1, 8, dtype=torch.long)),
        lambda: backbone.encode_text(torch.zeros(1, 8, 4)),
        lambda: backbone.project_text(torch.zeros(1, 4)),
    ):
        with pytest.raises(NotImplementedError, match="Timm has no text tower"):
            ask()
    with pytest.raises(NotImplementedError, match="Timm has no projection for visual tokens"):
        backbone.project_image(torch.zeros(1, 4))


@pytest.mark.parametrize("setting", ["ViT-B-32/openai", "hf-hub:someone/something", "timm/resnet10t"])
def test_weights_that_cannot_be_fetched_are_a_clear_error(setting, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("the hub is not there\nand much more")

    monkeypatch.setattr("open_clip.create_model", offline)
    monkeypatch.setattr("timm.create_model", offline)
    message = f"the weights of {setting} could not be loaded: the hub is not there; a file works as well"
    with pytest.raises(ConfigError, match=message):
        load_backbone(setting)


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s34b_b79k", False), ("metaclip_400m", True)])
def test_weights_bring_their_own_activation(tag, quick, monkeypatch):
    asked = {}
    monkeypatch.setattr("open_clip.create_model", lambda name, **kwargs: asked.update(kwargs) or 1 / 0)
    with pytest.raises(ConfigError):
        load_backbone(f"ViT-B-32/{tag}")
    assert asked["force_quick_gelu"] == quick
    assert asked["require_pretrained"]


def test_pixels_are_normalised_as_the_weights_want(clip_file):
    model = from_openai(read_tensors(clip_file))
    assert ClipBackbone(model).mean == open_clip.OPENAI_DATASET_MEAN
    model.visual.image_mean, model.visual.image_std = [0.5, 0.4, 0.3], [0.1, 0.2, 0.3]  # as create_model leaves them
    backbone = ClipBackbone(model)
    assert (backbone.mean, backbone.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
