"""Forecasts of trainings: whole steps where they fit, fewer texts and images where they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import czslkit
from czslkit.data.batches import Feed
from czslkit.data.splits import Splits
from czslkit.errors import PluginError
from czslkit.evaluation.memory_budget import Chunks
from czslkit.method import Method
from czslkit.runner import machine, run_job, training_forecast
from czslkit.runner.forecast import Forecast
from czslkit.runner.training_forecast import Steps, TrainingForecast, training
from czslkit.training.options import TrainOptions

SOON = Forecast(8, (3,), Chunks(2, 3, 3), 10**6, seconds=100.0)


def built(name: str, data: Splits, clip_file: Any) -> Any:
    torch.manual_seed(0)
    return czslkit.build(name, data.space, backbone=str(clip_file))


def steps_of(method: Method, data: Splits, batch_size: int = 6) -> Steps:
    options = TrainOptions(batch_size=batch_size, augment=False)
    return Steps(method, data, options, Feed(method, data.train, batch_size))


def encoded_texts(method: Method, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of pairs of each call of ``method.text``."""
    counts: list[int] = []
    text = method.text

    def counting(pairs: Tensor) -> Any:
        counts.append(len(pairs))
        return text(pairs)

    monkeypatch.setattr(method, "text", counting)
    return counts


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("name", "augment", "expected"),
    [
        ("csp", False, 21 * 2 + 5 * (4 * 1 + 100)),  # images are read and encoded once
        ("csp", True, 5 * (4 * 1 + 21 * 1 + 100)),  # read in every epoch
        ("troika", False, 5 * (4 * 1 + 21 * 1 + 100)),
        ("clip", False, 0),
    ],
)
def test_a_training_is_steps_images_and_validations(
    name: str, augment: bool, expected: float, data: Splits, clip_file: Any
) -> None:
    options = TrainOptions(epochs=5, batch_size=6, augment=augment)
    method = built(name, data, clip_file)
    found = training(method, data, options, SOON)
    assert found.seconds == pytest.approx(expected)
    assert found.measured == found.whole


@pytest.fixture
def many_pairs(data: Splits) -> Splits:
    """The toys with 400 training pairs, which are those of the toys again and again."""
    pairs = data.train.pairs.repeat(400, 1)[:400]
    return replace(data, train=replace(data.train, pairs=pairs))


@pytest.mark.parametrize("name", ["csp", "troika"])
def test_the_texts_of_a_step_are_bounded_by_the_memory(
    name: str, many_pairs: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = built(name, many_pairs, clip_file)
    whole = steps_of(method, many_pairs).bytes((6, 400))
    for share in (0.5, 0.1):
        steps = steps_of(method, many_pairs)
        counts = encoded_texts(method, monkeypatch)
        size = steps.largest_that_fits(round(share * whole))
        assert max(counts) == size[1] <= 400 * share + 16
        assert steps.estimated(steps.bytes, size) == pytest.approx(whole, rel=0.05)
        assert max(counts) == size[1]


def test_a_step_that_fits_is_run_as_it_is(data: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method = built("csp", data, clip_file)
    counts = encoded_texts(method, monkeypatch)
    found = training(method, data, TrainOptions(epochs=2, batch_size=6, augment=False), SOON)
    assert found.measured == found.whole == (6, len(data.train.pairs))
    assert max(counts) == len(data.train.pairs)
    assert "estimated" not in str(found)


@pytest.mark.usefixtures("clock")
def test_a_forecast_from_a_part_of_the_pairs_says_so(many_pairs: Splits, clip_file: Any) -> None:
    method = built("csp", many_pairs, clip_file)
    options = TrainOptions(epochs=2, batch_size=6, augment=False)
    whole = training(method, many_pairs, options, SOON)
    part = training(method, many_pairs, options, SOON, memory=whole.bytes // 4)
    images, pairs = part.measured
    assert (images, part.whole) == (6, (6, 400)) and 16 <= pairs < 110
    assert str(part).endswith(f", estimated from steps of 6 images x {pairs} pairs for 6 images x 400 pairs")
    assert part.bytes == pytest.approx(whole.bytes, rel=0.05)


@pytest.mark.parametrize(
    ("measure", "whole"),
    [
        (lambda n, k: 7.0, 7),
        (lambda n, k: 3 * n + 5, 3 * 64 + 5),
        (lambda n, k: 2 * k + 1, 2 * 150_000 + 1),
        (lambda n, k: 0.5 * n * k + 3 * n + 2 * k + 1, 0.5 * 64 * 150_000 + 3 * 64 + 2 * 150_000 + 1),
    ],
)
@pytest.mark.parametrize("size", [(4, 16), (64, 100), (64, 150_000), (16, 4000)])
def test_measures_that_grow_with_images_pairs_and_their_product_are_exact(
    measure: Callable[[int, int], float], whole: float, size: tuple[int, int]
) -> None:
    steps: Any = SimpleNamespace(whole=(64, 150_000))
    assert Steps.estimated(steps, lambda found: measure(*found), size) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("memory", "size"),
    [(10**9, (64, 150_000)), (1_000_000, (64, 7762)), (10_000, (64, 16)), (1500, (11, 16)), (1, (4, 16))],
)
def test_steps_grow_as_far_as_the_memory(memory: int, size: tuple[int, int]) -> None:
    taken: list[int] = []

    def step_bytes(found: tuple[int, int]) -> int:
        images, pairs = found
        taken.append(100 * images + 2 * images * pairs + 20)
        return taken[-1]

    steps: Any = SimpleNamespace(whole=(64, 150_000), bytes=step_bytes)
    found = Steps.largest_that_fits(steps, memory)
    assert max(taken) <= max(memory, step_bytes((4, 16)))
    assert found[0] == size[0] and found[1] == pytest.approx(size[1], abs=70)


def test_half_of_the_pairs_are_from_the_whole_list_and_all_of_them_are_as_they_are(
    many_pairs: Splits, clip_file: Any
) -> None:
    steps = steps_of(built("csp", many_pairs, clip_file), many_pairs)
    assert steps._some_pairs(400) is steps.pairs
    assert steps._some_pairs(3).tolist() == steps.pairs[[0, 199, 399]].tolist()


def needs_all(method: Method, monkeypatch: pytest.MonkeyPatch, pairs: int) -> None:
    loss = method.loss

    def own_loss(batch: Any, given: Tensor) -> Any:
        if len(given) != pairs:
            raise IndexError(f"{len(given)} rows")
        return loss(batch, given)

    monkeypatch.setattr(method, "loss", own_loss)


def test_a_loss_that_needs_all_pairs_is_run_with_them_if_they_are_few(
    many_pairs: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = built("csp", many_pairs, clip_file)
    needs_all(method, monkeypatch, 400)
    assert steps_of(method, many_pairs).largest_that_fits(1) == (6, 400)


def test_a_loss_that_needs_many_pairs_is_not_estimated(
    many_pairs: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = built("csp", many_pairs, clip_file)
    needs_all(method, monkeypatch, 400)
    monkeypatch.setattr(training_forecast, "FEW_PAIRS", 399)
    message = r"the loss of Csp takes 400 training pairs, but not 16 of them \(IndexError: 16 rows\)"
    with pytest.raises(PluginError, match=message):
        steps_of(method, many_pairs).largest_that_fits(10**9)


def estimated_lines(monkeypatch: pytest.MonkeyPatch, found: Any, memory: int | None) -> list[str]:
    """Return the lines of the estimate of a training with 1 GB of weights."""
    lines: list[str] = []
    weights = SimpleNamespace(nbytes=10**9)
    method: Any = SimpleNamespace(parameters=lambda: [weights], buffers=list, device=torch.device("cpu"))
    spec = SimpleNamespace(train=TrainOptions(epochs=3))
    job: Any = SimpleNamespace(spec=spec, machine=SimpleNamespace(workers=0, memory=1), log=lines.append)

    def forecast_or_error(*_: Any) -> TrainingForecast:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(run_job, "training", forecast_or_error)
    monkeypatch.setattr(run_job, "total_memory", lambda device: memory)
    nothing: Any = None
    run_job._log_training(job, method, nothing, SOON)
    return lines


def test_an_estimate_says_that_the_training_needs_more_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    found = TrainingForecast(60, 15 * 10**9, (64, 4000), (64, 150_000))
    first, second = estimated_lines(monkeypatch, found, 8 * 10**9)
    assert first == (
        "training of 3 epochs, about: 60 s, 15 GB, estimated from steps of 64 images x 4,000 pairs for 64 images x "
        "150,000 pairs"
    )
    assert second == (
        "TOO LARGE FOR THIS MACHINE: the training needs about 16 GB with the weights of the method, and cpu has "
        "8.0 GB. A smaller train.batch_size needs less"
    )
    for memory in (17 * 10**9, None):
        assert estimated_lines(monkeypatch, found, memory) == [first]


def test_an_estimate_goes_on_without_the_training_of_a_loss_that_needs_all_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert estimated_lines(monkeypatch, PluginError("not estimated, since ..."), None) == [
        "training of 3 epochs: not estimated, since ..."
    ]


def test_the_memory_of_a_machine_is_that_of_its_container(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, limit = torch.device("cpu"), tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CONTAINER_LIMIT", limit)
    whole = machine.total_memory(cpu)
    assert whole and whole > 10**8
    limit.write_text("max\n")
    assert machine.total_memory(cpu) == whole
    limit.write_text("1000000\n")
    assert machine.total_memory(cpu) == 1_000_000
    monkeypatch.delattr(machine.os, "sysconf")
    assert machine.total_memory(cpu) is None
