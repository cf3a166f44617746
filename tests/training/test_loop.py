from __future__ import annotations

import math
from contextlib import contextmanager
from itertools import combinations

import pytest
import torch
from safetensors.torch import load_file

import czslkit
from czslkit.data.batches import Feed
from czslkit.data.image_set import ImageSet
from czslkit.data.image_transforms import to_normalized
from czslkit.errors import ConfigError, TrainingError
from czslkit.evaluation import validation
from czslkit.evaluation.evaluator import Evaluation
from czslkit.evaluation.validation import plan_validation
from czslkit.learned_state import learned_state
from czslkit.options import as_dict, parse
from czslkit.training import epoch as one_epoch
from czslkit.training import loop as training
from czslkit.training import state
from czslkit.training.options import TrainOptions

SETTINGS = {
    "csp": {"lr": 1e-2},
    "msci": {"lr": 1e-3},
    "visprod": {"lr": 1e-3},
}
AS_MSCI_DOES = {
    "accumulation": 2,
    "rescale_short_groups": False,
    "optimizer": "adamw_bert",
    "eval_mode_after_first_epoch": True,
    "select": "loss",
    "fused_validation_loss": True,
}
OPTIONS = {
    "csp": {},
    "msci": {"adapter_dim": 4, "low_layers": 2, "high_layers": 2, "heads": (2, 2)},
    "visprod": {"tune": "all"},
}


@pytest.fixture
def build(toy, clip_file):
    """Return a new method; the same seed gives the same method."""

    def go(name="csp", seed=0, **options):
        torch.manual_seed(seed)
        backbone = "timm/resnet10t/random" if name == "visprod" else str(clip_file)
        size = {"image_size": 32} if name == "visprod" else {}
        return czslkit.build(name, toy.space, backbone=backbone, **size, **{**OPTIONS[name], **options})

    return go


@pytest.fixture
def validating(toy):
    """The validation of a method, as a function without arguments."""
    return lambda method, options: plan_validation(
        method, toy, Feed(method, toy.val, options.batch_size), options, bins="original"
    )


@pytest.fixture
def run(toy, build, validating, tmp_path):
    """Train a new method; return the method and the record of the training."""

    def go(name="csp", folder="a", key="k", seed=0, options=None, said=None, **settings):
        method = build(name, seed, **(options or {}))
        chosen = {"epochs": 3, "batch_size": 8, "schedule": "step", "step_size": 1, **SETTINGS[name], **settings}
        options = parse(TrainOptions, chosen, where="test")
        feed = Feed(method, toy.train, options.batch_size, augment=options.augment, seed=seed)
        result = training.train(
            method,
            feed,
            options,
            validating(method, options),
            state.TrainingState(tmp_path / folder, key),
            data=toy.training_data(),
            seed=seed,
            log=(said if said is not None else []).append,
        )
        return method, result

    return go


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(learned_state(a).values(), learned_state(b).values(), strict=True))


class Killed(BaseException):
    """An exception in place of a signal; no code catches it."""


@contextmanager
def killed_at(owner, attribute, call):
    """Raise ``Killed`` at the call of a function with this number, counted from 1."""
    real, calls = getattr(owner, attribute), []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, attribute, killed)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize(
    ("name", "settings"),
    [("csp", {}), ("msci", {}), ("visprod", {}), pytest.param("msci", AS_MSCI_DOES, id="as MSCI does")],
)
@pytest.mark.parametrize(
    "moment",
    ["before the first epoch ends", "after an epoch", "before a state is written"],
)
def test_a_killed_training_goes_on_to_the_same_end(run, name, settings, moment):
    whole, expected = run(name, "whole", augment=True, **settings)
    where = {
        "before the first epoch ends": (Evaluation, "run", 1),
        "after an epoch": (one_epoch.Trainer, "run", 2),
        "before a state is written": (state.TrainingState, "save", 2),
    }
    with killed_at(*where[moment]):
        run(name, "cut", augment=True, **settings)
    resumed, found = run(name, "cut", augment=True, **settings)
    assert found == expected
    assert found.history == expected.history
    assert same(resumed, whole)


@pytest.mark.parametrize("select", ["auc", "loss", "last"])
def test_a_finished_training_is_not_trained_again(run, monkeypatch, select):
    first, expected = run(select=select)
    monkeypatch.setattr(one_epoch.Trainer, "run", lambda *a: pytest.fail("trained again"))
    second, found = run(select=select)
    assert same(first, second)
    assert found == expected


def test_a_state_of_another_key_is_not_resumed_from(run):
    _, first = run(key="one", lr=1e-3)
    _, other = run(key="two")
    _, fresh = run(folder="b", key="two")
    assert other.history == fresh.history != first.history


def test_the_result_depends_only_on_the_seed(run):
    one, _ = run(folder="a")
    two, _ = run(folder="b")
    three, _ = run(folder="c", seed=1)
    assert same(one, two)
    assert not same(one, three)


@pytest.fixture
def validated(monkeypatch):
    """Give the validations of three epochs fixed AUCs and losses; return a copy of the weights at each validation."""

    def go(aucs, losses):
        values, seen = iter(zip(aucs, losses, strict=True)), []

        class Fixed:
            def compute_all(self, bins):
                return [type("M", (), {"auc": self.auc, "best_hm": 0.5, "hm_bias": 0.5, "undefined": {}})]

        def run(evaluation):
            seen.append({name: value.clone() for name, value in learned_state(evaluation.method).items()})
            Fixed.auc, Fixed.loss = next(values)
            return {"closed": Fixed()}

        monkeypatch.setattr(Evaluation, "run", run)
        monkeypatch.setattr(validation, "validation_loss", lambda *args, **kwargs: Fixed.loss)
        return seen

    return go


@pytest.mark.parametrize(
    ("select", "aucs", "losses", "best"),
    [
        ("auc", [0.1, 0.5, 0.3], [1.5, 2.0, 1.8], 2),
        ("auc", [0.1, 0.5, 0.5], [1.5, 2.0, 1.8], 2),
        ("auc", [0.0, 0.0, 0.0], [1.5, 2.0, 1.8], 1),
        ("loss", [0.1, 0.5, 0.3], [1.5, 2.0, 1.8], 1),
        ("loss", [0.1, 0.5, 0.3], [1.5, 1.2, 1.2], 2),
        ("last", [0.1, 0.5, 0.3], [1.5, 2.0, 1.8], 3),
    ],
)
def test_the_method_is_left_with_the_epoch_selected(run, validated, tmp_path, select, aucs, losses, best):
    seen = validated(aucs, losses)
    method, result = run(select=select)
    assert result.best_epoch == best
    assert [row["val_auc"] for row in result.history] == aucs
    for name, value in learned_state(method).items():
        assert torch.equal(value, seen[best - 1][name])


def test_a_line_for_every_epoch_has_the_loss_that_it_is_selected_by(run, validated):
    validated([0.1, 0.5, 0.3], [1.5, 2.0, 1.8])
    said = []
    _, result = run(select="loss", said=said)
    assert [row["val_loss"] for row in result.history] == [1.5, 2.0, 1.8]
    for line, row, epoch in zip(said, result.history, (1, 2, 3), strict=True):
        figures = (
            f"loss {row['loss']:.3f}, validation AUC {100 * row['val_auc']:.1f}, validation loss {row['val_loss']}00"
        )
        assert line.startswith(f"epoch {epoch}/3: {figures}, ")


@pytest.mark.parametrize("select", ["auc", "last"])
def test_the_validation_loss_is_computed_only_if_it_is_needed(run, monkeypatch, select):
    monkeypatch.setattr(validation, "validation_loss", lambda *args, **kwargs: pytest.fail("computed"))
    said = []
    _, result = run(select=select, said=said)
    assert all(row.keys() - {"val_bias"} == {"loss", "lr", "val_auc"} for row in result.history)
    assert len(said) == 3 and not any("validation loss" in line for line in said)


def test_a_validation_loss_that_is_not_finite_names_the_epoch(run, validated):
    validated([0.1, 0.5, 0.3], [1.5, math.nan, 1.8])
    with pytest.raises(TrainingError, match=r"^the validation loss is nan after epoch 2$"):
        run(select="loss")


def naive_validation_loss(method, data, batch_size, fused):
    """Return the loss image by image, with Python's floats after the logits."""
    method.eval()
    weights, (v_pair, v_attr, v_obj) = (0.5, 2.0, 3.0), (0.3, 0.7, 0.9)
    pairs = data.space.pairs.tolist()

    def surprise(logits, target):
        return math.log(sum(math.exp(x - logits[target]) for x in logits))

    losses = []
    for batch in Feed(method, data.val, 1).batches():
        with torch.no_grad():
            scores = method(batch.images, method.text(data.space.pairs))
        pair, attr, obj = (s.double().tolist()[0] for s in (scores.pair, scores.attr, scores.obj))
        shown = (batch.attr.item(), batch.obj.item())
        if fused:
            p_attr, p_obj = ([math.exp(-surprise(logits, i)) for i in range(len(logits))] for logits in (attr, obj))
            pair = [v_pair * x + v_attr * p_attr[a] * v_obj * p_obj[o] for x, (a, o) in zip(pair, pairs, strict=True)]
        branches = (pair, pairs.index(list(shown))), (attr, shown[0]), (obj, shown[1])
        losses.append(sum(w * surprise(*branch) for w, branch in zip(weights, branches, strict=True)))
    batches = [losses[i : i + batch_size] for i in range(0, len(losses), batch_size)]
    return sum(sum(batch) / len(batch) for batch in batches) / len(batches)


@pytest.mark.parametrize("fused", [False, True])
def test_the_validation_loss_is_that_of_a_naive_loop_over_all_pairs(run, toy, fused):
    options = {"loss_weights": (0.5, 2.0, 3.0), "score_weights": (0.3, 0.7, 0.9)}
    settings = {"batch_size": 5, "select": "loss", "fused_validation_loss": fused}  # 8 images: 5 + 3
    method, result = run("msci", epochs=1, options=options, **settings)
    assert len(toy.val) == 8
    found = result.history[0]["val_loss"]
    assert found == pytest.approx(naive_validation_loss(method, toy, 5, fused), abs=1e-5)
    assert abs(found - naive_validation_loss(method, toy, 8, fused)) > 1e-3
    assert abs(found - naive_validation_loss(method, toy, 5, not fused)) > 1e-3
    again = validation.validation_loss(method.train(), Feed(method, toy.val, 5), toy.space.pairs, fused=fused)
    assert again == found
    assert not method.training


def test_a_fused_loss_that_nothing_is_selected_by_is_an_error():
    expected = (
        r"^msci\.train: fused_validation_loss is true, but no validation loss is computed while select is 'last'; "
        "set select to 'loss' or fused_validation_loss to false$"
    )
    with pytest.raises(ConfigError, match=expected):
        parse(TrainOptions, {"fused_validation_loss": True, "select": "last"}, where="msci.train")


def batches_of_8(method, split, order):
    """Yield the images of a split in the given order."""
    backbone = method.backbone
    pixels = ImageSet(split, backbone.preprocessing).read(range(len(split))).pixels
    images = to_normalized(pixels, backbone.mean, backbone.std)
    return [czslkit.Batch(images[index], split.attr[index], split.obj[index]) for index in order.split(8)]


def naive_training(method, data, evaluation_mode_from):
    """Train three epochs in a plain loop."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    for epoch in range(3):
        torch.manual_seed(one_epoch.epoch_seed(0, epoch))
        method.train()
        if epoch >= evaluation_mode_from:
            method.eval()
        for batch in batches_of_8(method, data.train, torch.randperm(len(data.train))):
            optimizer.zero_grad()
            method.loss(batch, data.train.pairs).backward()
            optimizer.step()
    return learned_state(method)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(("flag", "evaluation_mode_from"), [(True, 1), (False, 3)])
def test_modes_of_training_are_those_of_a_naive_loop(run, build, toy, flag, evaluation_mode_from, killed):
    settings = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 0, "schedule": "constant", "augment": False}
    settings |= {"select": "last", "eval_mode_after_first_epoch": flag}
    if killed:
        with killed_at(one_epoch.Trainer, "run", 2):
            run("msci", **settings)
    found = learned_state(run("msci", **settings)[0])
    expected = naive_training(build("msci"), toy, evaluation_mode_from)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])
    other = naive_training(build("msci"), toy, 4 - evaluation_mode_from)
    for name in ("prompt.words", "head.attr_view.1.running_mean"):  # behind a dropout, and a batch statistic
        assert not torch.allclose(found[name], other[name])


def test_only_what_training_changes_is_written(run, tmp_path):
    run("msci")
    names = load_file(tmp_path / "a" / "last.safetensors").keys()
    assert not [name for name in names if "backbone.clip" in name]
    assert {"method.prompt.words", "best.head.attr_view.1.running_mean"} <= names


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
    monkeypatch.setattr(one_epoch.Trainer, "_parts", lambda *arguments: iter(()))
    message = "not enough training images: found 21, and batch normalisation needs 2 in a batch"
    with pytest.raises(TrainingError, match=message):
        run()


def test_accumulated_batches_give_the_step_of_one_large_batch(run):
    """21 images form groups of 16 and 5 in both cases; no batch has a single image."""
    large, _ = run(folder="a", batch_size=16, epochs=1, options={"word_dropout": 0.0})
    small, _ = run(folder="b", batch_size=8, accumulation=2, epochs=1, options={"word_dropout": 0.0})
    torch.testing.assert_close(small.prompt.words, large.prompt.words, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("accumulation", [1, 2, 3, 4])  # of batches of 8 + 8 + 5 images
def test_accumulated_gradients_are_weighted_as_asked(run, build, toy, accumulation, rescale):
    """The gradients of the batches of one epoch are computed separately and summed by hand."""
    method = build(word_dropout=0.0)
    torch.manual_seed(one_epoch.epoch_seed(0, 0))
    batches = batches_of_8(method, toy.train, torch.randperm(21))
    words, velocity = method.prompt.words, torch.zeros_like(method.prompt.words)
    for first in range(0, 3, accumulation):
        group = batches[first : first + accumulation]
        velocity *= 0.9
        for batch in group:
            (gradient,) = torch.autograd.grad(method.loss(batch, toy.train.pairs), words)
            images = sum(len(b.attr) for b in group)
            velocity += gradient * (len(batch.attr) / images if rescale else 1 / accumulation)
        with torch.no_grad():
            words -= 0.1 * velocity
    settings = {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0, "augment": False, "epochs": 1}
    settings |= {"accumulation": accumulation, "rescale_short_groups": rescale}
    trained, _ = run(options={"word_dropout": 0.0}, **settings)
    torch.testing.assert_close(trained.prompt.words, words)


def test_a_last_batch_of_one_image_is_left_out(run):
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


@pytest.mark.parametrize(
    "settings", [{"optimizer": "adamw"}, {"optimizer": "adamw_bert"}, {"optimizer": "sgd"}, {"precision": "bf16"}]
)
def test_every_choice_trains(run, settings):
    method, result = run(epochs=1, **settings)
    assert math.isfinite(result.history[0]["loss"])
    assert method.prompt.words.dtype == torch.float32


def test_options_change_what_is_learned(run):
    settings = [
        {},
        {"optimizer": "adamw", "weight_decay": 0.5},
        {"optimizer": "adamw_bert", "weight_decay": 0.5},
        {"optimizer": "sgd"},
        {"precision": "bf16"},
        {"augment": False},
    ]
    trained = [run(folder=str(i), epochs=1, **chosen)[0] for i, chosen in enumerate(settings)]
    for (i, one), (j, other) in combinations(enumerate(trained), 2):
        assert not same(one, other), (settings[i], settings[j])


def test_a_method_with_nothing_to_learn_is_left_alone(toy, clip_file, tmp_path):
    method = czslkit.build("clip", toy.space, backbone=str(clip_file))
    feed, data = Feed(method, toy.train, 8), toy.training_data()
    result = training.train(method, feed, TrainOptions(), dict, state.TrainingState(tmp_path, "k"), data=data, seed=0)
    assert (result.epochs, result.best_epoch, result.trainable_parameters) == (0, None, 0)
    assert as_dict(TrainOptions())["epochs"] == 20
