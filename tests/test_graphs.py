"""Graph networks over a label space compute what a plain loop over nodes computes."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from czslkit.graphs import Gcnii, GraphConvolution, LabelGraph, hidden_layers, node_inputs

ATTRS, OBJS = 3, 2
PAIRS = torch.tensor([[0, 0], [2, 1], [0, 1], [1, 1]])
WEIGHTS = torch.tensor([1.0, 0.25, 0.0, 0.5])
X = torch.randn(ATTRS + OBJS + len(PAIRS), 6, generator=torch.Generator().manual_seed(0))


def averaged(x: Tensor, weights: Tensor, weighted: str, *, pair_self_loops: bool) -> Tensor:
    """The average of every node over itself and its neighbours, node by node."""
    rows = []
    for node in range(len(x)):
        total, weight = torch.zeros(x.shape[1]), 0.0
        if node < ATTRS + OBJS or pair_self_loops:
            total, weight = total + x[node], weight + 1
        for number, (attr, obj) in enumerate(PAIRS.tolist()):
            mine, other, pair = float(weights[number]), {attr: obj + ATTRS, obj + ATTRS: attr}, ATTRS + OBJS + number
            if node in other:
                into = mine if weighted == "words" else 1.0
                total, weight = total + mine * x[other[node]] + into * x[pair], weight + mine + into
            if node == pair:
                into = mine if weighted == "pairs" else 1.0
                total, weight = total + into * (x[attr] + x[obj + ATTRS]), weight + 2 * into
        rows.append(total / weight)
    return torch.stack(rows)


@pytest.mark.parametrize("weighted", ["words", "pairs"])
def test_nodes_average_over_their_neighbours(weighted: Literal["words", "pairs"]) -> None:
    graph = LabelGraph(ATTRS, OBJS, PAIRS, WEIGHTS, weighted=weighted)
    torch.testing.assert_close(graph(X), averaged(X, WEIGHTS, weighted, pair_self_loops=True))


@pytest.mark.parametrize("pair_self_loops", [True, False])
def test_pairs_take_from_themselves_if_asked_for(pair_self_loops: bool) -> None:
    graph = LabelGraph(ATTRS, OBJS, PAIRS, pair_self_loops=pair_self_loops)
    expected = averaged(X, torch.ones(len(PAIRS)), "words", pair_self_loops=pair_self_loops)
    torch.testing.assert_close(graph(X), expected)


def test_the_graph_is_no_part_of_a_checkpoint() -> None:
    assert not LabelGraph(ATTRS, OBJS, PAIRS).state_dict()


def test_pairs_start_from_the_mean_of_their_words() -> None:
    words = X[: ATTRS + OBJS]
    expected = torch.stack([(words[attr] + words[ATTRS + obj]) / 2 for attr, obj in PAIRS.tolist()])
    assert torch.equal(node_inputs(words, ATTRS, PAIRS), torch.cat((words, expected)))


def weights_of(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


def test_convolutions_and_their_gradients_equal_a_dense_computation() -> None:
    torch.manual_seed(0)
    graph, network = LabelGraph(ATTRS, OBJS, PAIRS, WEIGHTS), GraphConvolution(6, 3, "d8,5,d").eval()
    matrix = graph(torch.eye(len(X))).detach()
    x, layers = X, [*network.hidden, network.last]
    for number, layer in enumerate(layers):
        x = matrix @ (x if number == 0 else x.clamp(min=0)) @ weights_of(layer).T + layer.bias
    torch.testing.assert_close(network(X, graph), x)
    assert [tuple(weights_of(layer).shape) for layer in layers] == [(8, 6), (5, 8), (3, 5)]
    found = torch.autograd.grad(network(X, graph).square().sum(), list(network.parameters()))
    expected = torch.autograd.grad(x.square().sum(), list(network.parameters()))
    torch.testing.assert_close(found, expected)


def test_dropout_falls_on_the_inputs_of_the_named_layers() -> None:
    graph, seeds = LabelGraph(ATTRS, OBJS, PAIRS), range(2)

    def outputs(layers: str) -> list[Tensor]:
        torch.manual_seed(0)
        network, found = GraphConvolution(6, 3, layers).train(), []
        for seed in seeds:
            torch.manual_seed(seed)
            found.append(network(X, graph))
        return found

    assert torch.equal(*outputs("8"))
    for layers in ("d8", "8,d"):
        assert not torch.equal(*outputs(layers))


def test_deep_networks_equal_a_dense_computation() -> None:
    torch.manual_seed(0)
    graph, network = LabelGraph(ATTRS, OBJS, PAIRS, WEIGHTS), Gcnii(6, 3, hidden=4, depth=3).eval()
    matrix = graph(torch.eye(len(X)))
    start = x = network.enter(X).relu()
    for number, layer in enumerate(network.layers, 1):
        mixed, share = 0.9 * matrix @ x + 0.1 * start, math.log(0.5 / number + 1)
        x = (share * mixed @ weights_of(layer).T + (1 - share) * mixed).relu()
    torch.testing.assert_close(network(X, graph), network.leave(x))


@pytest.mark.parametrize("text", ["", "d", "d0,d", "8,,d", "d8,e", "8,dd"])
def test_other_texts_are_no_layers(text: str) -> None:
    with pytest.raises(ValueError, match=f"the graph layers are '{text}', expected widths such as 'd4096,d'"):
        hidden_layers(text)
