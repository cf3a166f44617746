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
from .precision import unrounded

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

    attr: Tensor  # [E] long, attribute of each pair
    obj: Tensor  # [E] long, object of each pair
    between: Tensor  # [A, O], what an attribute and an object take from each other
    to_words: Tensor  # [E, 1], what a pair gives to its words
    to_pairs: Tensor  # [E, 1], what a pair takes from each of its words
    sums: Tensor  # [N, 1], everything that a node takes

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
        self.attrs, self.objs, self.loop = attrs, objs, float(pair_self_loops)
        one = torch.ones(len(pairs), 1)
        weight = one if weights is None else weights.float().cpu()[:, None]
        to_words, to_pairs = (weight, one) if weighted == "words" else (one, weight)
        attr, obj = pairs.cpu().unbind(1)
        between = torch.zeros(attrs, objs).index_put((attr, obj), weight[:, 0])
        tensors = {"attr": attr, "obj": obj, "between": between, "to_words": to_words, "to_pairs": to_pairs}
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("sums", self._sums(torch.ones(attrs + objs + len(pairs), 1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the average of every node, ``[N, D]``, of features ``[N, D]``."""
        with unrounded(x.device):  # weights have 32 bits
            return self._sums(x.to(self.sums.dtype)) / self.sums

    def _sums(self, x: Tensor) -> Tensor:
        """Return the weighted sum over the neighbours of every node, ``[N, D]``, of features ``[N, D]``."""
        attr, obj, pair = x.split((self.attrs, self.objs, len(self.attr)))
        given = self.to_words * pair
        return torch.cat(
            (
                (attr + self.between @ obj).index_add(0, self.attr, given),
                (obj + self.between.T @ attr).index_add(0, self.obj, given),
                self.loop * pair + self.to_pairs * (attr[self.attr] + obj[self.obj]),
            )
        )


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
