"""Images are prepared as the programs prepare them that the models come from."""

from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

import czslkit
from czslkit.backbones import load_backbone, stated_preprocessing
from czslkit.backbones.preprocess_cfg import of_open_clip, of_timm
from czslkit.data.image_transforms import resize_and_crop, to_normalized_tensor
from czslkit.errors import ConfigError
from czslkit.types import Preprocessing

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
#: What each family of open_clip's models says of its images.
FAMILIES = {
    "clip": {},
    "siglip": HALF | {"interpolation": "bicubic", "resize_mode": "squash"},
    "pe": HALF | {"interpolation": "bilinear", "resize_mode": "squash"},
    "mobile": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear", "resize_mode": "shortest"},
    "longest": HALF | {"interpolation": "bilinear", "resize_mode": "longest", "fill_color": 100},
    "random": {"interpolation": "random"},
}


def prepared(photo, preprocessing):
    return to_normalized_tensor(resize_and_crop(photo, preprocessing), preprocessing.mean, preprocessing.std)


@pytest.fixture(params=FAMILIES)
def said(request):
    return FAMILIES[request.param]


def test_images_are_prepared_as_by_open_clip(said, photo):
    theirs = image_transform_v2(PreprocessCfg(size=32, **said), is_train=False)
    assert torch.equal(prepared(photo, of_open_clip(said, 32)), theirs(photo))


def assert_features_equal(setting, photo, model, transform):
    """Compare pixels and features of czslkit's backbone with those of open_clip's model and transform."""
    backbone = load_backbone(setting).eval()
    pixels = prepared(photo, backbone.preprocessing)
    assert torch.equal(pixels, transform(photo))
    with torch.no_grad():
        theirs = model.eval().encode_image(transform(photo)[None])
        torch.testing.assert_close(backbone.encode_image(pixels[None]).pooled, theirs)


def test_a_tag_gives_the_features_of_open_clip(said, photo, tiny, register, monkeypatch):
    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda config, **options: str(tiny))
    register("tiny", tags={"web": {"url": "x", **said}})
    theirs = open_clip.create_model_from_pretrained("tiny", "web")
    assert_features_equal("tiny/web", photo, *theirs)
    assert_features_equal(f"tiny/{tiny}", photo, *theirs)
    assert_features_equal(f"tiny/web/{tiny}", photo, *theirs)
    for setting in ("tiny/web", f"tiny/{tiny}", f"tiny/web/{tiny}"):
        assert stated_preprocessing(setting).record == load_backbone(setting).preprocessing.record


@pytest.mark.parametrize("scheme", ["hf-hub:me/tiny", "local-dir:{folder}"])
def test_a_configuration_gives_the_features_of_open_clip(said, photo, tiny, tmp_path, scheme, monkeypatch):
    config = {"model_cfg": open_clip.get_model_config("tiny"), "preprocess_cfg": said}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    tiny.rename(tmp_path / "open_clip_model.safetensors")
    hub = {"open_clip_config.json": "open_clip_config.json"}
    fetch = lambda _, filename="open_clip_model.safetensors", **options: str(tmp_path / hub.get(filename, filename))  # noqa: E731
    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", fetch)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: str(tmp_path / name))
    setting = scheme.format(folder=tmp_path)
    assert_features_equal(setting, photo, *open_clip.create_model_from_pretrained(setting))
    assert stated_preprocessing(setting).record == load_backbone(setting).preprocessing.record


def test_every_tag_of_open_clip_is_prepared_as_open_clip_prepares_it():
    for name, tag in open_clip.list_pretrained():
        config = open_clip.get_pretrained_cfg(name, tag)
        stated = stated_preprocessing(f"{name}/{tag}")
        theirs = config["mean"], config["std"], config["resize_mode"], config["interpolation"]
        assert (stated.mean, stated.std, stated.mode, stated.interpolation) == theirs
    kinds = {tag: stated_preprocessing(f"{name}/{tag}").resizing for name, tag in open_clip.list_pretrained()}
    assert (kinds["openai"], kinds["webli"], kinds["datacompdr"]) == ("", "squash-bicubic-1.0", "shortest-bilinear-1.0")


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_images_are_prepared_as_by_timm(mode, crop, photo):
    config = {"input_size": (3, 32, 32), "interpolation": "bilinear", "crop_pct": crop, "crop_mode": mode, **HALF}
    theirs = create_transform(**config)
    torch.testing.assert_close(prepared(photo, of_timm(config)), theirs(photo), rtol=0, atol=1e-6)


def test_a_file_of_timm_gives_the_features_of_timm(tmp_path, photo):
    torch.manual_seed(0)
    model = timm.create_model("resnet10t")
    save_file(model.state_dict(), tmp_path / "full.safetensors")
    backbone = load_backbone(f"timm/resnet10t/{tmp_path}/full.safetensors").eval()
    transform = create_transform(**resolve_model_data_config(model))
    pixels = prepared(photo, backbone.preprocessing)
    torch.testing.assert_close(pixels, transform(photo), rtol=0, atol=1e-6)
    with torch.no_grad():
        theirs = model.eval().forward_head(model.forward_features(transform(photo)[None]), pre_logits=True)
        torch.testing.assert_close(backbone.encode_image(pixels[None]).pooled, theirs)
    assert stated_preprocessing(f"timm/resnet10t/{tmp_path}/full.safetensors") == backbone.preprocessing


def test_random_weights_of_timm_ask_for_no_resize_mode():
    backbone = load_backbone("timm/resnet10t/random")
    assert backbone.preprocessing.resizing == ""
    assert stated_preprocessing("timm/resnet10t/random") is None


def test_openais_clip_and_the_demo_backbone_are_prepared_as_ever(clip_file):
    for setting, size in ((str(clip_file), 32), ("demo", 64), ("ViT-B-32/random", 224)):
        assert load_backbone(setting).preprocessing == Preprocessing(size)
    assert stated_preprocessing("ViT-L-14-quickgelu/openai") == Preprocessing(224)
    assert Preprocessing(64).record == {}
    assert Preprocessing().mean == open_clip.OPENAI_DATASET_MEAN
    assert Preprocessing().std == open_clip.OPENAI_DATASET_STD


def test_attributes_of_a_backbone_are_parts_of_its_preprocessing():
    backbone = load_backbone("demo")
    backbone.preprocessing = Preprocessing(48, (0.5,) * 3, (0.2,) * 3, "squash")
    assert (backbone.image_size, backbone.mean, backbone.std) == (48, (0.5,) * 3, (0.2,) * 3)
    backbone.image_size = 32
    assert backbone.preprocessing == Preprocessing(32, (0.5,) * 3, (0.2,) * 3, "squash")


def test_a_method_that_changes_the_image_size_keeps_the_rest(space):
    method = czslkit.build("visprod", space, backbone="timm/resnet10t/random", image_size=32)
    assert method.backbone.preprocessing.size == 32


def test_a_backbone_that_states_nothing_is_built_to_be_known():
    assert stated_preprocessing("demo") is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "the image size is 0, expected a whole number from 1"),
        ({"mode": "stretch"}, "the resize mode is 'stretch', expected shortest, longest, squash"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic', expected bicubic, bilinear"),
        ({"crop": 1.5}, "crop is 1.5, expected a number above 0, at most 1"),
        ({"mean": (0.5, 0.5)}, r"mean is \(0.5, 0.5\), expected 3 numbers"),
        ({"std": (0.5, 0.0, 0.5)}, r"std is \(0.5, 0.0, 0.5\), expected 3 numbers above 0"),
    ],
)
def test_a_value_that_is_not_possible_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**values)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ConfigError, match="the model takes images of 224 x 336 pixels, expected a square"):
        of_open_clip({}, (224, 336))


def test_the_colour_of_padding_decodes_other_pixels_only_where_there_is_padding():
    kinds = {
        Preprocessing(mode=mode, fill=fill).resizing for mode in ("longest", "squash") for fill in [(0,) * 3, (9,) * 3]
    }
    assert len(kinds) == 3


def test_a_long_thin_photo_is_not_resized_to_nothing():
    thin = Preprocessing(16, mode="longest")
    assert np.asarray(resize_and_crop(Image.new("RGB", (900, 2), "red"), thin)).shape == (16, 16, 3)
