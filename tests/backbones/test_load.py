"""What ``load_backbone`` promises for a backbone of anybody: its attributes, and which parameters learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import czslkit
from czslkit.backbones import load_backbone
from czslkit.backbones.clip import ClipBackbone
from czslkit.components import BACKBONES, Backbone
from czslkit.errors import ConfigError, PluginError
from czslkit.types import ImageFeatures


class Plain(Backbone):
    """A linear map of the mean colour."""

    depth = visual_tokens = visual_width = 0
    token_width = 8
    image_size = 8
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, argument: str = "", **options: object) -> None:
        super().__init__()
        self.dim = 8
        self.image_tower, self.text_tower = nn.Linear(3, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, images, layers=()):
        return ImageFeatures(self.image_tower(images.mean((2, 3))))

    def image_parameters(self):
        return self.image_tower.parameters()


@pytest.fixture
def registered(monkeypatch):
    """Register a class under the name ``mine``."""
    monkeypatch.setattr(BACKBONES, "_items", dict(BACKBONES.items()))
    return lambda cls: BACKBONES.register("mine")(cls)


def learned(backbone):
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("setting", ["mine", "demo", "timm/resnet10t/random"])
def test_every_backbone_is_frozen_unless_it_is_to_be_trained(setting, registered):
    registered(Plain)
    assert learned(load_backbone(setting)) == set()
    backbone = load_backbone(setting, trainable=True)
    image_tower = {id(parameter) for parameter in backbone.image_parameters()}
    assert learned(backbone) == {name for name, p in backbone.named_parameters() if id(p) in image_tower} != set()


def test_a_trained_image_tower_learns_beside_its_adapters(clip_file):
    names = learned(load_backbone(str(clip_file), trainable=True, adapter_dim=4))
    assert {name.partition(".")[0] for name in names} == {"clip", "adapters"}
    assert all(name.startswith(("clip.visual.", "adapters.")) for name in names)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"dim": None}, r"^Forgetful has no dim; __init__ of a backbone sets every attribute"),
        ({"dim": None, "scale": None, "mean": None}, r"^Forgetful has no dim, mean, scale; "),
    ],
)
def test_a_backbone_that_lacks_an_attribute_is_named(attributes, message, registered):
    class Forgetful(Backbone):
        def __init__(self, argument):
            super().__init__()
            for name in Backbone.__annotations__:
                if name not in attributes and not hasattr(self, name):
                    setattr(self, name, torch.zeros(()))

        def encode_image(self, images, layers=()):
            return ImageFeatures(images)

    registered(Forgetful)
    with pytest.raises(ConfigError, match=message):
        load_backbone("mine")


def test_a_backbone_that_cannot_encode_images_is_named(registered):
    class Blind(Backbone):
        pass

    registered(Blind)
    with pytest.raises(ConfigError, match=r"^Blind has no method encode_image, which every backbone needs$"):
        load_backbone("mine")


def test_a_backbone_that_takes_no_argument_is_named(registered):
    class Closed(Plain):
        def __init__(self):
            super().__init__()

    registered(Closed)
    with pytest.raises(ConfigError, match=r"^Closed cannot be called .* \(too many positional arguments\); define"):
        load_backbone("mine/64")


def test_a_method_with_adapters_refuses_a_backbone_that_swallows_its_options(registered, space):
    registered(Plain)
    with pytest.raises(ConfigError, match=r"^troika: Plain takes no adapters; it needs a method add_adapters$"):
        czslkit.build("troika", space, backbone="mine")


class LosesAdapters(Plain):
    """Keeps its adapters where torch does not find them."""

    def add_adapters(self, make, **places):
        self.list_of_adapters = [make(8), make(8)]


class MakesNone(Plain):
    def add_adapters(self, make, **places):
        self.adapters = nn.ModuleList([nn.Linear(8, 8).requires_grad_(False)])


class FreezesAdapters(Plain):
    def add_adapters(self, make, **places):
        self.adapters = nn.ModuleList([make(8)]).requires_grad_(False)


class UnfreezesMore(Plain):
    def add_adapters(self, make, **places):
        self.adapters = nn.ModuleList([make(8)])
        self.text_tower.requires_grad_(True)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (LosesAdapters, "made 2 adapters, after which 0 parameters of the backbone learn, expected 8"),
        (MakesNone, "made 0 adapters, after which 0 .* learn, expected those of at least one adapter"),
        (FreezesAdapters, "made 1 adapters, after which 0 parameters of the backbone learn, expected 4"),
        (UnfreezesMore, "made 1 adapters, after which 6 parameters of the backbone learn, expected 4"),
    ],
)
def test_exactly_the_adapters_learn(cls, message, registered):
    registered(cls)
    with pytest.raises(ConfigError, match=rf"^{cls.__name__}\.add_adapters {message}: it calls make for each block"):
        load_backbone("mine", adapter_dim=2)


def test_modules_that_a_backbone_leaves_to_learn_are_not_frozen_silently(clip_file, registered):
    class Adapted(ClipBackbone):
        def __init__(self, argument):
            super().__init__(load_backbone(str(clip_file)).clip)
            self.own = nn.Linear(64, 64)

    registered(Adapted)
    with pytest.raises(ConfigError, match=r"^Adapted\.__init__ leaves .* also own\.weight, own\.bias\. Add modules"):
        load_backbone("mine")


def test_a_backbone_without_parameters_of_its_image_tower_cannot_be_trained(registered):
    class Copies(Plain):
        def image_parameters(self):
            return iter([nn.Parameter(torch.zeros(2))])

    registered(Copies)
    with pytest.raises(ConfigError, match=r"^Copies cannot be trained: image_parameters returns no parameter of it"):
        load_backbone("mine", trainable=True)


@pytest.mark.parametrize("width", [-1, 2.5, True])
def test_a_width_of_adapters_that_is_no_number_of_units_is_refused(width, clip_file):
    with pytest.raises(ConfigError, match=rf"^adapter_dim is {width}, expected a whole number from 1, or 0 for no"):
        load_backbone(str(clip_file), adapter_dim=width)


def test_by_default_all_parameters_but_the_scale_are_those_of_the_image_tower(registered):
    class Simple(Plain):
        token_width = 0

        def image_parameters(self):
            return Backbone.image_parameters(self)

    registered(Simple)
    assert learned(load_backbone("mine", trainable=True)) == {
        f"{tower}.{name}" for tower in ("image_tower", "text_tower") for name in ("weight", "bias")
    }


def test_features_of_a_wrong_type_are_named_with_the_backbone(registered, space):
    class Raw(Plain):
        def encode_image(self, images, layers=()):
            return super().encode_image(images).pooled

    registered(Raw)
    method = czslkit.Method(
        space=space,
        backbone=load_backbone("mine"),
        prompt=nn.Identity(),
        head=czslkit.heads.CosineHead(torch.zeros(())),
    )
    with pytest.raises(
        PluginError, match=r"^encode_image of .*Raw .* returned a Tensor, expected ImageFeatures: return"
    ):
        method.encode(torch.zeros(1, 3, 8, 8))
