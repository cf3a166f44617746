"""Graph networks over the words and pairs of a label space, as of CGE, Co-CGE and GIPCOL.

The nodes of a graph are the ``A`` attributes, the ``O`` objects, then its ``E`` pairs: ``N = A + O + E``. Naeem et al.,
"Learning Graph Embeddings for Compositional Zero-shot Learning", CVPR 2021. https://arxiv.org/abs/2102.01987
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear, linear

DROPOUT = 0.5  # dropout on the inputs of layers


class LabelGraph(nn.Module):
    """A graph in which every node averages over itself and its neighbours.

    The neighbours of a word are the words that it is combined with and its pairs; those of a pair are its two words.
    Edges count 1, and those of a pair with a weight count this weight: between its two words, and in one direction
    between the pair and its words.

    Args:
        attrs: number of attributes ``A``.
        objs: number of objects ``O``.
        pairs: ``[E, 2]`` long, attribute and object index of every pair of the graph.
        weights: ``[E]``, from 0 to 1; 1 for every pair by default.
        weighted: ``words`` if words take the weighted part from pairs, and pairs always take 1 from words (Co-CGE);
            ``pairs`` if it is the other way round (GIPCOL).
        pair_self_loops: let pairs also take from themselves.
    """

    indices: Tensor  # [2, M] long, rows and columns of the entries of the matrix by which nodes average
    values: Tensor  # [M], these entries; those of a row add up to 1

    def __init__(
        self,
        attrs: int,
        objs: int,
        pairs: Tensor,
        weights: Tensor | None = None,
        *,
        weighted: Literal["words", "pairs"] = "words",
        pair_self_loops: bool = True,
    ) -> None:
        super().__init__()
        words, count = attrs + objs, len(pairs)
        self.nodes = words + count
        one = torch.ones(count)
        weight = one if weights is None else weights.float().cpu()
        to_words, to_pairs = (weight, one) if weighted == "words" else (one, weight)
        attr, obj, pair = pairs[:, 0].cpu(), pairs[:, 1].cpu() + attrs, torch.arange(words, self.nodes)
        loops = torch.arange(self.nodes if pair_self_loops else words)
        edges = [  # a row takes from a column, with a value
            (loops, loops, torch.ones(len(loops))),
            (attr, obj, weight),
            (obj, attr, weight),
            (attr, pair, to_words),
            (obj, pair, to_words),
            (pair, attr, to_pairs),
            (pair, obj, to_pairs),
        ]
        rows, columns, values = map(torch.cat, zip(*edges, strict=True))
        sums = torch.zeros(self.nodes).index_add(0, rows, values)
        order = (rows * self.nodes + columns).argsort()  # as sparse tensors have it
        self.register_buffer("indices", torch.stack((rows, columns))[:, order], persistent=False)
        self.register_buffer("values", (values / sums[rows])[order], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the average of every node, ``[N, D]``, of features ``[N, D]``."""
        size = (self.nodes, self.nodes)
        matrix = torch.sparse_coo_tensor(self.indices, self.values, size, check_invariants=False, is_coalesced=True)
        averages: Tensor = torch.sparse.mm(matrix, x)
        return averages


def node_inputs(words: Tensor, attrs: int, pairs: Tensor) -> Tensor:
    """Return the input of every node, ``[N, D]``: word vectors, and for a pair the mean of those of its two words.

    Args:
        words: ``[A + O, D]``, attributes first.
        attrs: number of attributes ``A``.
        pairs: ``[E, 2]`` long.

    >>> node_inputs(torch.tensor([[1.0], [3.0]]), 1, torch.tensor([[0, 0]])).tolist()
    [[1.0], [3.0], [2.0]]
    """
    return torch.cat((words, (words[pairs[:, 0]] + words[pairs[:, 1] + attrs]) / 2))


def hidden_layers(text: str) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return the widths of hidden layers, and for every layer whether its input has dropout, from the authors' text.

    The text has a width for each hidden layer, with ``d`` before it for dropout, and perhaps ``d`` for the last layer.

    Raises:
        ValueError: it is something else.

    >>> hidden_layers("d4096,d"), hidden_layers("d600")
    (((4096,), (True, True)), ((600,), (True, False)))
    """
    items = [item.strip() for item in text.split(",")]
    last = items[-1] == "d"
    widths = [item.removeprefix("d") for item in (items[:-1] if last else items)]
    if not widths or not all(width.isdecimal() and int(width) for width in widths):
        raise ValueError(f"the graph layers are {text!r}, expected widths such as 'd4096,d', with d for dropout")
    return tuple(map(int, widths)), (*(item.startswith("d") for item in items[: len(widths)]), last)


class GraphConvolution(nn.Module):
    """Layers ``average(x W^T) + b`` over the nodes of a graph, with ReLU except after the last one.

    Args:
        inputs: width of the node inputs.
        outputs: width of the result.
        layers: hidden widths and dropout as in :func:`hidden_layers`.
    """

    version: ClassVar[int] = 1

    def __init__(self, inputs: int, outputs: int, layers: str) -> None:
        super().__init__()
        hidden, dropped = hidden_layers(layers)
        widths = (inputs, *hidden)
        self.hidden = nn.ModuleList(Linear(width, to) for width, to in pairwise(widths))
        self.last = Linear(widths[-1], outputs)
        self.dropout = nn.ModuleList(nn.Dropout(DROPOUT if drop else 0.0) for drop in dropped)

    def forward(self, x: Tensor, graph: LabelGraph) -> Tensor:
        """Return the output of every node, ``[N, outputs]``, for node inputs ``[N, inputs]``."""
        for number, (layer, dropout) in enumerate(zip((*self.hidden, self.last), self.dropout, strict=True)):
            x = dropout(F.relu(x) if number else x)
            assert isinstance(layer, Linear)
            x = graph(linear(x, layer.weight)) + layer.bias
        return x


class Gcnii(nn.Module):
    """A deep graph network that keeps a share of its input in every layer: Chen et al., "Simple and Deep Graph
    Convolutional Networks", ICML 2020. https://arxiv.org/abs/2007.02133

    Args:
        inputs: width of the node inputs.
        outputs: width of the result.
        hidden: width of the hidden layers.
        depth: number of hidden layers.
    """

    version: ClassVar[int] = 1

    def __init__(self, inputs: int, outputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.enter, self.leave = Linear(inputs, hidden), Linear(hidden, outputs)
        self.layers = nn.ModuleList(Linear(hidden, hidden, bias=False) for _ in range(depth))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, graph: LabelGraph) -> Tensor:
        """Return the output of every node, ``[N, outputs]``, for node inputs ``[N, inputs]``."""
        start = x = F.relu(self.enter(self.dropout(x)))
        for number, layer in enumerate(self.layers, 1):
            mixed = 0.9 * graph(self.dropout(x)) + 0.1 * start
            share = math.log(0.5 / number + 1)
            x = F.relu(share * layer(mixed) + (1 - share) * mixed)
        result: Tensor = self.leave(self.dropout(x))
        return result
