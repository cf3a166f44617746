"""Forecasts of trainings: whole steps where they fit, fewer texts and images where they do not."""

from __future__ import annotations

import re
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
from czslkit.errors import PluginError, TrainingError
from czslkit.evaluation.memory_budget import Chunks
from czslkit.method import Method
from czslkit.runner import forecast, run_job, training_forecast
from czslkit.runner.forecast import Forecast
from czslkit.runner.training_forecast import Steps, TrainingForecast, counted_seconds, training
from czslkit.sizes import format_bytes
from czslkit.training.memory import plan_step
from czslkit.training.options import TrainOptions
from czslkit.training.step_count import NotCountableError, StepCounter

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
    name: str, augment: bool, expected: float, data: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_forecast, "counted_seconds", lambda *_: 1.0)
    options = TrainOptions(epochs=5, batch_size=6, augment=augment)
    method = built(name, data, clip_file)
    found = training(method, data, options, SOON)
    assert found.seconds == pytest.approx(expected)


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


def timed(name: str, many_pairs: Splits, clip_file: Any, memory: int, lines: list[str] | None = None) -> float:
    """The seconds of a whole step from one that is run."""
    method = built(name, many_pairs, clip_file).train()
    steps = steps_of(method, many_pairs)
    counter = StepCounter(method, steps.feed, steps.options, many_pairs.training_data())
    log = (lines if lines is not None else []).append
    return counted_seconds(steps, counter, plan_step(counter, None), memory, log)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("name", ["csp", "troika"])
def test_the_time_of_a_step_grows_with_its_work(
    name: str, many_pairs: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = timed(name, many_pairs, clip_file, 10**9)
    assert 2 < small < 3 * 400 / 16
    monkeypatch.setattr(forecast, "MIN_SECONDS", 2.0)  # no step takes so long, so a whole one is run
    assert timed(name, many_pairs, clip_file, 10**9) == pytest.approx(1.0)
    assert timed(name, many_pairs, clip_file, 1) == pytest.approx(small)  # larger steps do not fit into a byte


@pytest.mark.usefixtures("clock")
def test_a_step_that_may_take_seconds_is_announced(
    many_pairs: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    timed("csp", many_pairs, clip_file, 10**9, lines)
    assert lines == []
    monkeypatch.setattr(training_forecast, "SLOW", 1)
    timed("csp", many_pairs, clip_file, 10**9, lines)
    assert lines == ["a step of 2 images and 16 pairs is measured"]


def test_the_forecast_says_what_a_step_recomputes(data: Splits, clip_file: Any) -> None:
    options = TrainOptions(epochs=2, batch_size=6, augment=False)
    plain = training(built("csp", data, clip_file), data, options, SOON)
    small = training(built("csp", data, clip_file), data, replace(options, checkpoint_text=True), SOON)
    assert small.bytes < plain.bytes and plain.how == ""
    assert re.fullmatch(r"recomputing text, which are \d+% more operations", small.how)
    with pytest.raises(TrainingError, match=r"train\.memory=1MB gives 1\.0 MB"):
        training(built("csp", data, clip_file), data, replace(options, memory="1MB"), SOON)


@pytest.fixture
def uncountable(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(*_: Any) -> None:
        raise NotCountableError("a step of Csp cannot be counted")

    monkeypatch.setattr(StepCounter, "count", count)


@pytest.mark.usefixtures("uncountable")
def test_a_step_that_cannot_be_counted_is_run_as_it_is_if_it_fits(
    data: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = built("csp", data, clip_file)
    counts = encoded_texts(method, monkeypatch)
    lines: list[str] = []
    options = TrainOptions(epochs=2, batch_size=6, augment=False)
    found = training(method, data, options, SOON, log=lines.append)
    assert max(counts) == len(data.train.pairs)
    assert (found.how, lines) == ("", ["a step of Csp cannot be counted"])


@pytest.mark.usefixtures("clock", "uncountable")
def test_a_forecast_from_a_part_of_the_pairs_says_so(many_pairs: Splits, clip_file: Any) -> None:
    method = built("csp", many_pairs, clip_file)
    options = TrainOptions(epochs=2, batch_size=6, augment=False)
    whole = training(method, many_pairs, options, SOON)
    weights = sum(t.nbytes for t in (*method.parameters(), *method.buffers()))
    part = training(method, many_pairs, options, SOON, memory=(whole.bytes - weights) // 4)
    assert re.fullmatch(r"estimated from steps of 6 images x \d+ pairs for 6 images x 400 pairs", part.how)
    assert part.bytes - weights == pytest.approx(whole.bytes - weights, rel=0.05)


@pytest.mark.usefixtures("uncountable")
def test_an_estimate_says_that_a_training_which_is_not_counted_needs_more_than_the_machine_has(
    data: Splits, clip_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainOptions(epochs=2, batch_size=6, augment=False)
    monkeypatch.setattr(training_forecast, "total_memory", lambda device: 1_000_000)
    found = training(built("csp", data, clip_file), data, options, SOON)
    assert found.too_large == (
        f"TOO LARGE FOR THIS MACHINE: the training needs about {format_bytes(found.bytes)} with the weights of the "
        "method, and cpu has 1.0 MB. A smaller train.batch_size needs less"
    )


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

    steps: Any = SimpleNamespace(whole=(64, 150_000), bytes=step_bytes, smallest=lambda run, images: (images, 16))
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


def estimated_lines(monkeypatch: pytest.MonkeyPatch, found: Any) -> list[str]:
    """Return the lines of the estimate of a training."""
    lines: list[str] = []
    spec = SimpleNamespace(train=TrainOptions(epochs=3))
    job: Any = SimpleNamespace(spec=spec, machine=SimpleNamespace(workers=0, memory=1), log=lines.append)

    def forecast_or_error(*_: Any) -> TrainingForecast:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(run_job, "training", forecast_or_error)
    nothing: Any = None
    run_job._log_training(job, nothing, nothing, SOON)
    return lines


def test_an_estimate_says_how_the_training_fits_or_that_it_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    found = TrainingForecast(60, 15 * 10**9, "recomputing text", "TOO LARGE FOR THIS MACHINE: ...")
    first = "training of 3 epochs, about: 60 s, 15 GB, recomputing text"
    assert estimated_lines(monkeypatch, found) == [first, "TOO LARGE FOR THIS MACHINE: ..."]
    assert estimated_lines(monkeypatch, replace(found, too_large="")) == [first]


def test_an_estimate_goes_on_without_a_training_that_cannot_be_estimated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in (PluginError, TrainingError):
        assert estimated_lines(monkeypatch, kind("not estimated, since ...")) == [
            "training of 3 epochs: not estimated, since ..."
        ]
