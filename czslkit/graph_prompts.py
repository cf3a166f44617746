"""A prompt whose features come from a graph network over the words and pairs of a label space, as of CGE and Co-CGE."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .graphs import GraphConvolution, LabelGraph, node_inputs
from .types import PairSpace, TextFeatures
from .word_prompts import WordTable


class GraphPrompt(nn.Module):
    """The features of pairs, and of words, are the outputs of a graph network; the vectors of words are its inputs.

    The graph of the closed world has the pairs of the label space, that of the open world every combination. Naeem et
    al., "Learning Graph Embeddings for Compositional Zero-shot Learning", CVPR 2021. https://arxiv.org/abs/2102.01987

    Args:
        words: the vectors of the words.
        space: label space.
        network: graph network from the width of ``words`` to the width of the features.
        pair_self_loops: in the closed world, the node of a pair also takes from itself.
        weighted: weigh the edges of the open world by ``weights``, which start as 1 for seen and 0 for other pairs.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    weights: Tensor  # [A * O] from 0 to 1, weight of each pair in the open world; only with ``weighted``
    nodes: Tensor  # [A * O] long, number of each pair in the graph of the closed world; -1 for others
    every_pair: Tensor  # [A * O, 2] long

    def __init__(
        self,
        words: WordTable,
        space: PairSpace,
        network: nn.Module,
        *,
        pair_self_loops: bool = True,
        weighted: bool = False,
    ) -> None:
        super().__init__()
        self.words, self.network, self.weighted = words, network, weighted
        self.attrs, self.objs = len(space.attrs), len(space.objs)
        every = space.open()
        nodes = torch.full((len(every.pairs),), -1)
        nodes[space.flat()] = torch.arange(len(space.pairs))
        self.register_buffer("nodes", nodes, persistent=False)
        self.register_buffer("every_pair", every.pairs, persistent=False)
        self.register_buffer("own_pairs", space.pairs, persistent=False)
        self.own_pairs: Tensor
        self.closed = LabelGraph(self.attrs, self.objs, space.pairs, pair_self_loops=pair_self_loops)
        self.open: LabelGraph | None = None  # made when it is needed
        if weighted:
            self.register_buffer("weights", every.seen.float())

    def forward(self, backbone: nn.Module, pairs: Tensor, world: str = "") -> TextFeatures:
        """Return the features of ``pairs`` ``[P, 2]`` as ``pair``, those of words as ``attr`` and ``obj``.

        Args:
            world: ``closed`` or ``open``; by default the closed world if its graph has all of ``pairs``.
        """
        if not world:
            world = "open" if bool((self.nodes[self._flat(pairs)] < 0).any()) else "closed"
        if world == "open":
            outputs = self._outputs(self._open_graph(), self.every_pair)
            rows = self._flat(pairs)
        else:
            outputs = self._outputs(self.closed, self.own_pairs)
            rows = self.nodes[self._flat(pairs)]
        words = outputs[: self.attrs + self.objs].clone()  # a view would keep the outputs of all nodes in memory
        return TextFeatures(pairs, outputs[len(words) + rows], *words.split((self.attrs, self.objs)))

    def _flat(self, pairs: Tensor) -> Tensor:
        return pairs[:, 0] * self.objs + pairs[:, 1]

    def set_weights(self, weights: Tensor) -> None:
        """Set the weight of every pair in the open world, ``[A * O]``."""
        self.weights.copy_(weights)
        self.open = None

    def _outputs(self, graph: LabelGraph, pairs: Tensor) -> Tensor:
        """Return the output of every node; those of graph convolutions have length 1."""
        outputs: Tensor = self.network(node_inputs(self.words.all, self.attrs, pairs), graph)
        return F.normalize(outputs, dim=-1) if isinstance(self.network, GraphConvolution) else outputs

    def _open_graph(self) -> LabelGraph:
        if self.open is None:
            weights = self.weights if self.weighted else None
            self.open = LabelGraph(self.attrs, self.objs, self.every_pair, weights).to(self.every_pair.device)
        return self.open

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self.open = None  # its weights may have changed
