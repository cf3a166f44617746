"""Forecasts: exact counts, and seconds on a clock that the test controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import czslkit
from czslkit.data.batches import Feed
from czslkit.data.splits import Splits
from czslkit.evaluation.evaluator import Evaluation
from czslkit.evaluation.memory_budget import Chunks
from czslkit.runner import forecast
from czslkit.runner.forecast import Forecast

SOON = Forecast(8, (3,), Chunks(2, 3, 3), 10**6, seconds=100.0)


def built(name: str, data: Splits, clip_file: Any) -> Any:
    torch.manual_seed(0)
    return czslkit.build(name, data.space, backbone=str(clip_file))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("name", "passes"), [("csp", 1), ("troika", 3)])
def test_images_are_encoded_once_or_for_every_part_of_the_texts(
    name: str, passes: int, data: Splits, clip_file: Any
) -> None:
    method = built(name, data, clip_file)
    planned = Evaluation.plan(method, data, "test", ["closed", "open"], Feed(method, data.test, 4))
    pairs = tuple(len(task.pairs) for task in planned.tasks.values())
    found = forecast.evaluation(replace(planned, chunks=Chunks(4, 5, -(-sum(pairs) // 3))))
    assert (found.images, found.pairs) == (len(data.test), pairs)
    image = 1 + 1  # to read and to encode
    assert found.seconds == pytest.approx(len(data.test) * (passes * image + sum(pairs) / 5) + sum(pairs))


def test_a_forecast_has_at_most_the_given_memory(data: Splits, clip_file: Any) -> None:
    method = built("csp", data, clip_file)

    def planned_forecast(memory: int) -> Forecast:
        feed = Feed(method, data.test, 4)
        return forecast.evaluation(Evaluation.plan(method, data, "test", ["open"], feed, memory=memory))

    plenty = planned_forecast(10**9)
    assert plenty.bytes < 10**8 and plenty.chunks == Chunks(4, 9, 9)
    tight = planned_forecast(plenty.bytes - 1)
    assert tight.bytes < plenty.bytes and tight.chunks.images * tight.chunks.pairs < 4 * 9


def test_a_forecast_prints_images_pairs_time_and_memory() -> None:
    found = Forecast(5098, (7555, 278362), Chunks(8, 16384, 100), 3_100_000_000, 5400)
    assert str(found) == "5,098 images x 7,555 + 278,362 pairs, 8 x 16,384 at a time: 90 min, 3.1 GB"
