from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

import czslkit
from czslkit.components import AGGREGATORS, BACKBONES, HEADS, Aggregator
from czslkit.data.writing import write_dataset
from czslkit.errors import ConfigError, UnknownNameError
from czslkit.testing import (
    ConformanceError,
    check_backbone,
    check_component,
    check_dataset,
    check_gradients,
    check_method,
    check_scores,
    demo_space,
    write_tiny,
)
from czslkit.testing.conformance import kind_of
from czslkit.testing.tiny_data import PAIRS
from czslkit.testing.training_checks import _first_difference


def test_the_tiny_dataset_has_seen_unseen_and_unlisted_pairs(tmp_path):
    write_tiny(tmp_path)
    data = czslkit.load_dataset("tiny", tmp_path)
    assert (len(data.space.pairs), int(data.space.seen.sum()), len(data.space.open().pairs)) == (10, 7, 12)
    for split in ("val", "test"):
        assert 0 < len(set(PAIRS[split]) & set(PAIRS["train"])) < len(PAIRS[split])
    assert check_dataset("tiny", tmp_path).count == 9


def test_a_check_leaves_the_random_state_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_component("pooled")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("check", "message"),
    [(check_method, "no method named 'cps'"), (check_backbone, "no backbone named 'cps'"),
     (check_dataset, "no dataset named 'cps'"), (check_component, "nothing is registered as 'cps'")],
)  # fmt: skip
def test_an_unknown_name_is_an_error_with_similar_names(check, message):
    with pytest.raises(UnknownNameError, match=message):
        check("cps")


def test_the_kind_of_a_name_is_found():
    assert [kind_of(n) for n in ("csp", "timm/resnet18", "low_high", "two_stage", "cosine", "demo-x")[:5]] == [
        "method", "backbone", "aggregator", "interaction", "head",
    ]  # fmt: skip


def test_a_name_of_two_kinds_needs_the_kind():
    with pytest.raises(ConfigError, match="demo is the name of a backbone and of a dataset: say which with --kind"):
        kind_of("demo")
    with pytest.raises(ConfigError, match="mlflow is a logger, and no checks are known for it"):
        kind_of("mlflow")


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_aggregator_passes(name):
    check_component(name, **({"width": 96} if name == "mlp" else {}))


@pytest.mark.parametrize("name", [name for name in HEADS if name != "decomposed"])
def test_every_head_of_its_own_passes(name):
    check_component(name)


def test_arguments_that_are_not_known_are_asked_for():
    with pytest.raises(ConformanceError, match=r"Traction needs heads: give them to the check, as in check_component"):
        check_component("traction")
    assert check_component("traction", heads=4).passed


def test_a_component_with_an_idle_parameter_fails():
    @AGGREGATORS.register("blind")
    class Blind(Aggregator):
        version = 1

        def __init__(self):
            super().__init__()
            self.gate = torch.nn.Parameter(torch.zeros(()))

        def forward(self, image):
            return image

    with pytest.raises(ConformanceError, match=r"aggregator\.gate got none from the loss"):
        check_component("blind")


@pytest.mark.parametrize("setting", [name for name in BACKBONES if name in ("demo", "timm")])
def test_every_backbone_passes(setting):
    check_backbone("timm/resnet10t/random" if setting == "timm" else setting)


def test_a_clip_file_passes(clip_file):
    assert check_backbone(str(clip_file)).count == 11


def test_the_public_checks_of_a_built_method_raise_what_to_change(clip_file):
    space = demo_space()
    method = czslkit.build("csp", space, backbone=str(clip_file))
    method.idle = torch.nn.Parameter(torch.zeros(1))
    images = torch.randn(2, 3, 32, 32)
    with pytest.raises(AssertionError, match="every trainable parameter gets a gradient: idle got none"):
        check_gradients(method, images, space)
    method.head.rank = lambda scores, pairs, setting=None: scores.pair[:, :3]
    with pytest.raises(AssertionError, match=re.escape("one column per pair: rank is [2, 3], expected [2, 12]")):
        check_scores(method.eval(), images, space.pairs)


def test_minus_infinity_is_a_score_of_methods_that_mask_pairs_only(clip_file):
    space, images = demo_space(), torch.randn(2, 3, 32, 32)
    method = czslkit.build("csp", space, backbone=str(clip_file)).eval()
    method.head.rank = lambda scores, pairs, setting=None: scores.pair.masked_fill(pairs[:, 0] == 0, -torch.inf)
    with pytest.raises(AssertionError, match="A method that gives some pairs the score -inf says so in masks_pairs"):
        check_scores(method, images, space.pairs)
    method.masks_pairs = "pairs of the first attribute"
    check_scores(method, images, space.pairs)


def test_a_method_that_masks_pairs_passes_every_check(clip_file):
    @czslkit.METHODS.register("masking")
    class Masking(czslkit.METHODS["csp"]):
        version = 1
        masks_pairs = "pairs of the first attribute"

        def rank(self, images, text, setting=czslkit.types.VALIDATION):
            return super().rank(images, text, setting).masked_fill(text.pairs[:, 0] == 0, -torch.inf)

    assert check_method("masking", backbone=str(clip_file)).count >= 24


def written(tmp_path, pairs, images=None):
    """Write a dataset ``things`` and return its root."""
    from PIL import Image

    def pictures():
        for split, listed in (images or pairs).items():
            for attr, obj in listed:
                entry = {"image": f"{split}_{attr}_{obj}.png", "attr": attr, "obj": obj, "set": split}
                yield entry, Image.new("RGB", (8, 8))

    write_dataset(tmp_path / "things", pairs, pictures())
    return tmp_path


SEEN = [("a", "x"), ("b", "y"), ("a", "y")]


@pytest.mark.parametrize(
    ("pairs", "images", "message"),
    [
        ({"train": SEEN, "val": SEEN[:1], "test": [SEEN[0], ("b", "x")]}, None, "val has no image of unseen pairs"),
        ({"train": SEEN, "val": [SEEN[0], ("b", "x")], "test": [("b", "x")]}, None, "test has no image of seen pairs"),
        ({"train": SEEN, "val": [SEEN[0], ("b", "x")], "test": [SEEN[0], ("b", "x")]},
         {"train": SEEN, "val": [SEEN[0], ("b", "x")], "test": SEEN[:1]}, "1 of 2 pairs of test have no image"),
    ],
)  # fmt: skip
def test_a_dataset_without_a_trade_off_to_measure_fails(tmp_path, pairs, images, message):
    with pytest.raises(ConformanceError, match=message):
        check_dataset("things", written(tmp_path, pairs, images))


def test_an_image_that_does_not_open_fails(tmp_path):
    folder = write_tiny(tmp_path)
    (folder / "images" / "wet_heart" / "test0.png").write_text("nothing")
    with pytest.raises(ConformanceError, match=r"test0\.png of test cannot be opened"):
        check_dataset("tiny", tmp_path)


def test_a_dataset_that_changes_from_load_to_load_fails(tmp_path):
    calls = []

    @czslkit.DATASETS.register("shuffled")
    class Shuffled(czslkit.Dataset):
        def listing(self, folder):
            listing = super().listing(folder)
            calls.append(1)
            instances = {split: rows[:: (-1) ** len(calls)] for split, rows in listing.instances.items()}
            return type(listing)(listing.pairs, instances)

    write_tiny(tmp_path).rename(tmp_path / "shuffled")
    with pytest.raises(ConformanceError, match=r"two loads differ: sort what a set or os\.listdir gives"):
        check_dataset("shuffled", tmp_path)


def test_a_feasibility_of_a_wrong_size_fails(clip_file):
    @czslkit.METHODS.register("half-feasible")
    class HalfFeasible(czslkit.METHODS["csp"]):
        version = 1

        def feasibility(self):
            return torch.zeros(6)

    with pytest.raises(ConformanceError, match="a feasibility of its own has a number for each pair") as caught:
        check_method("half-feasible", backbone=str(clip_file))
    (failed,) = caught.value.report.failed
    assert "HalfFeasible.feasibility()" in failed.message
    assert "12" in failed.message


def test_every_tensor_and_flag_of_two_trainings_is_compared(clip_file):
    def trained(change):
        method = czslkit.build("csp", demo_space(), backbone=str(clip_file))
        change(method)
        return SimpleNamespace(method=method, state={}, history=[])

    plain = trained(lambda method: None)
    assert _first_difference(trained(lambda method: None), plain) == ""
    changed = trained(lambda method: method.backbone.scale.data.add_(1))
    assert _first_difference(changed, plain) == "backbone.clip.logit_scale of the method"
    frozen = trained(lambda method: method.prompt.words.requires_grad_(False))
    assert _first_difference(frozen, plain) == "requires_grad of prompt.words (False)"


def test_unknown_options_are_an_error_before_any_check():
    with pytest.raises(ConfigError, match="csp: word_droput is not an option"):
        check_method("csp", word_droput=0.1)
    with pytest.raises(ConfigError, match="pooled: dim is not an option"):
        check_component("pooled", dim=3)
    with pytest.raises(ConfigError, match="demo: layers is not an option"):
        check_backbone("demo", layers=3)
