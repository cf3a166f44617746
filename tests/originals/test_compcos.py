"""CompCos computes the function of its authors' program, as recorded runs of the program show.

The recorded runs read features of images. A trajectory has five steps of Adam; where its name says epochs, the margins
are updated after each of them. Dropout is off in all of them.
"""

from __future__ import annotations

import re

import pytest
import torch

from czslkit.training_hooks import TrainingPosition

SCORES, LOGITS, GRADIENTS, LOSS, TRAJECTORY = 2e-5, 1e-4, 2e-5, 2e-5, 3e-4


@pytest.fixture
def case(classical):
    if classical.method != "compcos":
        pytest.skip(f"{classical.name} is of another method")
    return classical


def close(found, expected, tolerance):
    torch.testing.assert_close(found.detach(), expected, atol=tolerance, rtol=0)


def learned(method):
    """Return the parameters by the names of the authors."""
    return {method.translation.to_author_key(name): value for name, value in method.named_parameters()}


def end_epoch(method, epoch):
    method.after_epoch(TrainingPosition(epoch, 100, 1, 1))


def test_words_start_from_their_vectors(case):
    method = case.load()
    method.load_word_vectors(case.vector)
    for kind in ("attr", "obj"):
        close(getattr(method.words, kind), case.arrays[f"init.{kind}_embedder.weight"], 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("which", ["train", "closed", "open"])
def test_scores_and_features(case, which):
    method = case.load()
    text = method.text(case.pairs(which))
    close(text.pair, case.arrays[f"eval.{which}.pair_embed"], SCORES)
    close(method(case.images, text).pair, case.arrays[f"eval.{which}.scores"], SCORES)
    close(method.aggregator(case.images).pooled, case.arrays["eval.img_embed"], SCORES)


@torch.no_grad()
def test_feasibility_comes_from_the_trained_words(case):
    if "eval.feasibility_returned" in case.arrays:
        close(case.load().feasibility(), case.arrays["eval.feasibility_returned"], SCORES)


def states(case):
    """Return the method in each recorded state of its margins, by the name of the state."""
    names = {match[1] for key in case.arrays if (match := re.fullmatch(r"trainmode\.logits(.*)", key))}
    for name in sorted(names):
        method = case.load().train()
        if epoch := re.fullmatch(r"_epoch(\d+)", name):
            end_epoch(method, int(epoch[1]) - 1)
        yield name, method


def test_training_logits_margins_and_gradients(case):
    pairs = case.pairs("open" if case.json["config"]["open_world"] else "train")
    compared = []
    for name, method in states(case):
        batch = case.batch
        scores = method(batch.images, method.text(pairs))
        close(method.head.logits(scores, pairs), case.arrays[f"trainmode.logits{name}"], LOGITS)
        if margins := name.startswith("_epoch"):
            close(method.head.margins, case.arrays[f"train.margin{name}"], SCORES)
        loss = method.loss(batch, case.pairs("train"))
        key = f"train{name}" if margins else "train_before_margins" if name else "train"
        assert loss.item() == pytest.approx(case.json["loss"][key]["total"], abs=LOSS)
        loss.backward()
        for parameter, value in learned(method).items():
            for start in (f"trainmode.grad{name}.", f"trainmode.grads{name}."):
                if (array := f"{start}{parameter}") in case.arrays:
                    close(value.grad, case.arrays[array], GRADIENTS)
                    compared.append(array)
    assert sorted(compared) == sorted(key for key in case.arrays if key.startswith("trainmode.grad"))


def test_norms_of_gradients(case):
    method = case.load().train()
    if case.json["config"]["open_world"]:
        end_epoch(method, 4)
    method.loss(case.batch, case.pairs("train")).backward()
    gradients = {name: value.grad for name, value in learned(method).items() if value.grad is not None}
    norms = case.json["grad_norms"]["train"]
    assert gradients.keys() == norms.keys()
    for name, expected in norms.items():
        assert gradients[name].norm().item() == pytest.approx(expected["l2"], abs=2e-5, rel=1e-5)
        assert gradients[name].abs().max().item() == pytest.approx(expected["max"], abs=GRADIENTS)


def test_trajectories_of_the_optimiser(case):
    for name, recorded in case.json["trajectories"].items():
        method = case.load().train()
        if epoch := re.search(r"margins_of_epoch(\d+)", name):
            end_epoch(method, int(epoch[1]) - 1)
        parameters = learned(method)
        start = {parameter: value.detach().clone() for parameter, value in parameters.items()}
        optimizer = torch.optim.Adam(parameters.values(), lr=recorded["lr"], weight_decay=recorded["weight_decay"])
        for step, expected in enumerate(recorded["losses"]):
            loss = method.loss(case.batch, case.pairs("train"))
            assert loss.item() == pytest.approx(expected, abs=TRAJECTORY), (name, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if "epochs" in name:
                end_epoch(method, step)
                close(method.head.margins, case.arrays[f"traj.{name}.margins"][step], SCORES * 10)
        for parameter, value in parameters.items():
            array = f"traj.{name}.final.{parameter}"
            moved = recorded["delta_l2"][parameter]
            assert (value - start[parameter]).norm().item() == pytest.approx(moved, rel=1e-2)
            if array not in case.arrays:
                continue
            close(value, case.arrays[array], 10 * case.json["arrays"][array]["fp64_maxabsdiff"] + 2e-5)
