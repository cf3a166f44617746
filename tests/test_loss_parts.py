"""The parts of a loss that methods report."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from czslkit.errors import TrainingError
from czslkit.loss_parts import report, reported
from czslkit.method import METHODS, Method, build
from czslkit.training.losses import loss_parts
from czslkit.types import Batch, PairSpace

SMALL = {
    "gipcol": {"graph_layers": "d16,d"},
    "msci": {"low_layers": 2, "high_layers": 2, "heads": (2, 2)},
    "visprod": {"backbone": "timm/resnet10t/random", "image_size": 32},
}
#: The parts of methods whose loss is a sum, by the start of their names.
PARTS = {
    "ade": {"pair", "attr", "obj", "distance"},
    "caila": {"pair", "attr", "obj"},
    "dfsp": {"pair", "primitives", "soft"},
    "msci": {"pair", "attr", "obj"},
    "troika": {"pair", "attr", "obj"},
    "visprod": {"attr", "obj"},
}


@pytest.mark.parametrize("name", [name for name in METHODS if name != "clip"])
def test_reported_parts_add_up_to_the_loss(name: str, space: PairSpace, clip_file: Path, images: Tensor) -> None:
    torch.manual_seed(0)
    method = build(name, space, **{"backbone": str(clip_file), **SMALL.get(name, {})}).train()
    pairs = space.pairs[space.seen]
    batch = Batch(images, *pairs[torch.arange(len(images)) % len(pairs)].T)
    with reported() as parts:
        loss = method.loss(batch, pairs)
    assert isinstance(loss, Tensor)
    assert parts.keys() == PARTS.get(name.partition("-")[0], set())
    assert not any(part.requires_grad for part in parts.values())
    if parts:
        assert sum(part.item() for part in parts.values()) == pytest.approx(loss.item(), rel=1e-5)


def test_a_part_is_returned_as_it_is_and_added_to_parts_of_its_name() -> None:
    value = torch.tensor(2.0, requires_grad=True)
    assert report("attr", value) is value  # outside of a step
    with reported() as parts:
        assert report("attr", value) is value
        report("attr", value)
        with reported() as inner:
            report("other", value)
    assert parts == {"attr": torch.tensor(4.0)} and inner.keys() == {"other"}


def test_parts_stand_beside_the_loss_which_stays_the_same() -> None:
    loss, part = torch.tensor(3.0, requires_grad=True), torch.tensor(1.0)
    found = loss_parts(Method.__new__(Method), loss, {"attr": part})
    assert found["loss"] is loss and found["loss/attr"] is part


def test_a_part_that_is_no_scalar_is_named() -> None:
    message = r"Method reports the part 'attr' of its loss with shape \[2\], expected a tensor with one number"
    with pytest.raises(TrainingError, match=message):
        loss_parts(Method.__new__(Method), torch.tensor(1.0), {"attr": torch.ones(2)})
