"""GIPCOL computes the function of its authors' program, as recorded runs of the program show.

Dropout is off unless a name says otherwise. A trajectory has five steps of Adam with two groups of parameters.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import czslkit
from czslkit.backbones.openai_format import from_openai
from czslkit.errors import ConfigError, DataError
from czslkit.graphs import node_inputs
from czslkit.method import METHODS, construct
from czslkit.training.optimizers import make_optimizers
from czslkit.training.options import TrainOptions

SCORES, LOGITS, GRADIENTS, LOSS, TRAJECTORY = 2e-5, 1e-4, 2e-5, 2e-5, 3e-4


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.detach(), expected, atol=tolerance, rtol=0)


def learned(method: Any) -> dict[str, Tensor]:
    """Return the trainable parameters by the names of the authors."""
    named = method.named_parameters()
    return {method.translation.to_author_key(name): value for name, value in named if value.requires_grad}


def authors_file(case: Any) -> dict[str, Any]:
    """Return the four parts of the file that the authors' program writes, without CLIP."""
    state = case.weights({key: shape for key, shape in case.json["shapes"].items() if "clip_model" not in key})
    network = {key.removeprefix("graph_model."): value for key, value in state.items() if key.startswith("graph_")}
    shapes = case.json["authors_checkpoint"]
    rest = {key: torch.zeros(shapes[key]) for key in ("soft_embed", "embedding")}
    return {"soft_prompt": state["soft_prompt_embeddings"], **rest, "gcn": network}


@torch.no_grad()
def test_a_new_method_starts_as_the_recorded_one(gipcol: Any) -> None:
    backbone = from_openai(gipcol.clip)
    options = dataclasses.replace(METHODS["gipcol"].Options(context_length=10), backbone=backbone)
    method: Any = construct(METHODS["gipcol"], options, gipcol.space, where="gipcol")
    close(method.prompt.context[0], gipcol.arrays["init.soft_prompt_embeddings"], 1e-6)
    close(method.prompt.words, gipcol.arrays["init.soft_element_embeddings"], 1e-6)
    for world in ("closed", "open"):
        found = node_inputs(method.prompt.words, len(gipcol.space.attrs), gipcol.pairs(world))
        close(found, gipcol.arrays[f"init.embeddings_{world}"], 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("world", ["closed", "open"])
def test_graphs_and_words(gipcol: Any, world: str) -> None:
    method = gipcol.load()
    graph, pairs = method.prompt.graphs.of(world)
    assert torch.equal(pairs, gipcol.pairs(world))
    nodes = len(gipcol.arrays[f"init.adj_{world}"])
    close(graph(torch.eye(nodes)), gipcol.arrays[f"init.adj_{world}"], 6e-8)
    close(method.prompt.elements(world), gipcol.arrays[f"eval.nodes_{world}"], 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("which", ["train", "closed", "open"])
def test_logits(gipcol: Any, which: str) -> None:
    method = gipcol.load()
    text = method.text(gipcol.pairs(which))
    close(method(gipcol.images, text).pair, gipcol.arrays[f"eval.logits_{which}"], SCORES)
    close(method.encode(gipcol.images).pooled, gipcol.arrays["eval.image_feat"], SCORES)
    if which != "train":
        close(normalize(text.pair, dim=1), gipcol.arrays[f"eval.text_{which}"], SCORES)
        in_world = method.text_in(which, gipcol.pairs(which))
        assert torch.equal(in_world.pair, text.pair)


@torch.no_grad()
def test_a_pair_of_the_closed_world_has_another_text_in_the_open_world(gipcol: Any) -> None:
    method, pairs = gipcol.load(), gipcol.pairs("closed")
    closed, opened = (method(gipcol.images, method.text_in(world, pairs)).pair for world in ("closed", "open"))
    recorded = gipcol.json["closed_pairs_open_graph_minus_closed_graph_maxabs"]
    assert (opened - closed).abs().max().item() == pytest.approx(recorded, abs=SCORES)


@torch.no_grad()
def test_thresholds_multiply_the_scores_of_the_open_world(gipcol: Any) -> None:
    method = gipcol.load()
    scores = method.rank(gipcol.images, method.text(gipcol.pairs("open")))
    seen, thresholds = gipcol.space.open().seen, [key for key in gipcol.arrays if "open_thresholded" in key]
    for key in thresholds:
        feasible = gipcol.feasibility >= float(key.removeprefix("eval.open_thresholded."))
        close(scores * (feasible.float() + seen.float()), gipcol.arrays[key], 2 * SCORES)
    assert thresholds


@torch.no_grad()
def test_the_file_of_the_authors_gives_the_same_logits(gipcol: Any, tmp_path: Path) -> None:
    torch.save(authors_file(gipcol), tmp_path / "epoch_9.pt")
    torch.save(gipcol.feasibility, tmp_path / "feasibility.pt")
    config = {**gipcol.json["config"], "feasibility": str(tmp_path / "feasibility.pt")}
    config |= {key.removeprefix("graph_"): config.pop(key) for key in ("graph_gr_emb", "graph_gcn_type")}
    method = czslkit.load_original("gipcol", tmp_path / "epoch_9.pt", gipcol.space, config, gipcol.clip)
    for which in ("closed", "open"):
        found = method(gipcol.images, method.text(gipcol.pairs(which))).pair
        close(found, gipcol.arrays[f"eval.logits_{which}"], SCORES)


def test_training_logits_and_gradients(gipcol: Any) -> None:
    method = gipcol.load().train()
    pairs = gipcol.pairs("train")
    close(method(gipcol.images, method.text(pairs)).pair, gipcol.arrays["trainmode.logits_train"], LOGITS)
    loss = method.loss(gipcol.batch, pairs)
    assert loss.item() == pytest.approx(gipcol.json["loss"]["train"]["total"], abs=LOSS)
    loss.backward()
    gradients = {name: value.grad for name, value in learned(method).items()}
    assert sorted(gradients) == sorted(gipcol.json["trained"])
    for name, expected in gipcol.json["grad_norms"]["train"].items():
        assert gradients[name].norm().item() == pytest.approx(expected["l2"], abs=GRADIENTS, rel=2e-5)
        assert gradients[name].abs().max().item() == pytest.approx(expected["max"], abs=GRADIENTS)
        if (array := f"trainmode.grad.{name}") in gipcol.arrays:
            close(gradients[name], gipcol.arrays[array], GRADIENTS)
    assert {f"trainmode.grad.{name}" for name in gradients} >= {key for key in gipcol.arrays if ".grad." in key}


def test_dropout_is_where_the_program_has_it(gipcol: Any) -> None:
    """Dropout is replaced by its mean factor, as in the recorded run."""
    method = gipcol.load().train()
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            kept = 1 - gipcol.dropout_of(module)
            module.register_forward_hook(lambda module, inputs, output, kept=kept: kept * output)
    pairs = gipcol.pairs("train")
    close(method(gipcol.images, method.text(pairs)).pair, gipcol.arrays["scaled_dropout.logits_train"], LOGITS)
    loss = method.loss(gipcol.batch, pairs)
    assert loss.item() == pytest.approx(gipcol.json["loss"]["train_scaled_dropout"]["total"], abs=LOSS)


def test_trajectories_of_the_optimiser(gipcol: Any) -> None:
    for name, recorded in gipcol.json["trajectories"].items():
        rates, decays = recorded["lr"], recorded["weight_decay"]
        config = {"lr": rates[0], "graph_lr": rates[1], "graph_weight_decay": decays[1]}
        method = gipcol.load(**config).train()
        parameters = learned(method)
        start = {parameter: value.detach().clone() for parameter, value in parameters.items()}
        options = TrainOptions(optimizer="adam", lr=rates[0], weight_decay=decays[0])
        (optimizer,) = make_optimizers(method, options)
        assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == list(
            zip(map(pytest.approx, rates), decays, strict=True)
        )
        losses = []
        for _ in range(6):
            loss = method.loss(gipcol.batch, gipcol.pairs("train"))
            losses.append(loss.item())
            if len(losses) < 6:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        assert losses == pytest.approx([*recorded["losses"], recorded["final_loss"]], abs=TRAJECTORY), name
        for parameter, value in parameters.items():
            if (array := f"traj.{name}.final.{parameter}") in gipcol.arrays:
                tolerance = 10 * gipcol.json["arrays"][array]["fp64_maxabsdiff"] + 2e-5
                close(value, gipcol.arrays[array], tolerance)
            moved = recorded["delta_l2"][parameter]
            assert (value - start[parameter]).norm().item() == pytest.approx(moved, rel=2e-2), parameter


def test_without_feasibility_unseen_pairs_have_no_weight_and_a_line_says_so(
    gipcol: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    state = gipcol.weights(gipcol.json["shapes"])
    method: Any = czslkit.load_original("gipcol", state, gipcol.space, gipcol.json["config"])
    assert "gipcol: feasibility is not given; unseen pairs have the weight 0" in capsys.readouterr().err
    assert torch.equal(method.prompt.graphs.weights, gipcol.space.open().seen.float())
    method.load_feasibility(gipcol.feasibility)
    with torch.no_grad():
        found = method(gipcol.images, method.text(gipcol.pairs("open"))).pair
    close(found, gipcol.arrays["eval.logits_open"], SCORES)


@pytest.mark.parametrize("values", [[0.5], [0.5] * 19 + [2.0]])
def test_a_feasibility_that_does_not_fit_is_refused(gipcol: Any, values: list[float]) -> None:
    expected = "holds float32 .1., expected floats .20." if len(values) == 1 else r"number 19 \(old car\) is 2"
    with pytest.raises(ConfigError, match=f"feasibility:? {expected}"):
        gipcol.load(feasibility=values)


def test_a_file_of_feasibility_that_cannot_be_read_is_refused(gipcol: Any, tmp_path: Path) -> None:
    (tmp_path / "feasibility.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"feasibility\.npy is refused"):
        gipcol.load(feasibility=str(tmp_path / "feasibility.npy"))


def test_a_converted_file_keeps_the_feasibility(gipcol: Any, tmp_path: Path) -> None:
    torch.save(gipcol.weights(gipcol.json["shapes"]), tmp_path / "whole.pt")
    config = {**gipcol.json["config"], "feasibility": gipcol.json["feasibility"]}
    (tmp_path / "config.yml").write_text(json.dumps(config))
    folder = tmp_path / "converted"
    czslkit.convert("gipcol", tmp_path / "whole.pt", gipcol.space, folder, tmp_path / "config.yml")
    method = czslkit.load(folder)
    with torch.no_grad():
        found = method(gipcol.images, method.text(gipcol.pairs("open"))).pair
    close(found, gipcol.arrays["eval.logits_open"], SCORES)
