"""CAILA computes the function of its authors' program, as recorded runs of the program show.

Dropout is off unless a name says otherwise. In a run with a concept shift, the first six images are the batch, and the
other ones are the partners of its images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import czslkit
from czslkit.backbones.adapters import adapter_mode
from czslkit.errors import ConfigError
from czslkit.types import Batch, PairSpace
from czslkit_plugins.caila_prompts import joined

from .conftest import weight

FEATURES, SCORES, LOGITS, GRADIENTS, LOSS, TRAJECTORY = 2e-5, 2e-6, 1e-4, 2e-5, 2e-5, 3e-4
RECORDED = sorted((Path(__file__).parent / "caila").glob("*.json"))
TABLE = "clip_model.text_model.embeddings.token_embedding.weight"


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found.detach(), expected, atol=tolerance, rtol=0)


class Case:
    """One recorded run."""

    def __init__(self, path: Path) -> None:
        self.json: dict[str, Any] = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz")) as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays}
        pairs, seen = self.pairs("closed"), set(map(tuple, self.json["pairs"]["train"]))
        is_seen = torch.tensor([tuple(pair) in seen for pair in pairs.tolist()])
        self.space = PairSpace(self.json["attributes"], self.json["objects"], pairs, is_seen)
        draw = np.random.RandomState(self.json["case_seed"]).standard_normal((12, 3, 32, 32))
        self.images = torch.from_numpy(draw.astype(np.float32))

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The checkpoint, with the authors' tensor names."""
        return {key: weight(key, shape, self.json["case_seed"]) for key, shape in self.json["shapes"].items()}

    def pairs(self, which: str) -> Tensor:
        return torch.tensor(self.json["pairs"][which])

    def batch(self, *, shift: bool) -> Batch:
        labels = {name: torch.tensor(self.json["labels"][name]) for name in ("attr", "obj")}
        partners = {}
        for concept in ("attr", "obj"):
            rows = torch.tensor([row["image"] for row in self.json["shift"] if row["kind"] == concept])
            new = torch.tensor([row[concept] for row in self.json["shift"] if row["kind"] == concept])
            samples = [row["sample"] for row in self.json["shift"] if row["kind"] == concept]
            other = torch.zeros_like(new)  # the other label of a partner has no effect
            attr, obj = (new, other) if concept == "attr" else (other, new)
            partners[concept] = Batch(self.images[samples], attr, obj, rows=rows)
        return Batch(self.images[:6], labels["attr"], labels["obj"], companions=partners if shift else {})

    def load(self, *, dropout: bool = False, **config: Any) -> Any:
        method = czslkit.load_original(
            "caila",
            {"net": self.state, "epoch": 3, "AUC": 0.2},
            self.space,
            {**self.json["config"], **config},
            log=lambda _: None,
        )
        method.head.dropout.p *= dropout
        return method


@cache
def recorded(path: Path) -> Case:
    return Case(path)


@pytest.fixture(params=RECORDED, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest) -> Case:
    """Return every recorded run in turn."""
    return recorded(request.param)


def learned(method: Any, case: Case) -> dict[str, Tensor]:
    """Return the trainable parameters by the names of the authors, those of CLIP by their names in transformers."""
    found = {}
    for name, value in method.named_parameters():
        if value.requires_grad:
            name = method.translation.to_author_key(name).replace("backbone.clip.", "")
            for pattern, substitute in {
                r"^(visual|text)\.?(?:_projection|\.?proj)$": r"clip_model.\1_projection.weight",
                r"^logit_scale$": "clip_model.logit_scale",
                r"^token_embedding\.weight$": TABLE,
                r"^ln_final": "clip_model.text_model.final_layer_norm",
                r"^visual\.ln_pre": "clip_model.vision_model.pre_layrnorm",
                r"^visual\.ln_post": "clip_model.vision_model.post_layernorm",
                r"^visual\.transformer\.resblocks": "clip_model.vision_model.encoder.layers",
                r"^transformer\.resblocks": "clip_model.text_model.encoder.layers",
                r"\.ln_([12])\.": r".layer_norm\1.",
            }.items():
                name = re.sub(pattern, substitute, name)
            found[name] = value
    assert sorted(found) == sorted(case.json["trained"])
    return found


def as_recorded(name: str, value: Tensor, case: Case) -> tuple[str, Tensor]:
    """Return the name and the value of what was recorded of a tensor: some rows of the token table, else all."""
    if name == TABLE:
        return f"{name}[token_rows]", value[case.json["token_rows"]]
    return name, value.T if name.endswith("_projection.weight") else value


@torch.no_grad()
def test_image_features_of_every_pass(case: Case) -> None:
    method = case.load()
    image = method.encode_views(dict.fromkeys(("attr", "obj"), case.images[:6]), concepts=True)
    for name, found in {"attr": image.attr, "obj": image.obj, "mixture": image.pooled}.items():
        close(found, case.arrays[f"eval.image.{name}"], FEATURES)
    close(method.encode(case.images[:6]).pooled, image.pooled, 1e-6)
    assert method.encode(case.images[:6]).attr is None
    for concept in ("attr", "obj"):
        if f"eval.fork.{concept}" in case.arrays:
            with adapter_mode(concept):
                tokens = method.backbone.run_image_blocks(method.backbone.embed_image(case.images[:6]), method.lower)
            close(tokens, case.arrays[f"eval.fork.{concept}"], FEATURES)


@torch.no_grad()
def test_text_features(case: Case) -> None:
    method = case.load()
    prompt, backbone = method.prompt, method.backbone
    for which in ("closed", "open"):
        pairs = case.pairs(which)
        text = method.text(pairs)
        close(text.attr, case.arrays["eval.text.attr"], FEATURES)
        close(text.obj, case.arrays["eval.text.obj"], FEATURES)
        pair = prompt.encode(backbone, "pair", *joined(prompt.attrs, prompt.objs, *pairs.T))
        close(pair, case.arrays[f"eval.text.pair_{which}"], FEATURES)
        close(text.pair, (pair + text.attr[pairs[:, 0]] + text.obj[pairs[:, 1]]) / 3, 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("which", ["closed", "open"])
def test_scores_and_ranking_are_plain_cosines(case: Case, which: str) -> None:
    method = case.load()
    text = method.text(case.pairs(which))
    scores = method(case.images[:6], text)
    assert scores.attr is None and scores.obj is None
    close(scores.pair, case.arrays[f"eval.scores_{which}"], SCORES)
    close(method.rank(case.images[:6], text), case.arrays[f"eval.scores_{which}"], SCORES)


def runs(case: Case) -> Iterator[tuple[str, str, Batch]]:
    yield "trainmode", "train", case.batch(shift=False)
    yield "trainmode_shift", "train_shift", case.batch(shift=True)


def test_training_logits_losses_and_gradients(case: Case) -> None:
    compared = set()
    for start, name, batch in runs(case):
        method = case.load().train()
        pairs = case.pairs("train")
        shifted, views = method.shifted(batch, pairs)
        logits = method.head(method.encode_views(views, concepts=True), method.text(pairs))
        for branch in ("pair", "attr", "obj"):
            close(getattr(logits, branch), case.arrays[f"{start}.logits_train.{branch}"], LOGITS)
        if name == "train_shift":
            assert [shifted.attr.tolist(), shifted.obj.tolist()] == [
                case.json["shift_targets"][k] for k in ("attr", "obj")
            ]
        else:
            direct = method(case.images[:6], method.text(pairs))
            close(direct.pair, logits.pair, 1e-6)
            close(direct.attr, logits.attr, 1e-6)
        loss = method.loss(batch, pairs)
        assert loss.item() == pytest.approx(case.json["loss"][name]["total"], abs=LOSS)
        loss.backward()
        for parameter, value in learned(method, case).items():
            norms = case.json["grad_norms"][name][parameter]
            assert value.grad.norm().item() == pytest.approx(norms["l2"], abs=2e-5, rel=2e-5)
            assert value.grad.abs().max().item() == pytest.approx(norms["max"], abs=GRADIENTS)
            key, gradient = as_recorded(parameter, value.grad, case)
            if name == "train" and (array := f"trainmode.grad.{key}") in case.arrays:
                close(gradient, case.arrays[array], GRADIENTS)
                compared.add(array)
    assert compared == {key for key in case.arrays if key.startswith("trainmode.grad.")}


def test_the_start_of_the_prompts_gives_no_gradient_to_the_token_table(case: Case) -> None:
    method = case.load().train()
    method.loss(case.batch(shift=False), case.pairs("train")).backward()
    gradient = learned(method, case)[TABLE].grad
    start = case.json["token_ids"]["pair"][0][:5]
    assert not gradient[start].any()
    used = set(gradient.any(1).nonzero()[:, 0].tolist())
    words = {token for ids in case.json["token_ids"].values() for row in ids for token in row} - set(start)
    assert used <= words


@torch.no_grad()
def test_dropout_is_on_the_normalised_feature_of_pairs_alone(case: Case) -> None:
    method = case.load(dropout=True).train()
    assert method.head.dropout.p == case.json["config"]["img_dropout"]
    assert [module for module in method.modules() if isinstance(module, nn.Dropout)] == [method.head.dropout]
    keep = 1 - method.head.dropout.p
    method.head.dropout.register_forward_hook(lambda module, inputs, output: keep * inputs[0])
    scores = method(case.images[:6], method.text(case.pairs("train")))
    close(scores.pair, case.arrays["scaled_dropout.logits_train.pair"], LOGITS)
    loss = method.loss(case.batch(shift=False), case.pairs("train"))
    assert loss.item() == pytest.approx(case.json["loss"]["train_scaled_dropout"]["total"], abs=LOSS)


def test_trajectories_of_the_optimiser(case: Case) -> None:
    for name, recorded in case.json["trajectories"].items():
        method = case.load().train()
        batch, pairs = case.batch(shift="shift" in name), case.pairs("train")
        parameters = learned(method, case)
        start = {parameter: value.detach().clone() for parameter, value in parameters.items()}
        (group,) = method.parameter_groups()
        optimizer = torch.optim.Adam(group["params"], lr=recorded["lr"], weight_decay=recorded["weight_decay"])
        for step, expected in enumerate(recorded["losses"]):
            loss = method.loss(batch, pairs)
            assert loss.item() == pytest.approx(expected, abs=TRAJECTORY), (name, step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for parameter, value in parameters.items():
            moved = (value - start[parameter]).norm().item()
            assert moved == pytest.approx(recorded["delta_l2"][parameter], rel=1e-2), parameter
            key, final = as_recorded(parameter, value, case)
            if (array := f"traj.{name}.final.{key}") in case.arrays:
                close(final, case.arrays[array], 10 * case.json["arrays"][array]["fp64_maxabsdiff"] + 2e-5)


def test_scales_and_adapters_start_as_in_the_program(case: Case) -> None:
    """The recorded scales are those beside a CLIP whose logit scale is 1 / 0.07."""
    method = czslkit.build("caila", case.space, backbone="demo")
    added = method.head.attr_scale - method.backbone.scale
    recorded = case.arrays["init.attr_logit_scale"] - torch.tensor(1 / 0.07).log()
    close(added, recorded, 1e-5)
    close(method.head.obj_scale, method.head.attr_scale.detach(), 0)
    for adapters in (method.backbone.adapters, method.backbone.text_adapters):
        for layer in (module for module in adapters.modules() if isinstance(module, nn.Linear)):
            assert not layer.bias.any()
            assert 0.9 < layer.weight.abs().max() * layer.in_features**0.5 <= 1


def test_tensors_of_clip_are_missing_by_their_names_in_the_format_of_openai() -> None:
    case = recorded(RECORDED[0])
    state = {key: value for key, value in case.state.items() if "visual_projection" not in key}
    state |= {"clip_model.text_model.encoder.layers.0.adapter1.pair.up_sampler.bias": torch.zeros(3)}
    state |= {"clip_model.vision_model.embeddings.position_ids": torch.arange(17)}
    with pytest.raises(ConfigError) as error:
        czslkit.load_original("caila", state, case.space, case.json["config"])
    assert str(error.value).split("\n") == [
        "caila: these tensors of the checkpoint do not fit:",
        "clip_model.text_model.encoder.layers.0.adapter1.pair.up_sampler.bias is [3], expected [64]",
        "CLIP, in OpenAI's names: visual.proj is missing",
    ]


def test_a_setting_that_was_never_published_is_refused() -> None:
    case = recorded(RECORDED[0])
    with pytest.raises(ConfigError, match="caila: combine_latent is False, expected True for this method"):
        case.load(combine_latent=False)


@torch.no_grad()
def test_a_converted_checkpoint_has_the_same_scores(tmp_path: Path) -> None:
    case = recorded(RECORDED[0])
    torch.save({"net": case.state, "epoch": 3, "AUC": 0.2}, tmp_path / "ckpt_best_auc.t7")
    czslkit.convert("caila", tmp_path / "ckpt_best_auc.t7", case.space, tmp_path / "converted", log=lambda _: None)
    method = czslkit.load(tmp_path / "converted")
    close(method(case.images[:6], method.text(case.pairs("open"))).pair, case.arrays["eval.scores_open"], SCORES)
