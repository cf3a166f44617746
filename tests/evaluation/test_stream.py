"""Methods that adapt to a stream of images, compared with a naive loop over the shuffled images."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

import czslkit
from czslkit.data import demo_world
from czslkit.data.batches import Feed
from czslkit.data.make.mini import write_mini
from czslkit.data.splits import Splits
from czslkit.errors import ConfigError
from czslkit.evaluation.evaluator import Evaluation, OpenWorld, searched_threshold
from czslkit.evaluation.validation import plan_validation
from czslkit.method import METHODS
from czslkit.metrics.feasibility import threshold_grid
from czslkit.metrics.outcomes import Outcomes
from czslkit.metrics.sweep import evaluate
from czslkit.runner import forecast
from czslkit.training.epoch import Trainer
from czslkit.training.options import TrainOptions
from czslkit.types import ImageFeatures, Setting
from czslkit_plugins.csp import Csp

WORLDS = ["closed", "open"]
BEGUN: list[tuple[str, str, list[list[int]]]] = []  # split, world and pairs of each pass
SIZES: list[tuple[int, int]] = []  # images and pairs of each call of rank


class Drift(Csp):
    """CSP that adds the similarity to the mean of the images so far, and moves its words by their entropy.

    It changes a parameter, a buffer, a tensor, a list and the random numbers of a pass.
    """

    version = 1
    streams = True

    def __init__(self, options: Any, space: czslkit.PairSpace) -> None:
        super().__init__(options, space)
        self.register_buffer("images_seen", torch.zeros(()))
        self.past: list[int] = []

    def begin(self, setting: Setting, candidates: Tensor) -> None:
        BEGUN.append((setting.split, setting.world, candidates.tolist()))
        self.means = torch.zeros(len(candidates), self.backbone.dim)

    def rank(self, images: Any, text: Any, setting: Setting = czslkit.types.VALIDATION) -> Tensor:
        image = images if isinstance(images, ImageFeatures) else self.encode(images)
        SIZES.append((len(image.pooled), len(text.pairs)))
        with torch.enable_grad():
            logits = super().rank(image, self.text(text.pairs), setting)
            (gradient,) = torch.autograd.grad(logits.softmax(1).square().sum(), self.prompt.words)
        self.prompt.words.data.add_(1e-2 * gradient)
        scores = logits.detach() + 10 * normalize(image.pooled) @ normalize(self.means).T
        scores = scores + 0.1 * torch.rand_like(scores) + (len(self.past) + self.images_seen) * scores.cos()
        best = int(scores.argmax())
        self.means[best] += normalize(image.pooled)[0]
        self.past.append(best)
        self.images_seen += 1
        return scores


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_mini("cgqa", root)
    return root


@pytest.fixture(scope="module")
def data(root: Path) -> Splits:
    """A dataset of 48 pairs and 48 images in each of validation and test, with words that the demo CLIP knows."""
    data = czslkit.load_dataset("cgqa", root)
    return replace(data, space=replace(data.space, attrs=demo_world.ATTRS[:8], objs=demo_world.OBJS[:6]))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    list(METHODS)  # every plugin is loaded, so that the copy below holds them all
    monkeypatch.setattr(METHODS, "_items", {**METHODS._items, "drift": Drift})
    BEGUN.clear()
    SIZES.clear()


@pytest.fixture
def method(data: Splits) -> Any:
    torch.manual_seed(0)
    return czslkit.build("drift", data.space, backbone="demo").eval()


def digest(method: Any) -> str:
    """Return a digest of all tensors and of the list of a method."""
    tensors = [*method.parameters(), *method.buffers()]
    found = hashlib.sha256(str(method.past).encode())
    for tensor in tensors:
        found.update(f"{tensor.shape} {tensor.requires_grad}".encode() + tensor.detach().numpy().tobytes())
    return found.hexdigest()


def plan(method: Any, data: Splits, worlds: list[str], split: Any = "test", **options: Any) -> Evaluation:
    return Evaluation.plan(method, data, split, worlds, Feed(method, getattr(data, split), 16), **options)


def naive(data: Splits, world: str, seed: int, split: str = "test") -> Tensor:
    """Return the scores ``[N, P]`` of a fresh method that gets the images of a split one by one."""
    torch.manual_seed(0)
    method: Any = czslkit.build("drift", data.space, backbone="demo").eval()
    space, images = data.space.open() if world == "open" else data.space, getattr(data, split)
    pairs = space.pairs if world == "open" else space.pairs[data.candidates(split)]
    setting, scores = Setting(split, world, len(space.pairs)), torch.full((len(images), len(space.pairs)), torch.nan)
    columns = [space.pairs.tolist().index(pair) for pair in pairs.tolist()]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    pixels = Feed(method, images, 16).sample(len(images)).images
    assert isinstance(pixels, Tensor)
    with torch.no_grad():
        features = torch.cat([method.encode(part).pooled for part in pixels.split(16)])
        torch.manual_seed(seed)
        method.begin(setting, pairs)
        text = method.text(pairs)
        for i in order.tolist():
            scores[i, columns] = method.rank(ImageFeatures(features[i : i + 1]), text, setting)[0]
    return scores


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("world", WORLDS)
def test_a_pass_gives_the_scores_of_a_naive_loop_in_the_order_of_the_split(
    method: Any, data: Splits, world: str, seed: int
) -> None:
    (top,) = plan(method, data, WORLDS, keep=5, stream_seed=seed).run()[world].top_scores()
    scores, space = naive(data, world, seed), data.space.open() if world == "open" else data.space
    best = scores.nan_to_num(nan=-torch.inf).topk(5)
    assert torch.equal(top.top.column, best.indices)
    assert torch.allclose(top.top.score, best.values.double())
    expected = evaluate(scores, data.test.attr, data.test.obj, space.pairs, space.seen, ~scores[0].isnan())
    assert plan(method, data, [world], stream_seed=seed).run()[world].compute_all("exact")[0] == expected


def test_the_order_changes_the_scores(method: Any, data: Splits) -> None:
    first, second = (plan(method, data, ["closed"], stream_seed=seed).run()["closed"] for seed in (0, 1))
    assert not torch.equal(first.top_scores()[0].top.score, second.top_scores()[0].top.score)


def test_a_pass_leaves_no_trace_in_the_other_world_or_in_the_method(method: Any, data: Splits) -> None:
    before, random = digest(method), torch.get_rng_state()
    evaluation = plan(method, data, WORLDS)
    assert not BEGUN and not SIZES  # planning is no dry run
    both, again = evaluation.run(), evaluation.run()
    alone = {world: plan(method, data, [world]).run()[world] for world in WORLDS}
    for world in WORLDS:
        expected = alone[world].top_scores()[0].top
        for sweeps in (both, again):
            found = sweeps[world].top_scores()[0].top
            assert torch.equal(found.score, expected.score) and torch.equal(found.column, expected.column)
    assert digest(method) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert set(SIZES) == {(1, 36 - 6), (1, 48)}  # 6 pairs occur in validation alone
    assert [(split, world) for split, world, _ in BEGUN] == 2 * [("test", "closed"), ("test", "open")] + [
        ("test", "closed"),
        ("test", "open"),
    ]
    assert BEGUN[1][2] == data.space.open().pairs.tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_of_pixels_gives_the_scores_of_a_stream_of_features(
    workers: int, method: Any, data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_features = plan(method, data, ["closed"]).run()["closed"]
    monkeypatch.setattr(Drift, "caches_features", False)
    feed = Feed(method, data.test, 16, workers=workers)
    of_pixels = Evaluation.plan(method, data, "test", ["closed"], feed).run()["closed"]
    expected, found = (sweep.top_scores()[0].top for sweep in (of_features, of_pixels))
    assert torch.equal(found.column, expected.column)
    assert torch.allclose(found.score, expected.score, atol=1e-3)


def test_memory_does_not_change_a_stream(method: Any, data: Splits) -> None:
    plenty, little = (plan(method, data, WORLDS, memory=memory).run() for memory in (10**9, 1))
    for world in WORLDS:
        assert torch.equal(plenty[world].top_scores()[0].top.score, little[world].top_scores()[0].top.score)


def test_forecasts_do_not_run_the_method(method: Any, data: Splits) -> None:
    found = forecast.evaluation(plan(method, data, WORLDS))
    assert str(found) == "48 images x 30 + 48 pairs, one image at a time: not measured, since scoring adapts"
    assert not BEGUN and not SIZES


def test_only_feasible_pairs_are_in_the_stream(method: Any, data: Splits) -> None:
    feasible = torch.linspace(-1, 1, 48)
    plan(method, data, ["open"], open_world=OpenWorld(feasible, [0.5])).run()
    kept = data.space.open().seen | (feasible >= 0.5)
    assert [pairs for _, _, pairs in BEGUN] == [data.space.open().pairs[kept].tolist()]


def test_a_threshold_is_searched_in_a_pass_over_the_validation_images(method: Any, data: Splits) -> None:
    feasible = torch.rand(48, generator=torch.Generator().manual_seed(0))
    found = searched_threshold(method, data, feasible, Feed(method, data.val, 16), bins="exact", stream_seed=2)
    assert len(BEGUN) == 1 and len(SIZES) == 48
    filled = plan(
        method,
        data,
        ["open"],
        "val",
        open_world=OpenWorld(feasible, threshold_grid(feasible, data.space.open().seen)),
        stream_seed=2,
    )
    aucs = [metrics.auc for metrics in filled.run()["open"].compute_all("exact")]
    assert found.value == threshold_grid(feasible, data.space.open().seen)[aucs.index(max(aucs))]


def test_the_validation_of_a_training_streams(method: Any, data: Splits) -> None:
    feed = Feed(method, data.val, 16)
    validate = plan_validation(method, data, feed, TrainOptions(), bins="exact", stream_seed=1)
    before = digest(method)
    scores, space = naive(data, "closed", 1, "val"), data.space
    expected = evaluate(scores, data.val.attr, data.val.obj, space.pairs, space.seen, ~scores[0].isnan())
    assert expected.auc > 0
    bias = {"val_bias": pytest.approx(min(max(expected.hm_bias, -1000), 1000))} if expected.best_hm else {}
    assert validate() == validate() == {"val_auc": expected.auc, **bias}
    assert digest(method) == before


def test_a_method_that_adapts_in_the_test_alone_is_validated_in_batches(tested_alone: None, data: Splits) -> None:
    method: Any = czslkit.build("drift", data.space, backbone="demo").eval()
    feed, feasible = Feed(method, data.val, 16), torch.rand(48, generator=torch.Generator().manual_seed(0))
    plan_validation(method, data, feed, TrainOptions(), bins="exact")()
    searched_threshold(method, data, feasible, feed, bins="exact")
    assert not BEGUN and max(images for images, _ in SIZES) > 1
    SIZES.clear()
    plan(method, data, ["closed"]).run()
    assert len(BEGUN) == 1 and SIZES.count((1, 36 - 6)) == 48


def test_images_whose_features_are_not_cached_are_encoded_in_batches_once_for_both_worlds(
    method: Any, data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = plan(method, data, WORLDS).run()
    for parameter in method.backbone.image_parameters():
        parameter.requires_grad_(True)
    encoded: list[int] = []
    monkeypatch.setattr(
        Drift, "encode", lambda self, images: (encoded.append(len(images)), Csp.encode(self, images))[1]
    )
    found = plan(method, data, WORLDS).run()
    assert encoded.count(16) == 3  # 48 images; others are samples that are measured
    for world in WORLDS:
        expected = cached[world].top_scores()[0].top.score
        torch.testing.assert_close(found[world].top_scores()[0].top.score, expected)


def test_a_method_that_cannot_be_copied_is_an_error_that_says_what_to_keep(method: Any, data: Splits) -> None:
    method.file = open(__file__)  # noqa: SIM115
    message = r"Drift streams, so every pass uses a copy of it, but it cannot be copied: cannot pickle '_io.TextIOWrapp"
    with method.file, pytest.raises(ConfigError, match=message):
        plan(method, data, ["closed"]).run()


class DriftInTest(Drift):
    """Drift that adapts to the test images alone."""

    streams_in_validation = False
    begun = False

    def begin(self, setting: Setting, candidates: Tensor) -> None:
        super().begin(setting, candidates)
        self.begun = True

    def rank(self, images: Any, text: Any, setting: Setting = czslkit.types.VALIDATION) -> Tensor:
        if self.begun:
            return super().rank(images, text, setting)
        SIZES.append((len(images if isinstance(images, Tensor) else images.pooled), len(text.pairs)))
        return Csp.rank(self, images, text, setting)


@pytest.fixture
def tested_alone(registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_items", {**METHODS._items, "drift": DriftInTest})


def adapted_encoder(self: Any, setting: Setting, candidates: Tensor) -> None:
    Drift.first_begin(self, setting, candidates)  # type: ignore[attr-defined]
    for parameter in self.backbone.image_parameters():
        parameter.mul_(1.1)


def tuned_encoder(self: Any, setting: Setting, candidates: Tensor) -> None:
    Drift.first_begin(self, setting, candidates)  # type: ignore[attr-defined]
    self.backbone.requires_grad_(True)


@pytest.mark.parametrize("begin", [adapted_encoder, tuned_encoder])
def test_an_encoder_that_adapts_gets_pixels_or_an_error(
    begin: Any, method: Any, data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drift, "first_begin", Drift.begin, raising=False)
    monkeypatch.setattr(Drift, "begin", begin)
    message = (
        r"Drift changes its image encoder while it adapts, but the features of all images were computed before\. "
        r"Set caches_features = False in Drift, so that rank gets pixels$"
    )
    with pytest.raises(ConfigError, match=message):
        plan(method, data, ["closed"]).run()
    asked: list[Any] = []
    monkeypatch.setattr(Drift, "caches_features", False)
    monkeypatch.setattr(Drift, "encode", lambda self, images: (asked.append(images), Csp.encode(self, images))[1])
    plan(method, data, ["closed"]).run()
    assert {tuple(pixels.shape) for pixels in asked} == {(1, 3, 64, 64)}


@pytest.fixture
def bench(toys: Path, clip_file: Path, tmp_path: Path) -> Any:
    """Benchmark of the stream on the toys; its log lines are in ``.log_lines``."""

    def go(methods: str = "drift", worlds: str = "closed,open", **arguments: Any) -> Any:
        go.log_lines = []
        quick = {"backbone": str(clip_file), "train.epochs": 2, "train.batch_size": 8, "train.lr": 1e-2}
        settings = quick | {"train.augment": False} | arguments.pop("settings", {})
        where = {"data": toys, "runs": tmp_path / arguments.pop("runs", "runs"), "log": go.log_lines.append}
        return czslkit.bench(methods, "toys", worlds, settings=settings, progress=False, **where, **arguments)

    return go


def weights(folder: Path, method: str) -> dict[str, Tensor]:
    (file,) = folder.glob(f"toys/{method}/*/training/weights.safetensors")
    return load_file(file)


def outcomes(folder: Path, method: str) -> Outcomes:
    (file,) = folder.glob(f"toys/{method}/*/closed.images.npz")
    return Outcomes.from_bytes(file.read_bytes())


def test_a_stream_is_recorded_and_its_images_are_those_of_other_methods_in_the_same_order(
    bench: Any, tmp_path: Path
) -> None:
    result = bench("csp,drift", settings={"eval.stream_seed": 4})
    csp, drift = result.results[:2], result.results[2:]
    assert [found["status"] for found in result.results] == ["done"] * 4
    for found in drift:
        assert found["protocol"]["transductive"] == {"images": "one by one", "stream_seed": 4}
        assert found["config"]["eval"]["stream_seed"] == 4
    assert not any("transductive" in found["protocol"] or "stream_seed" in found["config"]["eval"] for found in csp)
    of_csp, of_drift = (outcomes(tmp_path / "runs", name) for name in ("csp", "drift"))
    assert np.array_equal(of_csp.target, of_drift.target) and np.array_equal(of_csp.is_seen, of_drift.is_seen)
    assert len(set(of_csp.target.tolist())) > 1
    assert "drift (transductive)" in result.table().to_markdown()


def test_the_seed_of_a_stream_makes_another_cell_and_training_only_for_a_stream(bench: Any) -> None:
    first, other = (bench("csp,drift", "closed", settings={"eval.stream_seed": seed}).results for seed in (0, 1))
    assert first[0] == other[0]
    assert first[1]["cell"]["config_id"] != other[1]["cell"]["config_id"]
    assert first[1]["training_key"] != other[1]["training_key"]  # the stream of the validation selects the epoch


def test_the_seed_of_a_stream_changes_no_training_of_a_method_that_adapts_in_the_test_alone(
    tested_alone: None, bench: Any
) -> None:
    first, other = (bench("drift", "closed", settings={"eval.stream_seed": seed}).results[0] for seed in (0, 1))
    assert first["cell"]["config_id"] != other["cell"]["config_id"]
    assert first["training_key"] == other["training_key"]


def test_a_stored_method_is_the_trained_one(bench: Any, tmp_path: Path) -> None:
    bench("csp,drift", settings={"train.epochs": 1})
    csp, drift = (weights(tmp_path / "runs", name) for name in ("csp", "drift"))
    assert torch.equal(csp["prompt.words"], drift["prompt.words"])
    assert drift["images_seen"] == 0


def test_a_world_that_is_added_later_and_a_resumed_training_give_the_same_numbers(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bench(runs="other").results
    run = Trainer.run

    def killed(trainer: Trainer, epoch: int) -> dict[str, float]:
        if epoch == 1:
            raise KeyboardInterrupt
        return run(trainer, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            bench(worlds="closed")
    (closed,) = bench(worlds="closed").results
    assert any("resumed after epoch 1" in line for line in bench.log_lines)
    monkeypatch.setattr(Trainer, "run", lambda *arguments: pytest.fail("trained again"))
    again, opened = bench().results
    assert again == closed
    assert [found["metrics"] for found in (closed, opened)] == [found["metrics"] for found in expected]
    assert closed["training"]["history"] == expected[0]["training"]["history"]


def test_a_budget_of_one_byte_stops_other_methods_and_no_stream(bench: Any) -> None:
    expected = bench("drift").results
    csp, _, *drift = bench("csp,drift", runs="other", memory=10**4).results
    assert csp["status"] == "failed"
    assert [found["metrics"] for found in drift] == [found["metrics"] for found in expected]


def test_an_estimate_does_not_run_a_stream(bench: Any) -> None:
    bench(estimate=True)
    assert not BEGUN and not SIZES
    lines = [line.partition("seed 0: ")[2] for line in bench.log_lines]
    assert lines[:2] == [
        f"test, {world} world, about: 8 images x {n} pairs, one image at a time: not measured, since scoring adapts"
        for world, n in (("closed", 6), ("open", 9))
    ]
    assert lines[2].startswith("training of 2 epochs without validation, about: ")
