"""Every method computes the function of its authors' program, as recorded runs of the program show.

Some numbers are not compared: gradients that vanish in exact arithmetic, the parameters with such gradients after an
optimisation (Adam makes steps from their rounding noise), and running means after an optimisation.
"""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch
from torch import nn

import czslkit
from czslkit.backbones.openai_format import from_openai
from czslkit.evaluation.validation import validation_loss
from czslkit.method import METHODS, construct
from czslkit.training.optimizers import AdamWBert
from czslkit.types import Batch, Setting

from .conftest import RECORDED

LOGITS, TRAINING, GRADIENTS, LOSS, TRAJECTORY = 2e-5, 1e-4, 2e-5, 2e-5, 3e-4
WEIGHTS = r"p([\d.]+)_a([\d.]+)_o([\d.]+?)"
SIZES = {"msci": {"heads": (4, 4), "adapter_dim": 8}, "troika": {"adapter_dim": 8}, "tomcat": {"adapter_dim": 8}}
BRANCHES = {"pair": ("comp", "logits"), "attr": ("attr", "logits_att"), "obj": ("obj", "logits_obj")}


def close(found, expected, tolerance):
    torch.testing.assert_close(found.detach(), expected, atol=tolerance, rtol=0)


def test_every_method_with_an_original_has_a_recorded_run(cases):
    others = {json.loads(path.read_text())["model"] for path in RECORDED.parent.glob("*/*.json")} - {"dfsp"}
    found = {case.method for case in cases} | others
    assert found == {name for name in METHODS if METHODS[name].translation is not None}


@pytest.mark.parametrize(
    ("part", "kinds"),
    [
        ("init.", 20),
        ("eval.logits_closed", 15),
        ("eval.closed.", 6),
        ("eval.loop.p", 7),
        ("eval.text_first_tb", 7),
        ("eval.closed_first", 6),
        ("trainmode.grad.", 14),
        ("evalmode.grad.", 1),
        ("trainmode.bn_after_one_forward.", 5),
        ("scaled_dropout.", 12),
        ("traj.", 14),
    ],
)
def test_what_is_compared_below_was_recorded(cases, part, kinds):
    assert sum(any(key.startswith(part) for key in case.arrays) for case in cases) == kinds


def test_the_losses_compared_below_were_recorded(cases):
    for key, kinds in {"loss": 20, "trajectories": 20, "eval_loop": 7, "eval_loop_loss": 6}.items():
        assert sum(bool(case.json.get(key)) for case in cases) == kinds


@torch.no_grad()
def test_initial_words_and_contexts_equal_the_recorded_ones(case):
    cls = METHODS[case.method]
    options = dataclasses.replace(cls.Options(**SIZES.get(case.method, {})), backbone=from_openai(case.clip))
    method = construct(cls, options, case.space, where=case.method)
    ours = {cls.translation.to_author_key(name): value for name, value in method.state_dict().items()}
    ours["frozen_embeddings"] = getattr(method.prompt, "words", None)  # of CoOp, whose words are not in its checkpoint
    for key in (key for key in case.arrays if key.startswith("init.")):
        close(ours[key.removeprefix("init.")], case.arrays[key], 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("which", ["train", "closed", "open"])
def test_logits_of_every_branch(case, which):
    method, compared = case.load(), 0
    scores = method(case.images, method.text(case.pairs(which)))
    for branch, (name, dfsp) in BRANCHES.items():
        found = getattr(scores, branch)
        for key in (f"eval.logits_{which}.{name}", f"eval.fwd_open_{which}.{name}", f"eval.{which}.{dfsp}"):
            if key in case.arrays:
                close(found, case.arrays[key], LOGITS)
                compared += 1
    for key in (f"eval.logits_{which}", f"eval.forward_{which}"):
        if key in case.arrays:
            close(scores.pair, case.arrays[key], LOGITS)
            compared += 1
    if f"eval.{which}.logits_soft_prompt" in case.arrays:
        close(scores.soft, case.arrays[f"eval.{which}.logits_soft_prompt"], LOGITS)
    assert compared or (which == "train" and case.method == "clip")


@torch.no_grad()
def test_fused_scores(case):
    for key in case.arrays:
        if found := re.fullmatch(
            r"eval\.(?:infer|loop)(?:_(closed|open))?\.p([\d.]+)_a([\d.]+)_o([\d.]+?)(?:\.logits)?", key
        ):
            which, *weights = found.groups()
            keys = ("pair_inference_weight", "attr_inference_weight", "obj_inference_weight")
            method = case.load(**dict(zip(keys, map(float, weights), strict=True)))
            close(method.rank(case.images, method.text(case.pairs(which or "closed"))), case.arrays[key], LOGITS)
    if case.method in ("msci", "troika"):
        assert any(key.startswith("eval.loop.") for key in case.arrays)


@torch.no_grad()
def test_chunks_of_pairs_divide_primitive_probabilities(case):
    for key in case.arrays:
        if found := re.fullmatch(rf"eval\.text_first_tb(\d+)\.{WEIGHTS}\.logits", key):
            chunk, *weights = found.groups()
            keys = ("pair_inference_weight", "attr_inference_weight", "obj_inference_weight")
            config = dict(zip(keys, map(float, weights), strict=True)) | {"text_encoder_batch_size": int(chunk)}
            method, pairs = case.load(**config), case.pairs("closed")
            setting = Setting("test", "closed", len(pairs))
            close(method.rank(case.images, method.text(pairs), setting), case.arrays[key], LOGITS)


@torch.no_grad()
def test_dfsp_scores_of_a_batch_of_one_are_those_of_every_batch(case):
    if not case.method.startswith("dfsp"):
        return
    method, pairs = case.load(batch_mixing="none") if case.mixes else case.load(), case.pairs("closed")
    alone = case.arrays["eval.closed_first1.logits"].reshape(1, -1)
    close(method(case.images, method.text(pairs)).pair[:1], alone, LOGITS)
    three = case.load()
    close(three(case.images[:3], three.text(pairs)).pair, case.arrays["eval.closed_first3.logits"], LOGITS)


class Loop:
    """The batches of the authors' evaluation loop: images and validation labels of a case, four at a time."""

    def __init__(self, case):
        labels = torch.tensor(case.json["eval_dataset"]["labels"])
        self.all = Batch(case.images, labels[:, 0], labels[:, 1])

    def batches(self):
        for rows in torch.arange(len(self.all.attr)).split(4):
            yield Batch(self.all.images[rows], self.all.attr[rows], self.all.obj[rows])


@torch.no_grad()
def test_validation_losses(case):
    pairs = case.pairs("closed")
    for weights, losses in case.json.get("eval_loop", {}).items():
        values = [float(part[1:]) for part in weights.split("_")]
        keys = ("pair_inference_weight", "attr_inference_weight", "obj_inference_weight")
        method = case.load(**dict(zip(keys, values, strict=True)))
        assert validation_loss(method, Loop(case), pairs, fused=True) == pytest.approx(losses["loss_as_run"], abs=LOSS)
        plain = validation_loss(method, Loop(case), pairs)
        assert plain == pytest.approx(losses["loss_without_inplace_fusion"], abs=LOSS)
    if "eval_loop_loss" in case.json:
        assert validation_loss(case.load(), Loop(case), pairs) == pytest.approx(case.json["eval_loop_loss"], abs=LOSS)


def without_dropout(method, factor=lambda p: 1.0):
    """Replace every dropout of ``method`` by a multiplication with ``factor`` of its probability."""
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.forward = lambda x, p=module.p: x * factor(p)
    return method


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_losses_and_gradients(case, mode):
    if mode not in case.json.get("loss", {}):
        return
    method = without_dropout(case.load()).train(mode == "train")
    pairs = case.pairs("train")
    with torch.no_grad():
        kept = {key: value.clone() for key, value in method.state_dict().items()}
        scores = method(case.images, method.text(pairs))
        for branch, (name, _) in BRANCHES.items():
            if f"{mode}mode.logits_train.{name}" in case.arrays:
                close(getattr(scores, branch), case.arrays[f"{mode}mode.logits_train.{name}"], TRAINING)
        for key in (key for key in case.arrays if key.startswith(f"{mode}mode.bn_after_one_forward.")):
            name = key.split("forward.")[1]
            found = {method.translation.to_author_key(k): value for k, value in method.state_dict().items()}[name]
            close(found, case.arrays[key], LOGITS)
        method.load_state_dict(kept)
    loss = method.loss(case.batch, pairs)
    loss.backward()
    assert loss.item() == pytest.approx(case.json["loss"][mode]["total"], abs=LOSS)
    gradients = {method.translation.to_author_key(name): p.grad for name, p in method.named_parameters()}
    for key in (key for key in case.arrays if key.startswith(f"{mode}mode.grad.")):
        close(gradients[key.split(".grad.")[1]], case.arrays[key], GRADIENTS)


def test_dropout_is_at_the_same_places_as_in_the_original(case):
    if "train_scaled_dropout" not in case.json.get("loss", {}):
        return
    method = without_dropout(case.load(), lambda p: 1 - p).train()
    scores = method(case.images, method.text(case.pairs("train")))
    expected = case.json["loss"]["train_scaled_dropout"]["total"]
    loss = method.head.loss(scores, case.batch, case.pairs("train"))
    assert loss.item() == pytest.approx(expected, abs=LOSS)
    for branch, (name, _) in BRANCHES.items():
        for key in (f"scaled_dropout.logits_train.{name}", f"scaled_dropout.train.{name}"):
            if key in case.arrays:
                close(getattr(scores, branch), case.arrays[key], TRAINING)


def test_optimisation_goes_the_same_way(case):
    for name, recorded in case.json.get("trajectories", {}).items():
        method = without_dropout(case.load()).train(recorded["mode"] == "train")
        kind = AdamWBert if "AdamW" in recorded["optimizer"] else torch.optim.Adam
        learned = [p for p in method.parameters() if p.requires_grad]
        optimizer = kind(learned, lr=recorded["lr"], weight_decay=recorded["weight_decay"])
        losses = []
        for _ in recorded["losses"]:
            loss = method.loss(case.batch, case.pairs("train"))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        losses.append(method.loss(case.batch, case.pairs("train")).item())
        assert losses[0] == pytest.approx(recorded["losses"][0], abs=LOSS)
        assert losses == pytest.approx([*recorded["losses"], recorded["final_loss"]], abs=TRAJECTORY), name
        ours = {method.translation.to_author_key(key): p for key, p in method.named_parameters()}
        for key in (key for key in case.arrays if key.startswith(f"traj.{name}.final.")):
            close(ours[key.split(".final.")[1]], case.arrays[key], 10 * TRAJECTORY)


def test_what_an_original_declares_but_never_uses_is_named(case, capsys):
    method = czslkit.load_original(case.method, case.state, case.space, case.config)
    said = capsys.readouterr().err
    never = {"msci": "fusion_module.norm.weight", "dfsp-t2i": "fusion.txt_fine_tune.weight"}.get(case.method)
    if never:
        assert never in method.unused
        assert f"skipped {len(method.unused)} tensors" in said and never.removesuffix(".weight") in said
    if case.method in ("clip", "coop", "csp", "troika", "dfsp-bif"):
        assert method.unused == () and said == ""
