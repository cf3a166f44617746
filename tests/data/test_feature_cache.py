from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import czslkit
from czslkit import provenance
from czslkit.backbones import ClipBackbone
from czslkit.data import feature_cache, image_transforms
from czslkit.precision import PRECISIONS
from czslkit.types import ImageFeatures


@pytest.fixture
def toy(toys):
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def cache(tmp_path):
    said = []
    return czslkit.Cache(tmp_path / "cache", log=said.append)


@pytest.fixture
def encoded(monkeypatch):
    """Return the sizes of the encoded batches, without those of a sample of up to three images."""
    sizes = []
    real = ClipBackbone.encode_image

    def encode(self, images, layers=()):
        sizes.extend([len(images)] if len(images) > 3 else [])
        return real(self, images, layers)

    monkeypatch.setattr(ClipBackbone, "encode_image", encode)
    return sizes


def pooled(method, split, cache, batch_size=8):
    batches = czslkit.Feed(method, split, batch_size, cache=cache).batches()
    return torch.cat([batch.images.pooled for batch in batches])


def files(cache):
    return sorted(cache.folder.glob("features-*.safetensors"))


def test_features_from_disk_are_those_encoded_anew(toy, clip_file, cache, encoded):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    anew, first, again = (pooled(method, toy.val, where) for where in (None, cache, cache))
    assert torch.equal(first, anew)
    assert torch.equal(again, anew)
    assert encoded == [8, 8]


def test_features_made_of_smaller_batches_are_kept_apart(toy, clip_file, cache, encoded):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    for batch_size in (4, 8, 4):
        pooled(method, toy.val, cache, batch_size)
    assert encoded == [4, 4, 8]


def test_batches_beyond_64_are_encoded_in_parts_and_share_features(toy, clip_file, cache, encoded, monkeypatch):
    monkeypatch.setattr("czslkit.data.batches.ENCODER_BATCH", 4)
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    for batch_size in (6, 8):
        pooled(method, toy.val, cache, batch_size)
    assert encoded == [4, 4]


def test_methods_share_features(toy, clip_file, cache, encoded):
    for name in ("clip", "coop", "csp"):
        pooled(czslkit.build(name, toy.space, backbone=str(clip_file)), toy.val, cache)
    assert encoded == [8]


def test_number_formats_are_kept_apart(toy, clip_file, cache, encoded):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    feeds = [czslkit.Feed(method, toy.val, 8, cache=cache, precision=p) for p in (*PRECISIONS, *PRECISIONS)]
    fp32, tf32, bf16, *again = (next(feed.batches()).images.pooled for feed in feeds)
    assert encoded == [8, 8, 8]
    assert len(files(cache)) == 3
    assert torch.equal(fp32, tf32)  # on a CPU
    assert bf16.dtype == torch.float32
    assert not torch.equal(fp32, bf16)
    torch.testing.assert_close(bf16, fp32, rtol=0.1, atol=0.05)
    for feature, other in zip((fp32, tf32, bf16), again, strict=True):
        assert torch.equal(feature, other)


def test_splits_are_kept_apart(toy, clip_file, cache):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    one, other = (pooled(method, split, cache) for split in (toy.val, toy.test))
    assert not torch.equal(one, other)
    assert [file.name.split("-")[1] for file in files(cache)] == ["test", "val"]


def test_new_features_are_logged(toy, clip_file, cache):
    pooled(czslkit.build("csp", toy.space, backbone=str(clip_file)), toy.val, cache)
    [file] = files(cache)
    assert cache.log.__self__ == [f"making the features of 8 val images: 2.0 kB in {file}"]


def other_weights(backbone):
    with torch.no_grad():
        backbone.clip.visual.proj[0, 0] += 1


def other_activation(backbone):
    for block in backbone.clip.visual.transformer.resblocks:
        block.mlp.gelu = nn.GELU()


def other_heads(backbone):
    for block in backbone.clip.visual.transformer.resblocks:
        block.attn.num_heads = 4


def other_scale(backbone):
    backbone.mean = (0.1, 0.2, 0.3)


def other_crop(backbone):
    backbone.preprocessing = replace(backbone.preprocessing, crop=0.5)


@pytest.mark.parametrize("change", [other_weights, other_activation, other_heads, other_scale, other_crop])
def test_another_encoder_has_features_of_its_own(toy, clip_file, cache, change):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    before = pooled(method, toy.val, cache)
    change(method.backbone)
    after = pooled(method, toy.val, cache)
    assert not torch.equal(after, before)
    assert torch.equal(after, pooled(method, toy.val, None))
    assert len(files(cache)) == 2


def test_a_text_tower_of_its_own_changes_no_features(toy, clip_file, cache, encoded):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    pooled(method, toy.val, cache)
    with torch.no_grad():
        method.backbone.clip.ln_final.weight += 1
    pooled(method, toy.val, cache)
    assert encoded == [8]


def test_buffers_count_as_weights(toy, cache):
    method = czslkit.build("visprod", toy.space, backbone="timm/resnet18/random").requires_grad_(False)
    before = pooled(method, toy.val, cache)
    method.backbone.tower.bn1.running_mean += 1
    assert not torch.equal(pooled(method, toy.val, cache), before)


def test_a_method_that_trains_its_image_encoder_caches_nothing(toy, clip_file, cache):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    next(method.backbone.image_parameters()).requires_grad_(True)
    assert isinstance(next(czslkit.Feed(method, toy.val, 8, cache=cache).batches()).images, torch.Tensor)
    assert not cache.folder.exists()


def test_a_method_that_encodes_in_its_own_way_keeps_nothing_on_disk(toy, clip_file, cache):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))

    class Doubled(type(method)):
        def encode(self, images):
            return ImageFeatures(2 * super().encode(images).pooled)

    single = pooled(method, toy.val, cache)
    method.__class__ = Doubled
    assert torch.equal(pooled(method, toy.val, cache), 2 * single)
    assert len(files(cache)) == 1


def other_backbone_version(monkeypatch):
    monkeypatch.setattr(ClipBackbone, "version", 1000, raising=False)


def other_transforms_version(monkeypatch):
    monkeypatch.setattr(image_transforms, "VERSION", image_transforms.VERSION + 1)


def other_packages(monkeypatch):
    monkeypatch.setattr(provenance, "packages", lambda: {"pillow": "1.0"})


@pytest.mark.parametrize("change", [other_backbone_version, other_transforms_version, other_packages])
def test_other_code_makes_features_again(toy, clip_file, cache, encoded, monkeypatch, change):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    pooled(method, toy.val, cache)
    change(monkeypatch)
    pooled(method, toy.val, cache)
    assert encoded == [8, 8]
    assert len(files(cache)) == 1


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def of_something_else(file):
    save_file(load_file(file), file, {"key": "{}"})


def one_image_less(file):
    with feature_cache.safe_open(file, "pt") as opened:
        key = opened.metadata()
    save_file({"pooled": load_file(file)["pooled"][1:].clone()}, file, key)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "Error while deserializing header"),
        (of_something_else, "it was made from other images, or by another encoder or code"),
        (one_image_less, "it has the features of 7 images, expected 8"),
    ],
)
def test_a_file_that_does_not_fit_is_made_again(toy, clip_file, cache, damage, reason):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    expected = pooled(method, toy.val, cache).clone()
    [file] = files(cache)
    damage(file)
    assert torch.equal(pooled(method, toy.val, cache), expected)
    line = cache.log.__self__[1]
    assert line.startswith(f"{file} does not contain the features of 8 val images and is made again: {reason}")


def test_features_that_cannot_be_written_are_encoded_once(toy, clip_file, cache, encoded, monkeypatch):
    def write_bytes(self, content):
        raise OSError(28, "No space left on device")

    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    expected = pooled(method, toy.val, None)
    monkeypatch.setattr("pathlib.Path.write_bytes", write_bytes)
    assert torch.equal(pooled(method, toy.val, cache), expected)
    assert encoded == [8, 8]
    assert "No space left on device" in cache.log.__self__[-1]


def test_features_that_were_changed_are_made_again(toy, clip_file, cache, encoded):
    method = czslkit.build("csp", toy.space, backbone=str(clip_file))
    expected = pooled(method, toy.val, cache)
    [file] = files(cache)
    content = bytearray(file.read_bytes())
    content[-100:] = bytes(100)
    file.write_bytes(content)
    assert torch.equal(pooled(method, toy.val, cache), expected)
    assert encoded == [8, 8]
    assert "is made again: it is damaged" in cache.log.__self__[-2]
