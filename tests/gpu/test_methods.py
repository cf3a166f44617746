"""Every registered method on an accelerator, against the CPU."""

from __future__ import annotations

import copy
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from czslkit.checkpoints.trained import TrainedMethod
from czslkit.method import Method
from czslkit.testing.scores import add_noise
from czslkit.testing.trial import Killed, MethodTrial
from czslkit.training.epoch import companion_choice, loss_parts
from czslkit.types import VALIDATION, Batch

pytestmark = pytest.mark.gpu

NEAR = 0.01  # largest difference relative to the size of a tensor; convolutions may use TF32
SEEN = "val_auc", "val_acc", "val_loss"


def moved(value: Any, device: torch.device) -> Any:
    """Return a batch, its features and its companions on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return replace(value, **{f.name: moved(getattr(value, f.name), device) for f in fields(value)})
    return value


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the size of the difference of two tensors, relative to the size of the second."""
    return float((found.detach().float().cpu() - expected.detach().float()).norm() / expected.detach().norm())


def prepared(trial: MethodTrial) -> tuple[Method, Batch]:
    """Return a method that is not trained, in evaluation mode, and a batch of pixels with its companions."""
    method = trial.build()
    add_noise(method)
    companions = companion_choice(method, trial.data.training_data(), torch.Generator().manual_seed(0))
    feed = trial.job("built").machine.feed(method, trial.data.train, 6)
    return method.eval(), feed.sample(6, companions)


def test_scores_losses_and_gradients_are_those_of_the_cpu(trial: MethodTrial, device: torch.device) -> None:
    method, batch = prepared(trial)
    there = copy.deepcopy(method).to(device)
    pairs = trial.data.train.pairs
    assert isinstance(batch.images, Tensor)
    with torch.no_grad():
        scores = [
            copy.deepcopy(one).rank(one.encode(images), one.text(candidates), VALIDATION)
            for one, images, candidates in (
                (there, batch.images.to(device), pairs.to(device)),
                (method, batch.images, pairs),
            )
        ]
    assert difference(scores[0], scores[1]) < NEAR
    if not method.trains:
        return
    losses = [
        loss_parts(one, one.loss(on, on_pairs))["loss"]
        for one, on, on_pairs in (
            (there, moved(batch, device), pairs.to(device)),
            (method, batch, pairs),
        )
    ]
    assert losses[0].device.type == device.type
    assert difference(losses[0], losses[1]) < NEAR
    for loss in losses:
        loss.backward()
    gradients = [
        torch.cat([p.grad.cpu().flatten() for p in one.parameters() if p.grad is not None]) for one in (there, method)
    ]
    assert difference(gradients[0], gradients[1]) < 5 * NEAR


def test_a_training_is_killed_resumed_evaluated_and_found_again(trial: MethodTrial, bench: Any) -> None:
    whole = bench()
    for result in whole:
        assert all(math.isfinite(value) for value in result["metrics"].values() if isinstance(value, float))
    if not trial.cls.trains:
        return
    lines: list[str] = []

    def kill(line: str) -> None:
        if "epoch 1/2:" in line:
            raise Killed

    with pytest.raises(Killed):
        bench("killed", log=kill)
    resumed = bench("killed", log=lines.append)
    assert any("resumed after epoch 1" in line for line in lines)
    for key in ("loss", *(key for key in SEEN if key in whole[0]["training"]["history"][-1])):
        one, other = (results[0]["training"]["history"][-1][key] for results in (resumed, whole))
        assert one == pytest.approx(other, rel=0.05, abs=0.15)
    bench("killed")
    assert any("done before" in line for line in bench.lines)


def test_a_trained_method_is_loaded_on_the_device(trial: MethodTrial, bench: Any, device: torch.device) -> None:
    trained = bench()
    (folder,) = Path(trial.folder).glob("runs/**/training")
    loaded = TrainedMethod.read(folder).build().to(device)
    assert loaded.device.type == device.type
    again = bench("loaded", checkpoints=[folder])
    for one, other in zip(again, trained, strict=True):
        assert one["metrics"]["auc"] == pytest.approx(other["metrics"]["auc"], abs=0.05)


def test_bf16_and_augmentation_on_the_device_train_alike(trial: MethodTrial, bench: Any) -> None:
    if not trial.cls.trains:
        pytest.skip("it does not train")
    settings = {
        "plain": {},
        "bf16": {"precision": "bf16"},
        "device": {"augment_on": "device"},
    }
    losses = {
        name: bench(name, workers=2, epochs=1, augment=True, **changed)[0]["training"]["history"][0]["loss"]
        for name, changed in settings.items()
    }
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.1)
    assert losses["device"] == pytest.approx(losses["plain"], rel=0.02)
