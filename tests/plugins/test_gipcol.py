"""GIPCOL: the words of its prompt come from a graph network, and the graph of the open world from a feasibility."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import czslkit
from czslkit.data.fixed_features import has_fixed_features
from czslkit.data.make.mini import write_mini
from czslkit.data.splits import Splits
from czslkit.evaluation.feasibility_source import clip_feasibility
from czslkit.recompute import Recomputation, recompute
from czslkit.types import Batch, PairSpace

SMALL = {"graph_layers": "d16,d"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    root = tmp_path_factory.mktemp("data")
    write_mini("ut-zappos", root)
    return czslkit.load_dataset("ut-zappos", root)


def built(space: PairSpace, clip_file: Path, **options: Any) -> Any:
    return czslkit.build("gipcol", space, backbone=str(clip_file), **{**SMALL, **options})


def test_only_context_and_graph_network_are_trained(space: PairSpace, clip_file: Path) -> None:
    method = built(space, clip_file)
    trained = {name for name, p in method.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"context", "network"}
    assert {name.split(".")[0] for name in trained} == {"prompt"}
    assert has_fixed_features(method)


def test_the_graph_network_has_a_rate_and_a_decay_of_its_own(space: PairSpace, clip_file: Path) -> None:
    context, network = built(space, clip_file, graph_lr_scale=0.1, graph_weight_decay=0.5).parameter_groups()
    assert [p.shape for p in context["params"]] == [torch.Size([3, 64])]
    assert len(network["params"]) == 4
    assert (network["lr_scale"], network["weight_decay"]) == (0.1, 0.5)


def runs_of_the_network(method: Any, act: Callable[[], object]) -> int:
    """How often the graph network runs during ``act``."""
    runs: list[nn.Module] = []
    handle = method.prompt.network.register_forward_hook(lambda module, inputs, output: runs.append(module))
    act()
    handle.remove()
    return len(runs)


def test_the_graph_network_runs_once_for_all_chunks_of_texts(
    space: PairSpace, clip_file: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("czslkit.prompts.PROMPTS_PER_CHUNK", 2)
    method, every = built(space, clip_file).eval(), space.open().pairs
    with torch.no_grad():
        assert runs_of_the_network(method, lambda: method.text_in("open", every)) == 1
    pairs = space.pairs[space.seen]
    batch = Batch(images[:1], *pairs[:1].T)

    def step() -> None:
        with recompute(Recomputation(text=1)):
            loss = method.train().loss(batch, pairs)
            loss.backward()

    assert runs_of_the_network(method, step) == 1


def test_dropout_has_one_mask_for_all_pairs(space: PairSpace, clip_file: Path) -> None:
    method = built(space, clip_file, word_dropout=0.5, graph_layers="16").train()
    torch.manual_seed(0)
    words = method.prompt.elements()
    assert 0.3 < (words == 0).float().mean() < 0.7
    text = method.text(space.pairs[:1].repeat(2, 1)).pair
    assert torch.equal(text[0], text[1])


def weights(values: Tensor, data: Splits) -> Tensor:
    return torch.where(data.space.open().seen, 1.0, values.clamp(min=0))


def test_the_graph_of_the_open_world_is_weighted_by_the_feasibility_of_the_backbone_or_of_a_file(
    data: Splits, clip_file: Path, tmp_path: Path
) -> None:
    values = torch.rand(len(data.space.attrs) * len(data.space.objs)) * 2 - 1
    torch.save(values, tmp_path / "scores.pt")
    published = data.root / f"feasibility_{data.name}.pt"
    assert not published.exists()
    by_text = clip_feasibility(built(data.space, clip_file).backbone, data.space).values
    for source, expected in {"clip": by_text, "file": by_text, str(tmp_path / "scores.pt"): values}.items():
        method = built(data.space, clip_file, feasibility=source)
        method.prepare(data.training_data())
        assert torch.equal(method.prompt.graphs.weights, weights(expected, data)), source
    torch.save(values, published)
    method = built(data.space, clip_file)
    method.prepare(data.training_data())
    published.unlink()
    assert torch.equal(method.prompt.graphs.weights, weights(values, data))


@torch.no_grad()
def test_a_feasibility_changes_texts_of_the_open_world_only(space: PairSpace, clip_file: Path) -> None:
    method, pairs = built(space, clip_file).eval(), space.pairs
    before = {world: method.text_in(world, pairs).pair for world in ("closed", "open")}
    method.load_feasibility([0.9] * (len(space.attrs) * len(space.objs)))
    assert torch.equal(method.text_in("closed", pairs).pair, before["closed"])
    assert not torch.equal(method.text_in("open", pairs).pair, before["open"])
