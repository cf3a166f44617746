"""TOMCAT adapts to a stream of images as its authors' program does, as recorded runs of the program show.

Every stream has 12 images. ``published`` has the settings of the release, whose steps are small; the others have larger
learning rates, and differ in one setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from czslkit.errors import ConfigError
from czslkit.metrics.sweep import Sweep
from czslkit.online import entropy
from czslkit.types import Setting
from czslkit_plugins.tomcat import Step, Stream

PUBLISHED, FAST = 2e-5, 2e-4
STREAMS = {
    (case, name)
    for case, names in {
        "tomcat_ut": "published fast fast_open fast_reversed fast_cap1 fast_alpha fast_decay fast_noalign fast_noqueue",
        "tomcat_mit": "published fast fast_open fast_file_order fast_cap2",
        "tomcat_cgqa": "published fast fast_open",
    }.items()
    for name in names.split()
}


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.detach(), expected, atol=tolerance, rtol=0)


def stream_images(case: Any) -> Tensor:
    """Return the images of the streams: noise, and a pattern for each image that is repeated over it."""
    seed = case.json["case_seed"]
    noise = np.random.RandomState(seed).standard_normal((12, 3, 32, 32)).astype(np.float32)
    pattern = np.random.RandomState(seed + 2).standard_normal((12, 3, 8, 8)).astype(np.float32)
    return torch.from_numpy(noise + np.float32(2) * np.tile(pattern, (1, 1, 4, 4)))


def begun(case: Any, stream: dict[str, Any]) -> Any:
    """Return the method at the start of a stream."""
    method, pairs = case.load(**stream["settings"]).eval(), case.pairs(stream["list"])
    method.begin(Setting("test", stream["list"], len(pairs)), pairs)
    return method


def scored(method: Any, case: Any, stream: dict[str, Any]) -> Iterator[Tensor]:
    """Yield the scores of one image after the other, ``[P]``."""
    pairs, images = case.pairs(stream["list"]), stream_images(case)
    with torch.no_grad():
        text = method.text(pairs)
        for i in stream["order"]:
            yield method.rank(images[i : i + 1], text, Setting("test", stream["list"], len(pairs)))[0]


@pytest.fixture
def tomcat(cases: list[Any]) -> dict[str, Any]:
    return {case.name: case for case in cases if case.method == "tomcat"}


def test_every_recorded_stream_is_compared(tomcat: dict[str, Any]) -> None:
    assert {(name, stream) for name, case in tomcat.items() for stream in case.json["streams"]} == STREAMS


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """What streams compute, image by image."""
    found: list[Step] = []
    adapt = Stream.adapt

    def recording(self: Stream, image: Tensor) -> Step:
        found.append(adapt(self, image))
        return found[-1]

    monkeypatch.setattr(Stream, "adapt", recording)
    return found


@pytest.mark.parametrize(("name", "key"), sorted(STREAMS))
def test_a_stream_has_the_recorded_scores_queues_and_residuals(
    name: str, key: str, tomcat: dict[str, Any], steps: list[Step]
) -> None:
    case = tomcat[name]
    stream, tolerance = case.json["streams"][key], PUBLISHED if key == "published" else FAST
    arrays = {k.removeprefix(f"stream.{key}."): v for k, v in case.arrays.items() if k.startswith(f"stream.{key}.")}
    method, ranked = begun(case, stream), []
    for i, scores in enumerate(scored(method, case, stream)):
        ranked.append(scores)
        state = method.stream
        assert int(steps[i].cosines.argmax()) == stream["pred"][i]
        queues = {
            str(pair): [stream["order"][entry.number] for entry in entries]
            for pair, entries in sorted(state.queues.entries.items())
        }
        assert queues == (stream["queue"][i] or {})  # None without queues
        close(state.text_residuals.value.norm(), arrays["text_residual_norm"][i], tolerance)
        if stream["queue"]:
            close(state.image_residuals.value.norm(), arrays["visual_residual_norm"][i], tolerance)
    found = {field: torch.stack([getattr(step, field) for step in steps]) for field in Step.__annotations__}
    close(torch.stack(ranked), arrays["logits"], tolerance)
    close(found["scores"], arrays["logits"], tolerance)
    close(found["cosines"], arrays["clip_logits"], tolerance)
    close(found["scores"] - found["cosines"], arrays.get("cache_logits", torch.zeros_like(arrays["logits"])), tolerance)
    close(entropy(found["cosines"]), arrays["entropy"], tolerance)
    close(found["loss"], arrays["loss"], tolerance)
    close(found["alignment"], arrays.get("align_loss", torch.zeros(12)), tolerance)
    close(state.text_residuals.value, arrays["text_residual"], tolerance)
    image_residuals = torch.zeros_like(arrays["text_residual"])
    image_residuals[state.queues.pairs] = state.image_residuals.value
    close(image_residuals, arrays.get("visual_residual", torch.zeros_like(image_residuals)), tolerance)


@pytest.mark.parametrize("name", ["tomcat_ut", "tomcat_mit", "tomcat_cgqa"])
def test_scores_of_infeasible_pairs_are_those_of_the_program(name: str, tomcat: dict[str, Any]) -> None:
    case, key = tomcat[name], "stream.fast_open.thresholded."
    stream = case.json["streams"]["fast_open"]
    scores = torch.stack(list(scored(begun(case, stream), case, stream)))
    pairs, train = case.pairs("open"), set(map(tuple, case.json["pairs"]["train"]))
    seen = torch.tensor([tuple(pair) in train for pair in pairs.tolist()])
    thresholds = [float(array.removeprefix(key)) for array in case.arrays if array.startswith(key)]
    feasibility = torch.tensor(case.json["feasibility"])
    sweep = Sweep(pairs, seen, None, feasibility, thresholds, keep=len(pairs), infeasible="original")
    sweep.update(scores, *torch.zeros(2, len(scores), dtype=torch.long))
    assert thresholds
    for threshold, found in zip(thresholds, sweep.top_scores(), strict=True):
        expected = case.arrays[f"{key}{threshold}"].sort(descending=True, stable=True).values
        close(found.top.score.float(), expected, FAST)


@torch.no_grad()
def test_features_and_scores_without_adaptation(tomcat: dict[str, Any]) -> None:
    for case in tomcat.values():
        method = case.load().eval()
        close(method.encode(case.images).pooled, case.arrays["eval.cls"], PUBLISHED)
        for which in ("train", "closed", "open"):
            text = method.text(case.pairs(which))
            close(text.pair, case.arrays[f"eval.text_raw.{which}"], PUBLISHED)
            if which != "train":
                close(method.rank(case.images, text), case.arrays[f"eval.loop_{which}"], PUBLISHED)


@torch.no_grad()
@pytest.mark.parametrize(("split", "adapt"), [("val", True), ("test", False)])
def test_nothing_adapts_in_validation_or_without_the_option(split: str, adapt: bool, tomcat: dict[str, Any]) -> None:
    case, pairs = tomcat["tomcat_mit"], tomcat["tomcat_mit"].pairs("closed")
    method, setting = case.load(use_tta=adapt, text_lr=1, image_lr=1).eval(), Setting(split, "closed", len(pairs))
    method.begin(setting, pairs)
    text = method.text(pairs)
    for _ in range(2):
        assert torch.equal(method.rank(case.images, text, setting), method(case.images, text).pair)
    assert method.streams is adapt and method.stream is None


def test_an_alignment_without_queues_is_an_error(tomcat: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"align is true and queue is false: without kept images set align to false"):
        tomcat["tomcat_mit"].load(use_img_cache=False)


@torch.no_grad()
def test_memory_does_not_grow_with_images_of_the_same_pairs(tomcat: dict[str, Any]) -> None:
    case, pairs = tomcat["tomcat_cgqa"], tomcat["tomcat_cgqa"].pairs("closed")
    method, setting = case.load().eval(), Setting("test", "closed", len(pairs))
    method.begin(setting, pairs)
    text, images = method.text(pairs), method.encode(stream_images(case))
    sizes = []
    for _ in range(4):
        method.rank(images, text, setting)
        queues = method.stream.queues
        sizes.append((queues._features.numel(), sum(map(len, queues.entries.values()))))
    assert queues.images == 48 and sizes[3] == sizes[2]
    tensors = (queues.means, queues._features, method.stream.text_residuals.value, method.stream.image_residuals.value)
    assert not any(tensor.requires_grad for tensor in tensors)
