import pytest
import torch

from czslkit.components import AGGREGATORS, BACKBONES, HEADS, INTERACTIONS
from czslkit.method import METHODS, build
from czslkit.prediction import Predictor
from czslkit.prompts import FixedPrompt, SoftPrompt
from czslkit.testing import check_gradients, check_method, check_scores, demo_space
from czslkit.training_hooks import TrainingHooks

#: Settings that make a method small; any other method is checked with its own defaults on the demo backbone.
SMALL = {
    "gipcol": {"graph_layers": "d16,d"},
    "caila": {"shift": 0.5},
    "msci": {"low_layers": 2, "high_layers": 3, "heads": (2, 2), "layers": (1, 2), "adapter_dim": 4},
    "troika": {"layers": 2, "adapter_dim": 4},
    "tomcat": {"adapter_dim": 4},
    "visprod": {"backbone": "timm/resnet10t/random", "image_size": 32, "tune": "all"},
}
VARIANTS = [
    ("gipcol", {"network": "gcnii", "gcnii_width": 16, "gcnii_depth": 2}),
    ("caila", {"text_adapters": False, "fusion_start": 0, "dropout": 0.0}),
    ("msci", SMALL["msci"] | {"fusion": "gated"}),
    ("msci", SMALL["msci"] | {"low_layers": 1, "high_layers": 1}),
    ("dfsp-bif", {"layers": 0, "keep": 0.5}),
    ("visprod", {"hidden": 8, "dropout": 0.1}),
]


@pytest.mark.parametrize("name", METHODS)
def test_every_registered_method_passes_every_check(name, clip_file):
    options = {"backbone": str(clip_file), **SMALL.get(name, {})}
    report = check_method(name, **options)
    assert report.count >= 18


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda x: x if isinstance(x, str) else "")
def test_every_variant_of_a_method_keeps_the_contract(name, options, clip_file):
    space = demo_space()
    method = build(name, space, **{"backbone": str(clip_file), **options})
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    check_gradients(method, images, space)
    check_scores(method.eval(), images, space.pairs)


def test_every_registered_component_is_part_of_a_method_that_keeps_the_contract():
    settings = [*((name, SMALL.get(name, {})) for name in METHODS), *VARIANTS]
    methods = [build(name, demo_space(), **{"backbone": "demo", **options}) for name, options in settings]
    used = {type(module) for method in methods for module in method.children()}
    for registry in (AGGREGATORS, INTERACTIONS, HEADS):
        assert {registry[name] for name in registry} <= used
    assert {name for name in BACKBONES if BACKBONES[name] not in used} == {
        "open_clip"
    }  # in tests/backbones, with files


def test_every_class_that_computes_numbers_has_a_version_of_its_own():
    registries = (METHODS, BACKBONES, AGGREGATORS, INTERACTIONS, HEADS)
    registered = {registry[name] for registry in registries for name in registry}
    for cls in registered | {FixedPrompt, SoftPrompt}:
        for base in cls.__mro__:
            if base.__module__.startswith("czslkit") and base not in (TrainingHooks, Predictor):  # they compute none
                assert vars(base).get("version", 0) >= 1, f"{base.__name__} has no version of its own"
