"""CompCos, CGE and Co-CGE compute the functions of their authors' programs, as recorded runs of the programs show.

Most recorded runs read features of images. A trajectory has five steps of Adam; where its name says epochs, margins and
graphs are updated after each of them. Dropout is off unless a name says otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import czslkit
from czslkit.errors import ConfigError
from czslkit.graphs import node_inputs
from czslkit.method import METHODS
from czslkit.training_hooks import TrainingPosition

SCORES, LOGITS, GRADIENTS, LOSS, TRAJECTORY = 2e-5, 1e-4, 2e-5, 2e-5, 3e-4


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.detach(), expected, atol=tolerance, rtol=0)


def learned(method: Any) -> dict[str, Tensor]:
    """Return the trainable parameters by the names of the authors."""
    named = method.named_parameters()
    return {method.translation.to_author_key(name): value for name, value in named if value.requires_grad}


def end_epochs(method: Any, *epochs: int) -> None:
    for epoch in epochs:
        method.after_epoch(TrainingPosition(epoch, 100, 1, 1))


def in_state(case: Any, name: str) -> Any:
    """Return the method in training mode with the margins and the graph of a recorded state.

    CompCos sets its margins by the last epoch alone; the graph of Co-CGE depends on all updates before.
    """
    method = case.load().train()
    if found := re.search(r"epoch(\d+)$", name):
        end_epochs(method, int(found[1]) - 1)
    elif found := re.search(r"update(\d+)$", name):
        end_epochs(method, *range(int(found[1])))
    return method


def states(case: Any) -> Iterator[tuple[str, Any]]:
    """Return the name of every state with recorded training logits, and the method in it."""
    for name in sorted({match[1] for key in case.arrays if (match := re.fullmatch(r"trainmode\.logits(.*)", key))}):
        yield name, in_state(case, name)


def training_pairs(case: Any) -> Tensor:
    return case.pairs("train" if case.json["config"]["train_only"] else "open")


def training_logits(method: Any, case: Any) -> Tensor:
    pairs = training_pairs(case)
    text = method.text_in("closed" if case.json["config"]["train_only"] else "open", pairs)
    scores = method(case.images, text)
    return method.head.logits(scores, pairs) if hasattr(method.head, "logits") else scores.pair


def test_every_method_with_vectors_of_words_has_a_recorded_run(classical_cases: list[Any]) -> None:
    found = {name for name in METHODS if hasattr(METHODS[name], "load_word_vectors") and METHODS[name].translation}
    assert {case.method for case in classical_cases} | {"ade"} == found  # ade is in test_ade.py


def test_words_start_from_their_vectors(classical: Any) -> None:
    method = classical.load()
    method.load_word_vectors(classical.vector)
    words = method.prompt.words
    if classical.method == "compcos":
        for kind in ("attr", "obj"):
            close(getattr(words, kind), classical.arrays[f"init.{kind}_embedder.weight"], 1e-6)
    else:
        found = node_inputs(words.all, len(words.attr), classical.pairs("closed"))
        close(found, classical.arrays["init.node_embeddings"], 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("which", ["train", "closed", "open"])
def test_scores_and_features(classical: Any, which: str) -> None:
    method = classical.load()
    text, image = method.text(classical.pairs(which)), classical.images
    image = method.encode(image) if isinstance(image, Tensor) else image
    close(text.pair, classical.arrays[f"eval.{which}.pair_embed"], SCORES)
    close(method(image, text).pair, classical.arrays[f"eval.{which}.scores"], SCORES)
    close(method.aggregator(image).pooled, classical.arrays["eval.img_embed"], SCORES)


@torch.no_grad()
def test_feasibility_comes_from_the_trained_words(classical: Any) -> None:
    method, arrays = classical.load(), classical.arrays
    if "eval.feasibility_returned" in arrays:
        close(method.feasibility(), arrays["eval.feasibility_returned"], SCORES)
    for key in [key for key in arrays if re.fullmatch(r"eval\.feasibility_after_update\d", key)]:
        trained = in_state(classical, key)
        close(trained.prompt.weights, arrays[key], SCORES)
        close(trained.head.margins, arrays[key.replace("eval.feasibility", "train.margins")], SCORES)
        found = trained.eval()(classical.images, trained.text(classical.pairs("open"))).pair
        close(found, arrays[key.replace("eval.feasibility", "eval.open.scores")], SCORES)


@torch.no_grad()
def test_the_test_program_of_cocge_builds_its_graph_anew(classical: Any) -> None:
    if "eval.open.scores_test_program" not in classical.arrays:
        return
    trained = in_state(classical, "update3").eval()
    text = trained.text_in("open", classical.pairs("open"))
    close(trained(classical.images, text).pair, classical.arrays["eval.open.scores_test_program"], SCORES)
    close(trained.prompt.weights, classical.arrays["eval.feasibility_after_update3"], SCORES)


@torch.no_grad()
def test_a_graph_that_the_program_builds_differs_from_its_file(classical: Any) -> None:
    if "eval.closed_constructed_graph.scores" in classical.arrays:
        found = classical.load(pair_self_loops=True)
        scores = found(classical.images, found.text(classical.pairs("closed"))).pair
        close(scores, classical.arrays["eval.closed_constructed_graph.scores"], SCORES)


def test_training_logits_margins_and_gradients(classical: Any) -> None:
    compared = []
    for name, method in states(classical):
        close(training_logits(method, classical), classical.arrays[f"trainmode.logits{name}"], LOGITS)
        if f"train.margin{name}" in classical.arrays:
            close(method.head.margins, classical.arrays[f"train.margin{name}"], SCORES)
        method = in_state(classical, name)  # batch normalisation has moved
        loss = method.loss(classical.batch, classical.pairs("train"))
        assert loss.item() == pytest.approx(classical.json["loss"][f"train{name}"]["total"], abs=LOSS)
        loss.backward()
        for parameter, value in learned(method).items():
            if (array := f"trainmode.grad{name}.{parameter}") in classical.arrays:
                close(value.grad, classical.arrays[array], GRADIENTS)
                compared.append(array)
    assert sorted(compared) == sorted(key for key in classical.arrays if key.startswith("trainmode.grad"))


def test_norms_of_gradients(classical: Any) -> None:
    loss = classical.json["loss"]["train"]["total"]
    name = next(name for name, part in classical.json["loss"].items() if part["total"] == loss)
    method = in_state(classical, name)
    method.loss(classical.batch, classical.pairs("train")).backward()
    gradients = {name: value.grad for name, value in learned(method).items() if value.grad is not None}
    norms = classical.json["grad_norms"]["train"]
    assert gradients.keys() == norms.keys()
    for parameter, expected in norms.items():
        assert gradients[parameter].norm().item() == pytest.approx(expected["l2"], abs=2e-5, rel=2e-5)
        assert gradients[parameter].abs().max().item() == pytest.approx(expected["max"], abs=GRADIENTS)


def test_dropout_is_where_the_program_has_it(classical: Any) -> None:
    """Dropout is replaced by its mean factor, as in the recorded run."""
    for name, part in classical.json["loss"].items():
        if not name.endswith("_scaled_dropout"):
            continue
        state = name.removesuffix("_scaled_dropout")
        method = in_state(classical, state)
        for module in method.modules():
            if isinstance(module, nn.Dropout) and classical.dropout_of(module):
                module.register_forward_hook(lambda module, inputs, output: 0.5 * output)
        loss = method.loss(classical.batch, classical.pairs("train"))
        assert loss.item() == pytest.approx(part["total"], abs=LOSS)


def optimizer_of(method: Any, recorded: dict[str, Any]) -> torch.optim.Optimizer:
    groups = [group["params"] for group in method.parameter_groups()]
    rates, decays = (
        value if isinstance(value, list) else [value] for value in (recorded["lr"], recorded["weight_decay"])
    )
    pairs = zip(groups, rates, decays, strict=True)
    return torch.optim.Adam([{"params": params, "lr": lr, "weight_decay": decay} for params, lr, decay in pairs])


def test_trajectories_of_the_optimiser(classical: Any) -> None:
    for name, recorded in classical.json["trajectories"].items():
        method = in_state(classical, name)
        parameters = learned(method)
        start = {parameter: value.detach().clone() for parameter, value in parameters.items()}
        optimizer = optimizer_of(method, recorded)
        for step, expected in enumerate(recorded["losses"]):
            loss = method.loss(classical.batch, classical.pairs("train"))
            assert loss.item() == pytest.approx(expected, abs=TRAJECTORY), (name, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if "epochs" in name:
                end_epochs(method, step)
                close(method.head.margins, classical.arrays[f"traj.{name}.margins"][step], 10 * SCORES)
        for parameter, value in parameters.items():
            moved = recorded["delta_l2"].get(parameter, 0)
            if parameter not in classical.json.get("zero_gradient_elements", {}) and moved:
                assert (value - start[parameter]).norm().item() == pytest.approx(moved, rel=1e-2), parameter
            if (array := f"traj.{name}.final.{parameter}") in classical.arrays:
                tolerance = 10 * classical.json["arrays"][array]["fp64_maxabsdiff"] + 2e-5
                close(value, classical.arrays[array], tolerance)


def test_a_converted_checkpoint_keeps_encoder_and_words(classical_cases: list[Any], tmp_path: Path) -> None:
    case = next(case for case in classical_cases if case.name == "cge_resnet")
    method = case.load()
    torch.save(case.checkpoint, tmp_path / "ckpt.t7")
    (tmp_path / "config.yml").write_text(json.dumps(case.json["config"]))
    files = tmp_path / "ckpt.t7", case.space, tmp_path / "folder", tmp_path / "config.yml"
    with pytest.raises(ConfigError, match=r"cge: the folder has to name the image encoder: give backbone=, such as"):
        czslkit.convert("cge", *files, word_vectors=case.vector, log=str)
    czslkit.convert("cge", *files, "timm/resnet18/random", word_vectors=case.vector, log=str)
    found = czslkit.load(tmp_path / "folder")
    pairs = case.pairs("open")
    close(found(case.images, found.text(pairs)).pair, method(case.images, method.text(pairs)).pair, 1e-6)
