"""ADE computes the functions of its authors' program, as recorded runs of the program show.

The program's solver of transport problems stops within a tolerance, and the solver here is exact. This changes the
gradients of the queries, keys and values of attention between images, and of the norm before them.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import czslkit
from czslkit.types import ImageFeatures
from czslkit_plugins.ade import partners
from czslkit_plugins.ade_attention import similarity, transport

SCORES, LOGITS, GRADIENTS, LOSS, TRAJECTORY = 2e-5, 1e-4, 2e-5, 2e-5, 1e-3
BY_FLOW, BY_FLOW_TOLERANCE = re.compile(r"cross_attn_(attr|obj)\.(norm1|attn\.q|attn\.kv)\."), 5e-4
BRANCHES = {"comp": ("pair", "pooled"), "attr": ("attr", "attr"), "obj": ("obj", "obj")}
FLOWS = {
    "same_obj": ("obj", "same_obj"),
    "same_attr": ("attr", "same_attr"),
    "diff_attr": ("attr", "same_obj"),
    "diff_obj": ("obj", "same_attr"),
}


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.detach(), expected, atol=tolerance, rtol=0, check_dtype=False)


def learned(method: Any) -> dict[str, Tensor]:
    named = method.named_parameters()
    return {method.translation.to_author_key(name): value for name, value in named if value.requires_grad}


def tolerance(parameter: str) -> float:
    return BY_FLOW_TOLERANCE if BY_FLOW.match(parameter) else GRADIENTS


def test_words_start_from_their_vectors(ade: Any) -> None:
    method: Any = ade.load()
    method.load_word_vectors(ade.vector)
    for kind in ("attr", "obj"):
        close(getattr(method.prompt.words, kind), ade.arrays[f"init.{kind}_embedder.weight"], 1e-6)


@torch.no_grad()
def test_features_of_images(ade: Any) -> None:
    method: Any = ade.load()
    image = method.encode(ade.images)
    (tokens,) = image.layers
    close(tokens, ade.arrays["eval.tokens"], SCORES)
    found = method.aggregator(image)
    for branch, (name, features) in BRANCHES.items():
        block = getattr(method.aggregator, name)
        token, attention = block(tokens, tokens)
        close(token, ade.arrays[f"eval.cls.{branch}"], SCORES)
        close(attention[:, :, 0], ade.arrays[f"eval.attn_cls.{branch}"], SCORES)
        close(getattr(found, features), ade.arrays[f"eval.proj.{branch}"], SCORES)


@torch.no_grad()
@pytest.mark.parametrize("which", ["train", "closed", "open"])
def test_scores(ade: Any, which: str) -> None:
    for beta, suffix in ((1.0, ""), (0.0, "_aow0"), (0.5, "_aow0.5")):
        if (array := f"eval.{which}.scores{suffix}") in ade.arrays:
            method: Any = ade.load(aow=beta)
            text = method.text(ade.pairs(which))
            scores = method(ade.images, text)
            close(scores.pair, ade.arrays[array], SCORES)
            close(scores.attr, ade.arrays["eval.attr_cos"], SCORES)
            close(scores.obj, ade.arrays["eval.obj_cos"], SCORES)
            close(method.rank(ade.images, text), ade.arrays[array], SCORES)
    if which != "train":
        close(text.pair, ade.arrays[f"eval.{which}.concept"], SCORES)


@torch.no_grad()
@pytest.mark.parametrize("world", ["closed", "open"])
def test_test_images_have_a_weight_of_their_own_in_each_world(ade: Any, world: str) -> None:
    other = {"closed": "open", "open": "closed"}[world]
    method = ade.load(**{f"{world}_beta": 0.5, f"{other}_beta": 0.0})
    text = method.text(ade.pairs(world))
    for split, suffix in (("test", "_aow0.5"), ("val", "")):
        setting = czslkit.Setting(split, world, len(text.pairs))
        close(method.rank(ade.images, text, setting), ade.arrays[f"eval.{world}.scores{suffix}"], SCORES)


@torch.no_grad()
def test_features_of_images_may_be_given(ade: Any) -> None:
    with_encoder = ade.load()
    found = with_encoder.encode(ade.images)
    ade.json.pop("image_extractor")
    method = ade.load()
    given = ImageFeatures(found.pooled, found.layers)
    close(method(given, method.text(ade.pairs("closed"))).pair, ade.arrays["eval.closed.scores"], SCORES)


@torch.no_grad()
def test_logits_of_the_training(ade: Any) -> None:
    method: Any = ade.load().train()
    text = method.text(method.candidates)
    image, partner, _ = method.compare(ade.batch)
    scores, partner_scores = method.head.cosines(image, text), method.head.cosines(partner, text)
    found = {
        "comp": scores.pair,
        "attr": scores.attr,
        "obj": scores.obj,
        "attr_bar": partner_scores.attr,
        "obj_bar": partner_scores.obj,
    }
    for name, cosines in found.items():
        close(method.head.scale * cosines, ade.arrays[f"trainmode.logits.{name}"], LOGITS)


@torch.no_grad()
def test_transports_are_not_worse_than_those_of_the_program(ade: Any) -> None:
    method: Any = ade.load().train()
    batch = ade.batch
    (x,) = method.encode(batch.images).layers
    for row, (name, (branch, companion)) in enumerate(FLOWS.items()):
        block = getattr(method.aggregator, branch)
        (other,) = method.encode(batch.companions[companion].images).layers
        found, rows, columns = similarity(block.attend(x, other)[0], block.attend(other, x)[0])
        if f"trainmode.emd_similarity.{name}" in ade.arrays:
            close(found, ade.arrays[f"trainmode.emd_similarity.{name}"], SCORES)
        close(rows, ade.arrays[f"trainmode.emd_weights_rows.{name}"], SCORES)
        close(columns, ade.arrays[f"trainmode.emd_weights_cols.{name}"], SCORES)
        flow = transport(1 - found, rows, columns)
        close(flow.sum(2), rows.float(), 1e-5)
        close(flow.sum(1), columns.float(), 1e-5)
        close((flow * found).sum((1, 2)), ade.arrays["trainmode.emd_scores"][row], SCORES)


def test_gradients(ade: Any) -> None:
    method = ade.load().train()
    loss: Any = method.loss(ade.batch, ade.pairs("train"))
    assert loss.item() == pytest.approx(ade.json["loss"]["train"]["total"], abs=LOSS)
    loss.backward()
    gradients = {name: value.grad for name, value in learned(method).items()}
    for array in (key for key in ade.arrays if key.startswith("trainmode.grad.")):
        parameter = array.removeprefix("trainmode.grad.")
        close(gradients[parameter], ade.arrays[array], tolerance(parameter))
    norms = ade.json["grad_norms"]["train"]
    assert gradients.keys() == norms.keys()
    for parameter, expected in norms.items():
        close_by = {"abs": 10 * tolerance(parameter), "rel": 2e-5}
        assert gradients[parameter].norm().item() == pytest.approx(expected["l2"], **close_by), parameter


def test_dropout_is_where_the_program_has_it(ade: Any) -> None:
    """Dropout is replaced by its mean factor, as in the recorded run."""
    method = ade.load().train()
    for module in method.modules():
        if isinstance(module, nn.Dropout) and ade.dropout_of(module):
            module.register_forward_hook(lambda module, inputs, output: 0.5 * output)
    loss: Any = method.loss(ade.batch, ade.pairs("train"))
    assert loss.item() == pytest.approx(ade.json["loss"]["train_scaled_dropout"]["total"], abs=LOSS)


@pytest.mark.parametrize("name", ["adam_repo", "adam_lr1e-3"])
def test_trajectories_of_the_optimiser(ade: Any, name: str) -> None:
    recorded = ade.json["trajectories"][name]
    method: Any = ade.load().train()
    parameters = learned(method)
    optimizer = torch.optim.Adam(parameters.values(), lr=recorded["lr"], weight_decay=recorded["weight_decay"])
    for step, expected in enumerate(recorded["losses"]):
        loss = method.loss(ade.batch, ade.pairs("train"))
        assert loss.item() == pytest.approx(expected, abs=TRAJECTORY), step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for parameter, value in parameters.items():
        if (array := f"traj.{name}.final.{parameter}") in ade.arrays and not BY_FLOW.match(parameter):
            close(value, ade.arrays[array], 10 * ade.json["arrays"][array]["fp64_maxabsdiff"] + 2e-5)


def test_a_model_of_the_open_world_is_trained_with_every_pair(ade: Any) -> None:
    method: Any = ade.load(open_world=True)
    assert torch.equal(method.candidates, ade.pairs("open"))


def test_companions_share_one_word_and_differ_in_the_other() -> None:
    attr, obj = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 0, 0, 2])
    everyone, generator = torch.arange(6), torch.Generator().manual_seed(0)
    drawn = torch.stack([partners(attr, obj, everyone, generator) for _ in range(400)])
    found = [set(column.tolist()) for column in drawn.T]
    assert found == [{1, 2}, {0}, {0}, {3, 4}, {3, 4}, {5}]  # the last two attributes have one object each
    assert (drawn[:, 0] == 1).float().mean().item() == pytest.approx(0.5, abs=0.1)
    subset = partners(obj, attr, torch.tensor([4, 0]), generator)
    assert subset[0] == 0 and subset[1] in (3, 4)
