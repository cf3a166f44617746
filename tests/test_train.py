from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

import czslkit
from czslkit import train as training
from czslkit.errors import TrainingError
from czslkit.evaluation.evaluator import EvalOptions
from czslkit.options import as_dict, parse
from czslkit.train import TrainOptions, learned

SETTINGS = {
    "csp": {"lr": 1e-2},
    "msci": {"lr": 1e-3},
    "visprod": {"lr": 1e-3},
}
OPTIONS = {
    "csp": {},
    "msci": {"adapter_dim": 4, "low_layers": 2, "high_layers": 2, "heads": (2, 2)},
    "visprod": {"tune": "all"},
}


@pytest.fixture
def toy(toys):
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def run(toy, clip_file, tmp_path):
    """Train a fresh method; gives the method and what came of it."""

    def go(name="csp", folder="a", key="k", seed=0, options=None, **settings):
        torch.manual_seed(seed)
        backbone = "timm/resnet10t/random" if name == "visprod" else str(clip_file)
        size = {"image_size": 32} if name == "visprod" else {}
        method = czslkit.build(name, toy.space, backbone=backbone, **size, **{**OPTIONS[name], **(options or {})})
        chosen = {"epochs": 3, "batch_size": 8, "schedule": "step", "step_size": 1, **SETTINGS[name], **settings}
        result = training.train(
            method,
            toy,
            parse(TrainOptions, chosen, where="test"),
            EvalOptions(),
            seed=seed,
            folder=tmp_path / folder,
            key=key,
            progress=False,
        )
        return method, result

    return go


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(learned(a).values(), learned(b).values(), strict=True))


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


@pytest.mark.parametrize("name", ["csp", "msci", "visprod"])
@pytest.mark.parametrize(
    "moment",
    ["before the first epoch ends", "after an epoch", "before a state is written", "before the best is written"],
)
def test_a_killed_training_goes_on_to_the_same_end(run, monkeypatch, name, moment):
    whole, expected = run(name, "whole", augment=True)
    where = {
        "before the first epoch ends": (training, "sweeps", 1),
        "after an epoch": (training, "_epoch", 2),
        "before a state is written": (training.State, "save", 2),
        "before the best is written": (training, "_write", 4),
    }
    owner, attribute, call = where[moment]
    real, calls = getattr(owner, attribute), []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, attribute, killed)
    with pytest.raises(Killed):
        run(name, "cut", augment=True)
    monkeypatch.setattr(owner, attribute, real)
    resumed, found = run(name, "cut", augment=True)
    assert found == expected
    assert found.history == expected.history
    assert same(resumed, whole)


def test_a_finished_training_is_not_trained_again(run, monkeypatch):
    first, expected = run()
    monkeypatch.setattr(training, "_epoch", lambda *a: pytest.fail("trained again"))
    second, found = run()
    assert same(first, second)
    assert found.history == expected.history


def test_a_state_of_another_key_is_not_resumed_from(run):
    _, first = run(key="one", lr=1e-3)
    _, other = run(key="two")
    _, fresh = run(folder="b", key="two")
    assert other.history == fresh.history != first.history


def test_seeds_decide(run):
    one, _ = run(folder="a")
    two, _ = run(folder="b")
    three, _ = run(folder="c", seed=1)
    assert same(one, two)
    assert not same(one, three)


def test_the_method_is_left_with_its_best_epoch(run, monkeypatch, tmp_path):
    aucs = iter([0.1, 0.5, 0.3])

    class Fixed:
        def compute_all(self, bins):
            return [type("M", (), {"auc": next(aucs)})]

    seen = []
    monkeypatch.setattr(
        training,
        "sweeps",
        lambda method, *a: seen.append({k: v.clone() for k, v in learned(method).items()}) or {"closed": Fixed()},
    )
    method, result = run()
    assert result.best_epoch == 2
    assert [row["val_auc"] for row in result.history] == [0.1, 0.5, 0.3]
    assert all(torch.equal(value, seen[1][name]) for name, value in learned(method).items())
    assert load_file(tmp_path / "a" / "best.safetensors").keys() == learned(method).keys()


def test_only_what_training_changes_is_written(run, tmp_path):
    run("msci")
    names = load_file(tmp_path / "a" / "best.safetensors").keys()
    assert not [name for name in names if name.startswith("backbone.clip")]
    assert {"prompt.words", "head.attr_view.1.running_mean"} <= names


def test_a_loss_that_is_not_finite_names_epoch_and_step(run, monkeypatch):
    steps = []
    real = czslkit.Method.loss

    def loss(self, batch, pairs):
        steps.append(1)
        return real(self, batch, pairs) * (math.nan if len(steps) == 5 else 1)

    monkeypatch.setattr(czslkit.Method, "loss", loss)
    with pytest.raises(TrainingError, match=r"loss is nan at epoch 2, step 2 of 3; the learning rate was 0\.005"):
        run()


def test_a_split_of_one_image_cannot_train(toy, run, monkeypatch):
    monkeypatch.setattr(training, "_whole", lambda batches: iter(()))
    with pytest.raises(TrainingError, match="21 training images make no batch of two"):
        run()


def test_accumulated_batches_step_as_one_large_batch_does(run):
    """21 images: groups of 16 and 5 either way, the last batch of a single image left out of neither."""
    large, _ = run(folder="a", batch_size=16, epochs=1, options={"word_dropout": 0.0})
    small, _ = run(folder="b", batch_size=8, accumulation=2, epochs=1, options={"word_dropout": 0.0})
    torch.testing.assert_close(small.prompt.words, large.prompt.words, atol=1e-5, rtol=1e-4)


def test_a_last_image_alone_is_left_out(run):
    _, result = run("msci", batch_size=10, epochs=1)  # 10 + 10 + 1: batch normalisation would fail
    assert len(result.history) == 1


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "step", "step_size": 2, "gamma": 0.1}, [1, 1, 0.1]),
        ({"schedule": "constant"}, [1, 1, 1]),
        ({"schedule": "cosine"}, [1, 0.75, 0.25]),
    ],
)
def test_schedules_scale_the_learning_rate(run, settings, rates):
    _, result = run(lr=1e-2, **settings)
    assert [row["lr"] for row in result.history] == pytest.approx([1e-2 * rate for rate in rates])


@pytest.mark.parametrize("settings", [{"optimizer": "adamw"}, {"optimizer": "sgd"}, {"precision": "bf16"}])
def test_every_choice_trains(run, settings):
    method, result = run(epochs=1, **settings)
    assert math.isfinite(result.history[0]["loss"])
    assert method.prompt.words.dtype == torch.float32


def test_options_change_what_is_learned(run):
    base, _ = run(folder="base", epochs=1)
    changed = [
        {"optimizer": "adamw", "weight_decay": 0.5},
        {"optimizer": "sgd"},
        {"precision": "bf16"},
        {"augment": False},
    ]
    for i, settings in enumerate(changed):
        other, _ = run(folder=str(i), epochs=1, **settings)
        assert not same(base, other), settings


def test_a_method_with_nothing_to_learn_is_left_alone(toy, clip_file, tmp_path):
    method = czslkit.build("clip", toy.space, backbone=str(clip_file))
    result = training.train(method, toy, TrainOptions(), EvalOptions(), seed=0, folder=tmp_path, key="k")
    assert (result.epochs, result.best_epoch, result.trainable_parameters) == (0, None, 0)
    assert as_dict(TrainOptions())["epochs"] == 20
