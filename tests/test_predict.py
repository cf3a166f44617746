"""Predictions for photos are those of the evaluator."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import czslkit
from czslkit.checkpoints.trained import save
from czslkit.data.batches import Feed
from czslkit.errors import ConfigError
from czslkit.evaluation.evaluator import Evaluation, OpenWorld
from czslkit.method import METHODS
from czslkit.metrics.curves import predict
from czslkit.prediction import Calibration
from czslkit.predict import predict_images

#: Settings that make a method small; any other method has its own defaults.
SMALL: dict[str, dict[str, Any]] = {
    "gipcol": {"graph_layers": "d16,d"},
    "msci": {"low_layers": 2, "high_layers": 3, "heads": (2, 2), "layers": (1, 2), "adapter_dim": 4},
    "troika": {"layers": 2, "adapter_dim": 4},
    "tomcat": {"adapter_dim": 4},
}


def built(name: str, space: Any, clip_file: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    method = czslkit.build(name, space, **{"backbone": str(clip_file), **SMALL.get(name, {}), **options})
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return method.eval()


@pytest.fixture(scope="module")
def data(toys):
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def csp(data, clip_file):
    return built("csp", data.space, clip_file)


def evaluated(method, data, world, open_world=None):
    """Return the sweep of the evaluator on the test split."""
    feed = Feed(method, data.test, 8)
    return Evaluation.plan(method, data, "test", [world], feed, open_world=open_world, keep=9).run()[world]


def named(predictions, space, places=1):
    """Return attribute and object index of the best pairs, ``[N, places, 2]``."""
    return torch.tensor(
        [[(space.attrs.index(q.attr), space.objs.index(q.obj)) for q in p.pairs[:places]] for p in predictions]
    )


@pytest.mark.parametrize("world", ["closed", "open"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_predicts_what_the_evaluator_finds(name, world, data, clip_file):
    method = built(name, data.space, clip_file)
    pairs = data.space.pairs[data.candidates("test")] if world == "closed" else None
    sweep = evaluated(method, data, world)
    scores, columns, bias = sweep.top_scores()[0], sweep.candidates, 0.3
    found = method.predict(data.test.paths, pairs, 3, world=world, bias=bias, batch_size=8)
    assert torch.equal(named(found, data.space)[:, 0], columns.pairs[predict(scores, bias)[:, 0]])
    for one, best, numbers in zip(found, scores.top.score, scores.top.column, strict=True):
        known = numbers < len(columns)
        with_bias = best[known] + torch.where(columns.seen[numbers[known]], 0, bias)
        assert [pair.score for pair in one.pairs] == pytest.approx(sorted(with_bias.tolist())[:-4:-1], abs=1e-4)


@pytest.mark.parametrize("name", ["csp", "msci", "compcos"])
def test_seen_and_unseen_accuracy_at_the_bias_are_those_of_the_evaluator(name, data, clip_file):
    method = built(name, data.space, clip_file)
    metrics = evaluated(method, data, "closed").compute()
    pairs = data.space.pairs[data.candidates("test")]
    bias = min(max(metrics.hm_bias, -1000.0), 1000.0)
    found = named(method.predict(data.test.paths, pairs, 1, bias=bias), data.space)[:, 0]
    right = (found == torch.stack([data.test.attr, data.test.obj], 1)).all(1).double()
    shown = data.test.attr * len(data.space.objs) + data.test.obj
    seen = torch.isin(shown, data.space.flat()[data.space.seen])
    assert float(right[seen].mean()) == pytest.approx(metrics.hm_seen)
    assert float(right[~seen].mean()) == pytest.approx(metrics.hm_unseen)
