"""What a file of weights does not say comes from the model's tags, is said, or is refused."""

from __future__ import annotations

import json
import re

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from czslkit.backbones import load_backbone
from czslkit.backbones.transformers_format import to_openai
from czslkit.errors import ConfigError, DataError, UnknownNameError
from czslkit.provenance import backbone_digest
from czslkit.types import Preprocessing

from .conftest import CONFIG

MARKS = {name: torch.tensor(77) for name in ("input_resolution", "context_length", "vocab_size")}


@torch.no_grad()
def features(setting, images):
    return load_backbone(setting).eval().encode_image(images).pooled


@torch.no_grad()
def features_of_open_clip(file, images, **options):
    model = open_clip.create_model("tiny", **options).eval()
    model.load_state_dict(load_file(file))
    return model.encode_image(images)


def transformers_state(state, blocks=2):
    """Rename the tensors of a CLIP to those of transformers' ``CLIPModel``, the way back of what czslkit does."""
    found = {
        "logit_scale": state["logit_scale"],
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
    }
    norms = {"text_model.final_layer_norm": "ln_final", "vision_model.pre_layrnorm": "visual.ln_pre"}
    parts = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
    parts |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for kind in ("weight", "bias"):
        for theirs, ours in (norms | {"vision_model.post_layernorm": "visual.ln_post"}).items():
            found[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
        for tower, prefix in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
            for i in range(blocks):
                layer, block = f"{tower}.encoder.layers.{i}", f"{prefix}.resblocks.{i}"
                for theirs, ours in parts.items():
                    found[f"{layer}.{theirs}.{kind}"] = state[f"{block}.{ours}.{kind}"]
                for name, value in zip("qkv", state[f"{block}.attn.in_proj_{kind}"].chunk(3), strict=True):
                    found[f"{layer}.self_attn.{name}_proj.{kind}"] = value.clone()
    return found


def test_openais_own_file_is_taken_under_its_name(register, tiny, tmp_path, images):
    register("tiny-quickgelu", CONFIG | {"quick_gelu": True})
    torch.save(load_file(tiny) | MARKS, tmp_path / "clip.pt")
    expected = features_of_open_clip(tiny, images, force_quick_gelu=True)
    torch.testing.assert_close(features(f"tiny-quickgelu/{tmp_path}/clip.pt", images), expected)
    torch.testing.assert_close(features(f"{tmp_path}/clip.pt", images), expected)


def test_openais_own_file_brings_its_activation_to_a_name_without_one(register, tiny, tmp_path, images, capsys):
    register("tiny", tags={"openai": {"quick_gelu": True}, "web": {"mean": (0.5, 0.5, 0.5)}})
    torch.save(load_file(tiny) | MARKS, tmp_path / "clip.pt")
    expected = features_of_open_clip(tiny, images, force_quick_gelu=True)
    torch.testing.assert_close(features(f"tiny/{tmp_path}/clip.pt", images), expected)
    assert capsys.readouterr().err == ""


def test_openais_own_file_under_a_name_with_another_activation_is_said(tiny, tmp_path, images, capsys):
    torch.save(load_file(tiny) | MARKS, tmp_path / "clip.pt")
    expected = features_of_open_clip(tiny, images, force_quick_gelu=True)
    torch.testing.assert_close(features(f"tiny/{tmp_path}/clip.pt", images), expected)
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(r"clip\.pt: .* QuickGELU is used, although tiny has GELU\. To set it, use local-dir:FOLDER", line)


def test_a_file_takes_the_activation_that_all_tags_have(register, tiny, images, capsys):
    register("tiny", tags={"one": {"quick_gelu": True}, "other": {"quick_gelu": True}})
    expected = features_of_open_clip(tiny, images, force_quick_gelu=True)
    torch.testing.assert_close(features(f"tiny/{tiny}", images), expected)
    assert capsys.readouterr().err == ""


def test_a_file_of_a_name_without_tags_says_what_is_assumed_once(tiny, images, capsys):
    torch.testing.assert_close(features(f"tiny/{tiny}", images), features_of_open_clip(tiny, images))
    [line] = capsys.readouterr().err.splitlines()
    assert "neither tiny nor the file says how images are prepared" in line
    assert "(shortest, bicubic, mean 0.4815 0.4578 0.4082, std" in line
    assert line.endswith("use local-dir:FOLDER with a file open_clip_config.json")
    load_backbone(f"tiny/{tiny}")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("other", "kinds"),
    [
        ({"quick_gelu": True}, r"\(GELU with shortest, .*; QuickGELU with shortest, "),
        ({"mean": (0.5, 0.5, 0.5)}, r"\(GELU with .* mean 0\.4815 .*; GELU with .* mean 0\.5 0\.5 0\.5, "),
        ({"resize_mode": "squash"}, r"\(GELU with shortest, .*; GELU with squash, "),
    ],
)
def test_a_file_of_tags_that_differ_is_refused_without_a_tag(register, tiny, images, other, kinds):
    register("tiny", tags={"web": {"quick_gelu": False}, "other": other})
    remedy = rf"say from which tag the weights started: tiny/TAG/{re.escape(str(tiny))}, with TAG one of web, other"
    with pytest.raises(ConfigError, match=rf"the pretrained tags of tiny differ .* {kinds}.*{remedy}"):
        load_backbone(f"tiny/{tiny}")
    quick = other.get("quick_gelu", False)
    expected = features_of_open_clip(tiny, images, force_quick_gelu=quick)
    torch.testing.assert_close(features(f"tiny/other/{tiny}", images), expected)


def test_a_file_that_a_tag_names_and_that_is_missing_is_named(register, tiny):
    register("tiny", tags={"web": {}})
    with pytest.raises(ConfigError, match=r"tiny has no weights 'nowhere\.pt', and there is no such file\."):
        load_backbone("tiny/web/nowhere.pt")


def test_a_file_alone_says_that_it_is_read_as_openais(openai_state, tmp_path, capsys):
    torch.save(openai_state(depth=1), tmp_path / "clip.pt")
    assert load_backbone(f"{tmp_path}/clip.pt").preprocessing == Preprocessing(32)
    [line] = capsys.readouterr().err.splitlines()
    assert "clip.pt names no model and is read as OpenAI's CLIP: QuickGELU, attention heads of width 64" in line
    assert line.endswith(f"For another model, use NAME/TAG/{tmp_path}/clip.pt")


def test_a_file_of_openai_alone_needs_no_word(openai_state, tmp_path, capsys):
    torch.save(openai_state(depth=1) | MARKS, tmp_path / "clip.pt")
    load_backbone(f"{tmp_path}/clip.pt")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "change",
    [{}, {"quick_gelu": True, "vision_cfg": CONFIG["vision_cfg"] | {"head_width": 32}}],
    ids=["activation", "heads"],
)
def test_a_file_alone_of_another_model_is_refused(register, tiny, change):
    register("tiny", CONFIG | change)
    message = rf"has the sizes of tiny, whose activation or attention heads .* for example tiny/{re.escape(str(tiny))}$"
    with pytest.raises(ConfigError, match=message):
        load_backbone(str(tiny))


def test_a_file_alone_without_whole_heads_is_refused(openai_state, tmp_path):
    torch.save(openai_state(width=96, depth=1), tmp_path / "clip.pt")
    with pytest.raises(
        ConfigError, match=r"tower of width 96, which has no whole number of attention heads of width 64"
    ):
        load_backbone(f"{tmp_path}/clip.pt")


def test_a_convolutional_clip_alone_asks_for_its_name(tmp_path):
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)} | MARKS, tmp_path / "RN50.pt")
    with pytest.raises(
        ConfigError, match=r"no vision transformer in it; .* use NAME/TAG/FILE, for example RN50/openai/FILE"
    ):
        load_backbone(f"{tmp_path}/RN50.pt")


@torch.no_grad()
def test_a_file_of_transformers_is_read(register, tiny, tmp_path, images):
    register("tiny", tags={"web": {}})
    save_file(transformers_state(load_file(tiny)), tmp_path / "model.safetensors")
    setting = f"tiny/{tmp_path}/model.safetensors"
    torch.testing.assert_close(features(setting, images), features_of_open_clip(tiny, images))
    ids = open_clip.SimpleTokenizer()(["a wet dog"])
    model = open_clip.create_model("tiny").eval()
    model.load_state_dict(load_file(tiny))
    torch.testing.assert_close(load_backbone(setting).eval().clip.encode_text(ids), model.encode_text(ids))


def test_a_file_of_transformers_alone_is_read_as_openais(tiny, tmp_path, images, register, capsys):
    register("tiny", CONFIG | {"quick_gelu": True})
    save_file(transformers_state(load_file(tiny)), tmp_path / "model.safetensors")
    expected = features_of_open_clip(tiny, images, force_quick_gelu=True)
    torch.testing.assert_close(features(f"{tmp_path}/model.safetensors", images), expected)
    assert "model.safetensors names no model and is read as OpenAI's CLIP" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ('{"text_config": {"hidden_act": "gelu"}}', True),
        ('{"vision_config": {"hidden_act": "quick_gelu"}, "text_config": {}}', False),
        ("[1]", False),
        ("{", False),
    ],
)
def test_a_file_alone_has_the_activation_of_the_configuration_beside_it(
    openai_state, tmp_path, config, refused, capsys
):
    save_file(transformers_state(openai_state(depth=2)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    if refused:
        with pytest.raises(ConfigError, match=r"config\.json says hidden_act gelu, .*: NAME/TAG/.*model\.safetensors"):
            load_backbone(f"{tmp_path}/model.safetensors")
    else:
        load_backbone(f"{tmp_path}/model.safetensors")
        assert "read as OpenAI's CLIP" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"vision_model.head.probe": torch.zeros(1)}, "a SiglipModel of the package transformers"),
        (
            {"text_model.encoder.layers.0.self_attn.q_proj.bias": torch.zeros(1)},
            r"layers\.0\.self_attn\.k_proj\.bias, text_model.*v_proj\.bias is missing beside .*q_proj\.bias",
        ),
    ],
)
def test_another_model_of_transformers_is_refused(state, message):
    with pytest.raises(ConfigError, match=message):
        to_openai(state)


def test_a_checkpoint_of_timm_with_its_classifier_is_read(tmp_path, capsys):
    torch.save({"state_dict": timm.create_model("resnet10t", num_classes=7).state_dict()}, tmp_path / "full.pth")
    assert load_backbone(f"timm/resnet10t/{tmp_path}/full.pth").dim == 512
    assert capsys.readouterr().err == ""  # the only tag of the model says how images are prepared


def test_a_checkpoint_of_timm_with_other_tensors_is_refused(tmp_path):
    torch.save(timm.create_model("resnet10t").state_dict() | {"extra": torch.zeros(1)}, tmp_path / "full.pth")
    with pytest.raises(ConfigError, match=r"do not fit ResNet:\nextra is unknown"):
        load_backbone(f"timm/resnet10t/{tmp_path}/full.pth")


def test_a_checkpoint_of_timm_says_whose_preprocessing_is_assumed(tmp_path, capsys):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "full.pth")
    load_backbone(f"timm/resnet18/{tmp_path}/full.pth")
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(
        r"resnet18 names no pretrained tag, .* use timm/resnet18\.TAG/FILE with TAG one of .*tv_in1k", line
    )
    assert load_backbone(f"timm/resnet18.tv_in1k/{tmp_path}/full.pth").preprocessing.interpolation == "bilinear"
    assert capsys.readouterr().err == ""


@pytest.fixture
def folder(tiny, tmp_path):
    """A folder with the weights of ``tiny`` in OpenAI's format and no configuration."""
    home = tmp_path / "home"
    home.mkdir()
    torch.save(load_file(tiny) | MARKS, home / "pytorch_model.bin")
    return home


def write_config(folder, **parts):
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG | {"quick_gelu": True}} | parts))


def test_a_folder_with_a_configuration_is_read_and_says_what_it_lacks(folder, tiny, images, capsys):
    write_config(folder)
    expected = features_of_open_clip(tiny, images, force_quick_gelu=True)
    torch.testing.assert_close(features(f"local-dir:{folder}", images), expected)
    line = capsys.readouterr().err
    assert "has no preprocess_cfg; images are prepared as by OpenAI's CLIP (shortest, bicubic," in line
    assert "add preprocess_cfg with resize_mode, interpolation, mean, std, fill_color" in line


def test_a_folder_of_transformers_asks_for_the_name_of_the_model(folder):
    (folder / "config.json").write_text("{}")
    message = r"has no open_clip_config\.json with a model_cfg, .* name the model: NAME/.*/home/pytorch_model\.bin"
    with pytest.raises(ConfigError, match=message):
        load_backbone(f"local-dir:{folder}")


def test_a_damaged_configuration_is_named(folder):
    for text, reason in (("{", "Expecting property name"), ("[]", "it contains a list, not a dict")):
        (folder / "open_clip_config.json").write_text(text)
        with pytest.raises(ConfigError, match=rf"open_clip_config\.json is not a configuration of open_clip: {reason}"):
            load_backbone(f"local-dir:{folder}")


def test_a_configuration_far_larger_than_its_weights_is_refused_before_a_model_is_built(folder):
    wide = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "width": 32_768}}
    write_config(folder, model_cfg=wide)
    message = r"the model of open_clip_config\.json has \d{2},\d{3},\d{3},\d{3} numbers, but its tensors hold only \d+"
    with pytest.raises(ConfigError, match=message):
        load_backbone(f"local-dir:{folder}")


def test_a_configuration_with_an_unknown_resize_mode_is_named(folder):
    write_config(folder, preprocess_cfg={"resize_mode": "stretch"})
    with pytest.raises(ConfigError, match="the resize mode is 'stretch', expected shortest, longest, squash"):
        load_backbone(f"local-dir:{folder}")


def test_a_folder_without_weights_is_named(folder):
    write_config(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ConfigError, match=r"the folder has no weights, expected open_clip_model\.safetensors beside"):
        load_backbone(f"local-dir:{folder}")


def test_a_folder_whose_weights_do_not_fit_lists_them(folder):
    write_config(folder)
    torch.save({"logit_scale": torch.zeros(())}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"these tensors do not fit CLIP:\nln_final\.bias is missing"):
        load_backbone(f"local-dir:{folder}")


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"local-dir:.*/none: there is no folder .*/none"):
        load_backbone(f"local-dir:{tmp_path}/none")
    with pytest.raises(DataError, match=r"backbone local-dir:.*/none: there is no folder .*/none"):
        backbone_digest(f"local-dir:{tmp_path}/none")


def test_results_depend_on_every_file_of_a_folder(folder):
    write_config(folder)
    before = backbone_digest(f"local-dir:{folder}")
    write_config(folder, preprocess_cfg={"resize_mode": "squash"})
    assert backbone_digest(f"local-dir:{folder}") != before


def test_settings_with_a_folder_or_repository_are_named_where_a_name_is_unknown():
    with pytest.raises(UnknownNameError, match=r"hf-hub:REPOSITORY; local-dir:FOLDER; or the path"):
        load_backbone("nothing/here")


def test_a_custom_text_model_reads_the_plain_names(register, tiny, images):
    register("custom", CONFIG | {"custom_text": True}, tags={"web": {}})
    torch.testing.assert_close(features(f"custom/{tiny}", images), features_of_open_clip(tiny, images))


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ({"hf_tokenizer_name": "somebody/words"}, "somebody/words"),
        ({"tokenizer_kwargs": {"clean": "canonicalize"}}, "with clean=canonicalize"),
    ],
)
def test_openais_tokens_are_not_assumed_for_a_model_with_another_tokenizer(register, text, tokenizer):
    register("other", CONFIG | {"text_cfg": CONFIG["text_cfg"] | text})
    with pytest.raises(ValueError, match=rf"pooled by argmax, with the tokenizer {tokenizer}$"):
        load_backbone("other/random").tokenize(["wet dog"], 8)


def test_openais_tokenizer_under_its_name_on_the_hub_is_openais(register):
    register("same", CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"hf_tokenizer_name": "openai/clip-vit-base-patch32"}})
    assert load_backbone("same/random").tokenize(["wet dog"], 5).shape == (1, 5)
