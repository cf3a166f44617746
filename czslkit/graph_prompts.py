"""Prompts with a graph network over the words and pairs of a label space, as of CGE, Co-CGE and GIPCOL."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .components import Backbone
from .graphs import GraphConvolution, LabelGraph, node_inputs
from .prompts import SoftPrompt
from .types import PairSpace, TextFeatures
from .word_prompts import WordTable


class WorldGraphs(nn.Module):
    """The graphs of a label space: that of the closed world has its pairs, that of the open world every combination.

    Args:
        space: label space.
        pair_self_loops: in the closed world, the node of a pair also takes from itself.
        weighted: weigh the edges of the open world by ``weights``, which start as 1 for seen and 0 for other pairs; see
            :class:`czslkit.graphs.LabelGraph` for the values. By default, every edge counts 1.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    weights: Tensor  # [A * O] from 0 to 1, weight of each pair in the open world; only with ``weighted``
    nodes: Tensor  # [A * O] long, number of each pair in the graph of the closed world; -1 for others
    every_pair: Tensor  # [A * O, 2] long
    own_pairs: Tensor  # [E, 2] long, the pairs of the closed world

    def __init__(
        self,
        space: PairSpace,
        *,
        pair_self_loops: bool = True,
        weighted: Literal["words", "pairs"] | None = None,
    ) -> None:
        super().__init__()
        self.attrs, self.objs, self.weighted = len(space.attrs), len(space.objs), weighted
        every = space.open()
        nodes = torch.full((len(every.pairs),), -1)
        nodes[space.flat()] = torch.arange(len(space.pairs))
        for name, tensor in {"nodes": nodes, "every_pair": every.pairs, "own_pairs": space.pairs}.items():
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("seen", every.seen, persistent=False)
        self.seen: Tensor
        self.closed = LabelGraph(self.attrs, self.objs, space.pairs, pair_self_loops=pair_self_loops)
        self.open: LabelGraph | None = None  # made when it is needed
        if weighted:
            self.register_buffer("weights", every.seen.float())

    def world_of(self, pairs: Tensor) -> str:
        """Return ``closed`` if the graph of the closed world has all of ``pairs`` ``[P, 2]``, otherwise ``open``."""
        return "open" if bool((self.nodes[self._flat(pairs)] < 0).any()) else "closed"

    def of(self, world: str) -> tuple[LabelGraph, Tensor]:
        """Return the graph of the ``closed`` or ``open`` world, and its pairs ``[E, 2]``."""
        if world == "closed":
            return self.closed, self.own_pairs
        if self.open is None:
            weights = self.weights if self.weighted else None
            made = LabelGraph(self.attrs, self.objs, self.every_pair, weights, weighted=self.weighted or "words")
            self.open = made.to(self.every_pair.device)
        return self.open, self.every_pair

    def rows(self, world: str, pairs: Tensor) -> Tensor:
        """Return the numbers of ``pairs`` ``[P, 2]`` in the graph of a world, ``[P]`` long."""
        rows = self._flat(pairs)
        return rows if world == "open" else self.nodes[rows]

    def set_weights(self, weights: Tensor) -> None:
        """Set the weight of every pair in the open world, ``[A * O]``."""
        self.weights.copy_(weights)
        self.open = None

    def set_feasibility(self, feasibility: Tensor) -> None:
        """Weigh unseen pairs by their feasibility ``[A * O]``, at least 0, and seen pairs by 1."""
        self.set_weights(torch.where(self.seen, 1.0, feasibility.to(self.seen.device).clamp(min=0)))

    def _flat(self, pairs: Tensor) -> Tensor:
        return pairs[:, 0] * self.objs + pairs[:, 1]

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self.open = None  # its weights may have changed


class GraphPrompt(WorldGraphs):
    """The features of pairs, and of words, are the outputs of a graph network; the vectors of words are its inputs.

    Naeem et al., "Learning Graph Embeddings for Compositional Zero-shot Learning", CVPR 2021.
    https://arxiv.org/abs/2102.01987

    Args:
        words: the vectors of the words.
        space: label space.
        network: graph network from the width of ``words`` to the width of the features.
        pair_self_loops: in the closed world, the node of a pair also takes from itself.
        weighted: words take from pairs by the ``weights`` of the open world.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    def __init__(
        self,
        words: WordTable,
        space: PairSpace,
        network: nn.Module,
        *,
        pair_self_loops: bool = True,
        weighted: bool = False,
    ) -> None:
        super().__init__(space, pair_self_loops=pair_self_loops, weighted="words" if weighted else None)
        self.words, self.network = words, network

    def forward(self, backbone: nn.Module, pairs: Tensor, world: str = "") -> TextFeatures:
        """Return the features of ``pairs`` ``[P, 2]`` as ``pair``, those of words as ``attr`` and ``obj``.

        Those of graph convolutions have length 1.

        Args:
            world: ``closed`` or ``open``; by default the closed world if its graph has all of ``pairs``.
        """
        world = world or self.world_of(pairs)
        graph, own = self.of(world)
        outputs: Tensor = self.network(node_inputs(self.words.all, self.attrs, own), graph)
        if isinstance(self.network, GraphConvolution):
            outputs = F.normalize(outputs, dim=-1)
        words = outputs[: self.attrs + self.objs].clone()  # a view would keep the outputs of all nodes in memory
        pair = outputs[len(words) + self.rows(world, pairs)]
        return TextFeatures(pairs, pair, *words.split((self.attrs, self.objs)))


class GraphSoftPrompt(SoftPrompt):
    """A soft prompt with a learned context, whose embeddings of words are the outputs of a graph network.

    The inputs of the network are the initial embeddings of the words, which are not learned. Xu, Chai and Kordjamshidi,
    "GIPCOL: Graph-Injected Soft Prompting for Compositional Zero-Shot Learning", WACV 2024.
    https://arxiv.org/abs/2311.05729

    Args:
        backbone: encoder that supplies the initial embeddings.
        space: label space with the words.
        network: graph network from the width of text tokens to the same width.
        options: arguments of :class:`czslkit.prompts.SoftPrompt`; its dropout is on the outputs of the network.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    def __init__(self, backbone: Backbone, space: PairSpace, network: nn.Module, **options: Any) -> None:
        super().__init__(backbone, space, learn_words=False, learn_context=True, **options)
        self.network, self.graphs = network, WorldGraphs(space, weighted="pairs")

    def elements(self, world: str = "closed") -> Tensor:
        """Return the embeddings of all words by the graph of a world, ``[A + O, W]``, attributes first."""
        graph, pairs = self.graphs.of(world)
        outputs: Tensor = self.network(node_inputs(self.words, self.num_attrs, pairs), graph)
        dropped: Tensor = self.dropout(outputs[: len(self.words)].clone())  # a view would keep all outputs in memory
        return dropped

    def forward(self, backbone: Backbone, pairs: Tensor, world: str = "") -> TextFeatures:
        """Return the encoded prompts of ``pairs`` ``[P, 2]``; the graph network runs once for all of them.

        Args:
            world: ``closed`` or ``open``; by default the closed world if its graph has all of ``pairs``.
        """
        return self.with_elements(backbone, pairs, self.elements(world or self.graphs.world_of(pairs)))
