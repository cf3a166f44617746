"""Image features are kept only if they stay the same, which is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import czslkit
from czslkit import Feed, Method, SoftPrompt, load_backbone
from czslkit.backbones.clip import ClipBackbone
from czslkit.backbones.openai_format import from_openai
from czslkit.components import Interaction
from czslkit.data.fixed_features import has_fixed_features
from czslkit.errors import ConfigError, TrainingError
from czslkit.evaluation.validation import plan_validation
from czslkit.heads import CosineHead
from czslkit.training.loop import train
from czslkit.training.options import TrainOptions
from czslkit.training.state import TrainingState
from czslkit.types import ImageFeatures
from czslkit.weights import read_tensors


@pytest.fixture
def toy(toys):
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def csp(toy, clip_file):
    """Return CSP as a class without arguments."""

    class Csp(Method):
        def __init__(self, backbone=None, **parts):
            backbone = backbone or load_backbone(str(clip_file))
            prompt = SoftPrompt(backbone, toy.space)
            super().__init__(
                space=toy.space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale), **parts
            )

    return Csp


@pytest.fixture
def trained(toy, tmp_path):
    """Train a method without augmentation; return the history and the validation that the training used."""

    def go(method, epochs=2, **settings):
        options = TrainOptions(epochs=epochs, batch_size=8, lr=1e-2, augment=False, **settings)
        validate = plan_validation(method, toy, Feed(method, toy.val, 8), options, bins="original")
        feed, state = Feed(method, toy.train, 8), TrainingState(tmp_path, "k")
        record = train(method, feed, options, validate, state, data=toy.training_data(), seed=0)
        return record.history, validate

    return go


def image_head(csp, layer):
    """Return CSP with a layer on the pooled features, in ``encode``."""

    class ImageHead(csp):
        def __init__(self):
            super().__init__()
            self.layer = layer(self.backbone.dim)

        def encode(self, images):
            return ImageFeatures(self.layer(super().encode(images).pooled))

    return ImageHead()


def test_a_learned_layer_in_encode_learns(csp, trained):
    method = image_head(csp, lambda dim: nn.Linear(dim, dim))
    start = method.layer.weight.detach().clone()
    trained(method)
    assert not torch.equal(method.layer.weight, start)


def test_adapters_of_a_backbone_that_does_not_list_them_are_seen_in_validation(toy, csp, trained, clip_file):
    class Adapted(ClipBackbone):
        def __init__(self):
            super().__init__(from_openai(read_tensors(clip_file)))
            self.adapter = nn.Linear(self.dim, self.dim)

        def encode_image(self, images, layers=()):
            features = super().encode_image(images, layers)
            return replace(features, pooled=features.pooled + self.adapter(features.pooled))

    method = csp(Adapted())
    history, validate = trained(method, select="last")
    afresh = plan_validation(method, toy, Feed(method, toy.val, 8), TrainOptions(), bins="original")
    assert history[-1]["val_auc"] == validate()["val_auc"] == afresh()["val_auc"]
    images = next(Feed(method, toy.val, 8).batches()).images
    assert isinstance(images, torch.Tensor)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear, nn.Dropout, nn.BatchNorm1d],
    ids=["a gradient", "random numbers", "batch statistics"],
)
def test_features_that_training_changes_are_not_fixed(csp, layer):
    sizes = {nn.Linear: lambda dim: nn.Linear(dim, dim), nn.Dropout: lambda dim: nn.Dropout()}
    method = image_head(csp, sizes.get(layer, lambda dim: nn.BatchNorm1d(dim, affine=False)))
    assert not has_fixed_features(method)


def test_a_fixed_layer_in_encode_is_encoded_once(csp):
    assert has_fixed_features(image_head(csp, lambda dim: nn.Linear(dim, dim).requires_grad_(False)))
    assert has_fixed_features(csp())


def test_measuring_leaves_everything_as_it_was(csp):
    method = image_head(csp, lambda dim: nn.BatchNorm1d(dim, affine=False)).train()
    method.prompt.eval()
    modes = [module.training for module in method.modules()]
    state = {name: value.clone() for name, value in method.state_dict().items()}
    random = torch.get_rng_state()
    has_fixed_features(method)
    assert [module.training for module in method.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())


class AddTokens(Interaction):
    def forward(self, image, text, backbone):
        return replace(image, pooled=image.pooled + image.tokens.mean(1) @ torch.ones(128, 64)), text


class AddTokensIfThere(Interaction):
    def forward(self, image, text, backbone):
        return AddTokens().forward(image, text, backbone) if image.tokens is not None else (image, text)


@pytest.mark.parametrize(
    ("interaction", "reason"),
    [
        (AddTokens, "pooled features alone give AttributeError: 'NoneType' object has no attribute 'mean'"),
        (AddTokensIfThere, "its scores are different with pooled features alone"),
    ],
)
def test_a_forgotten_reads_tokens_is_an_error_with_the_remedy(toy, csp, interaction, reason):
    method = csp(interaction=interaction())
    message = (
        f"Csp needs more of an image than pooled features, but does not say so: {reason}. Set reads_tokens = True on"
    )
    with pytest.raises(ConfigError) as error:
        next(Feed(method, toy.val, 8).batches())
    assert str(error.value).startswith(f"{message} {interaction.__name__}")
    method.interaction.reads_tokens = True
    assert isinstance(next(Feed(method, toy.val, 8).batches()).images, torch.Tensor)


def test_an_encoder_that_a_hook_changes_is_encoded_anew_in_validation(toy, csp):
    class Shifted(csp):
        shift = 0.0

        def encode(self, images):
            return ImageFeatures(super().encode(images).pooled + self.shift)

    method = Shifted()
    feed = Feed(method, toy.val, 8)
    before = next(feed.batches()).images.pooled
    method.shift = 1.0
    (images,) = (batch.images for batch in feed.batches())
    torch.testing.assert_close(method.encode(images).pooled, before + 1)


def test_an_encoder_that_changes_within_an_epoch_is_an_error_with_the_remedy(csp, trained):
    class Drifting(csp):
        shift = 0.0

        def encode(self, images):
            return ImageFeatures(super().encode(images).pooled + self.shift)

        def after_step(self, position):
            self.shift += 0.1

    message = r"features of Drifting changed in epoch 1, though no gradient .*: set caches_features = False on Drifting"
    with pytest.raises(TrainingError, match=message):
        trained(Drifting())
    Drifting.caches_features = False
    history, _ = trained(Drifting())
    assert len(history) == 2


def test_a_layer_behind_no_grad_is_named(csp, trained):
    method = image_head(csp, lambda dim: nn.Linear(dim, dim))
    real = type(method).encode
    type(method).encode = torch.no_grad()(real)
    message = (
        r"ImageHead had no gradient in the first epoch, so they never learn: layer\.weight, layer\.bias\. Use them"
    )
    with pytest.raises(TrainingError, match=message):
        trained(method)
