"""Images, cached features and memory on an accelerator, against the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from czslkit.evaluation.footprint import Footprint
from torch import Generator

import czslkit
from czslkit.data.augmentation import augment_batch, draw_variation, stack_variations
from czslkit.data.image_transforms import to_normalized
from czslkit.data.splits import Splits
from czslkit.evaluation.evaluator import Evaluation
from czslkit.runner import forecast
from czslkit.runner.training_forecast import Steps
from czslkit.training.options import TrainOptions

pytestmark = pytest.mark.gpu

WORKSPACE = 64 << 20  # bytes that libraries of a GPU may take for themselves
SIZE = 96


@pytest.fixture
def data(toys: Path) -> Splits:
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def method(data: Splits, clip_file: Path, device: torch.device) -> czslkit.Method:
    options: dict[str, Any] = {"low_layers": 2, "high_layers": 2, "heads": (2, 2)}
    return czslkit.build("msci", data.space, backbone=str(clip_file), **options).to(device)


def test_pixels_are_normalised_to_the_bit_as_on_the_cpu(device: torch.device) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    scale = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    assert torch.equal(to_normalized(values.to(device), *scale).cpu(), to_normalized(values, *scale))


def test_images_are_augmented_as_on_the_cpu(device: torch.device) -> None:
    images = torch.randint(256, (40, 3, SIZE, SIZE), generator=Generator().manual_seed(0)).byte()
    variations = stack_variations([draw_variation(SIZE, SIZE, Generator().manual_seed(n)) for n in range(40)], SIZE)
    found, expected = augment_batch(images.to(device), variations).cpu(), augment_batch(images, variations)
    assert (found.int() - expected.int()).abs().float().mean() < 0.01
    assert torch.equal((found == 0).all(1), (expected == 0).all(1))


@torch.no_grad()
def test_cached_features_are_those_of_the_device(
    data: Splits, clip_file: Path, device: torch.device, tmp_path: Path
) -> None:
    method = czslkit.build("csp", data.space, backbone=str(clip_file))
    here = torch.cat([batch.images.pooled for batch in czslkit.Feed(method, data.val, 4).batches()])  # type: ignore[union-attr]
    method.to(device)
    cache = czslkit.Cache(tmp_path)
    written, read = (
        torch.cat([batch.images.pooled for batch in czslkit.Feed(method, data.val, 4, cache=cache).batches()])  # type: ignore[union-attr]
        for _ in range(2)
    )
    assert [*tmp_path.glob("features-*.safetensors")]
    assert read.device.type == device.type
    assert torch.equal(written, read)
    torch.testing.assert_close(read.cpu(), here, rtol=1e-2, atol=1e-2 * float(here.abs().max()))


def test_batches_of_processes_are_those_of_the_program(data: Splits, method: czslkit.Method) -> None:
    kept = []
    for workers, augment_on in ((0, "cpu"), (2, "cpu"), (2, "device")):
        settings: Any = {"augment": True, "augment_on": augment_on, "workers": workers}
        feed = czslkit.Feed(method, data.train, 5, **settings)
        kept.append([batch.images for epoch in range(2) for batch in feed.batches(epoch=epoch)])
    for one, other, third in zip(*kept, strict=True):
        assert isinstance(one, torch.Tensor)
        assert one.device.type == method.device.type
        assert torch.equal(one, other)
        assert (one - third).abs().mean() < 0.01


def test_an_evaluation_takes_no_more_memory_than_predicted(data: Splits, method: czslkit.Method) -> None:
    feed = czslkit.Feed(method, data.val, 8)
    evaluation = Evaluation.plan(method, data, "val", ["closed", "open"], feed)
    predicted = forecast.evaluation(evaluation).bytes
    assert predicted
    assert peak_bytes(method.device, evaluation.run) <= predicted + WORKSPACE


def test_a_training_step_takes_no_more_memory_than_predicted(data: Splits, method: czslkit.Method) -> None:
    options = TrainOptions(batch_size=16)
    steps = Steps(method, data, options, czslkit.Feed(method, data.train, 16, augment=True, augment_on="device"))
    predicted = steps.bytes(steps.whole)
    assert peak_bytes(method.device, lambda: steps.seconds(steps.whole)) <= predicted + WORKSPACE


def peak_bytes(device: torch.device, work: Any) -> int:
    """Return the most bytes that some work takes in addition to what is there before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with Footprint() as footprint:
        work()
    return footprint.peak
