"""Which losses several processes can compute on shares of a batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import czslkit
from czslkit.data.batches import Feed
from czslkit.method import Method
from czslkit.training.split import SAMPLE, sampled, undivided
from czslkit.types import Batch


@pytest.fixture
def reason(toys: Path) -> Callable[..., str]:
    """Return the reason why the loss of CSP cannot be divided, after a change of its class."""

    def find(**changes: Any) -> str:
        data = czslkit.load_dataset("toys", toys)
        method = czslkit.build("csp", data.space, backbone="demo")
        method.__class__ = type("Changed", (type(method),), changes)
        batch = sampled(Feed(method, data.train, SAMPLE))
        return undivided(method, batch, data.train.pairs)

    return find


def keeping(method: Any, batch: Batch, pairs: Tensor) -> Tensor:
    loss = Method.loss(method, batch, pairs)
    method.kept = loss
    return loss


def comparing(method: Any, batch: Batch, pairs: Tensor) -> Tensor:
    pair = method(batch.images, method.text(pairs)).pair
    return (pair @ pair.T).softmax(-1).diagonal().mean()


def needing_four(method: Any, batch: Batch, pairs: Tensor) -> Tensor:
    if len(batch.attr) < 4:
        raise ValueError(f"{len(batch.attr)} images")
    return Method.loss(method, batch, pairs)


def test_a_mean_over_images_can_be_divided(reason: Callable[..., str]) -> None:
    assert not reason()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss": comparing}, "its loss of 4 images is .*, and the mean of the losses of its halves is"),
        ({"loss": keeping}, "its loss keeps something in kept"),
        ({"loss": needing_four}, "its loss of 2 images raises ValueError: 2 images"),
        ({"companions": lambda *_: {}}, "companions"),
        ({"independent": False}, "depend on the batch"),
    ],
)
def test_a_loss_that_cannot_be_divided_has_a_reason(
    reason: Callable[..., str], changes: dict[str, Any], expected: str
) -> None:
    assert re.search(expected, reason(**changes))


def test_measuring_a_loss_changes_neither_method_nor_random_numbers(toys: Path) -> None:
    data = czslkit.load_dataset("toys", toys)
    method = czslkit.build("troika", data.space, backbone="demo").train()
    batch = sampled(Feed(method, data.train, SAMPLE))
    modes = [module.training for module in method.modules()]
    before, state = {n: v.clone() for n, v in method.state_dict().items()}, torch.get_rng_state()
    assert not undivided(method, batch, data.train.pairs)
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in method.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
