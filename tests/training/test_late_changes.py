"""Trainings whose hooks change what learns, and states that a resumed training has to continue."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import czslkit
from czslkit import Feed, Method, SoftPrompt, load_backbone
from czslkit.errors import PluginError, TrainingError
from czslkit.evaluation.validation import validation_loss
from czslkit.heads import CosineHead
from czslkit.learned_state import learned_state
from czslkit.runner.bench import bench
from czslkit.training_hooks import AveragedWeights
from czslkit.types import ImageFeatures


class WithHead(Method):
    """CSP with a layer on the pooled features; the base of the methods below."""

    def __init__(self, clip_file, space):
        backbone = load_backbone(str(clip_file))
        prompt = SoftPrompt(backbone, space)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
        self.layer = nn.Linear(backbone.dim, backbone.dim)

    def encode(self, images):
        pooled = super().encode(images).pooled
        return ImageFeatures(pooled + self.layer(pooled))


class LateHead(WithHead):
    """The layer learns from the second epoch on."""

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        self.layer.requires_grad_(False)

    def parameter_groups(self):
        return [{"params": [self.prompt.words, *self.layer.parameters()]}]

    def before_epoch(self, position):
        self.layer.requires_grad_(position.epoch >= 1)


class HeadAfterFirstEpoch(LateHead):
    def before_epoch(self, position):
        pass

    def after_epoch(self, position):
        if position.epoch == 0:
            self.layer.requires_grad_(True)


class HeadInFirstEpochs(WithHead):
    """The layer is frozen from the third epoch on; no group of parameters is declared."""

    def before_epoch(self, position):
        if position.epoch == 2:
            self.layer.requires_grad_(False)


class LateAdapters(WithHead):
    """Adapters with dropout in the backbone learn from the second epoch on, so its mode changes."""

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        self.backbone.add_adapters(lambda width: nn.Sequential(nn.Dropout(0.3), nn.Linear(width, width)))
        self.backbone.adapters.requires_grad_(False)

    def parameter_groups(self):
        learned = [self.prompt.words, *self.layer.parameters(), *self.backbone.adapters.parameters()]
        return [{"params": learned}]

    def before_epoch(self, position):
        self.backbone.adapters.requires_grad_(position.epoch >= 1)


class CountingSgd(torch.optim.Optimizer):
    """Gradient descent whose step size falls with a count in its groups and one in its state, both Python numbers."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "count": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] += 1
            for p in group["params"]:
                state = self.state[p]
                state["steps"] = state.get("steps", 0) + 1
                assert isinstance(state["steps"], int)
                p.add_(p.grad, alpha=-group["lr"] / (group["count"] + state["steps"]))


class OwnOptimizer(WithHead):
    def parameter_groups(self):
        return [{"params": self.parameters_to_learn(), "optimizer": CountingSgd}]

    def parameters_to_learn(self):
        return [p for p in self.parameters() if p.requires_grad]


METHODS = [LateHead, HeadAfterFirstEpoch, HeadInFirstEpochs, LateAdapters, OwnOptimizer]


@pytest.mark.parametrize("cls", METHODS)
def test_a_training_that_is_killed_after_every_epoch_ends_as_an_uninterrupted_one(run, killed_before, cls):
    whole, record = run(cls, "whole", select="last")
    for epoch in (1, 2, 3):
        with killed_before(epoch):
            run(cls, "killed", select="last")
    resumed, resumed_record = run(cls, "killed", select="last")
    assert resumed_record.history == record.history
    assert learned_state(resumed).keys() == learned_state(whole).keys()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    flags = [[p.requires_grad for p in method.parameters()] for method in (whole, resumed)]
    assert flags[0] == flags[1]


@pytest.mark.parametrize("cls", [LateHead, HeadAfterFirstEpoch, HeadInFirstEpochs])
def test_every_validation_sees_the_layer_as_it_is(run, cls):
    never_cached = type(cls.__name__, (cls,), {"caches_features": False})
    histories = [[row["val_auc"] for row in run(kind, str(i))[1].history] for i, kind in enumerate((cls, never_cached))]
    assert histories[0] == histories[1]


def test_a_layer_that_was_frozen_late_is_in_the_checkpoint(run, clip_file, toy):
    trained, _ = run(HeadInFirstEpochs, select="last")
    fresh = HeadInFirstEpochs(clip_file, toy.space)
    assert learned_state(trained).keys() == learned_state(fresh).keys() > {"layer.weight"}


class Noisy(WithHead):
    """Noise on the features in training, from the second epoch on."""

    sigma = 0.0

    def encode(self, images):
        pooled = Method.encode(self, images).pooled
        return ImageFeatures(pooled + self.sigma * torch.randn_like(pooled) if self.training else pooled)

    def before_epoch(self, position):
        self.sigma = float(position.epoch)

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        del self.layer


def test_noise_that_starts_later_is_applied(run):
    never_cached = type("Noisy", (Noisy,), {"caches_features": False})
    histories = [[row["loss"] for row in run(kind, str(i))[1].history] for i, kind in enumerate((Noisy, never_cached))]
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


class FrozenTeacher(WithHead):
    """A frozen copy of the layer follows it, and is in no file."""

    def __init__(self, clip_file, space):
        super().__init__(clip_file, space)
        self.teacher = nn.Linear(self.backbone.dim, self.backbone.dim).requires_grad_(False)

    def after_step(self, position):
        with torch.no_grad():
            self.teacher.weight.lerp_(self.layer.weight, 0.1)


def test_a_frozen_parameter_that_a_hook_changes_is_named(run):
    message = (
        r"frozen parameters of FrozenTeacher changed in epoch 1, but they are not saved: teacher\.weight\. "
        r"Register such tensors as buffers, or list them in parameter_groups\(\)"
    )
    with pytest.raises(TrainingError, match=message):
        run(FrozenTeacher)


def test_a_frozen_parameter_that_is_listed_is_saved(run):
    class Listed(FrozenTeacher):
        def parameter_groups(self):
            return [{"params": [self.prompt.words, *self.layer.parameters(), self.teacher.weight]}]

    method, _ = run(Listed, epochs=1)
    assert "teacher.weight" in learned_state(method)


def test_a_frozen_parameter_that_prepare_fills_is_named(toys, tmp_path, clip_file, monkeypatch):
    def prepare(self, data):
        self.backbone.scale.data += 1

    monkeypatch.setattr(czslkit.METHODS["csp"], "prepare", prepare)
    settings = {"backbone": str(clip_file), "train.epochs": 1}
    result = bench("csp", "toys", "closed", data=toys, runs=tmp_path, settings=settings, log=lambda line: None)
    error = result.results[0]["error"]
    assert error["type"] == PluginError.__name__
    assert error["message"].startswith(
        "csp: prepare changed frozen parameters, but they are not saved: backbone.clip.logit_scale. Register"
    )


def test_frozen_whole_numbers_do_not_stand_in_the_way(run):
    class Table(WithHead):
        def __init__(self, clip_file, space):
            super().__init__(clip_file, space)
            self.table = nn.Parameter(torch.arange(3), requires_grad=False)

    _, record = run(Table, epochs=1)
    assert record.epochs == 1


def test_a_parameter_of_something_else_is_refused(run):
    class Foreign(WithHead):
        def parameter_groups(self):
            self.hidden = {"w": nn.Parameter(torch.zeros(3))}
            return [*super().parameter_groups(), {"params": [self.hidden["w"]]}]

    with pytest.raises(
        TrainingError, match=r"Foreign\.parameter_groups\(\) has a parameter of shape \[3\] that is not"
    ):
        run(Foreign)


def test_a_validation_loss_leaves_the_queue_of_a_loss_alone(toy, clip_file):
    class Queue(WithHead):
        def __init__(self, clip_file, space):
            super().__init__(clip_file, space)
            self.register_buffer("count", torch.tensor(0))

        def loss(self, batch, pairs):
            self.count += len(batch.attr)
            return super().loss(batch, pairs)

    method = Queue(clip_file, toy.space)
    validation_loss(method, Feed(method, toy.val, 8), toy.space.pairs)
    assert int(method.count) == 0


def test_an_average_asks_for_parameters_that_were_frozen_when_it_was_made():
    layers = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False))
    average = AveragedWeights(layers)
    layers.requires_grad_(True)
    with pytest.raises(ValueError, match=r"1\.weight, 1\.bias had no average, since it was frozen or absent"):
        average.update(layers)
