"""Co-CGE: CGE with cosines, and with margins and edges weighted by feasibility in the open world.

Mancini, Naeem, Xian and Akata, "Learning Graph Embeddings for Open World Compositional Zero-Shot Learning", TPAMI 2022.
https://arxiv.org/abs/2105.01017
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from czslkit.heads import MarginCosine
from czslkit.method import METHODS
from czslkit.options import option
from czslkit.pair_feasibility import feasibility
from czslkit.training_hooks import TrainingPosition
from czslkit.translation import State, Translation
from czslkit.types import Batch, PairSpace, TextFeatures

from .cge import IGNORED, NAMES, SETTINGS, GraphMethod, GraphOptions, feature_width, graph_settings, graph_sizes


@dataclass(frozen=True)
class CoCgeOptions(GraphOptions):
    """The options of Co-CGE."""

    scale: float = option(20.0, "factor of the cosines in the loss", minimum=0)
    open_world: bool = option(
        False, "true trains with every combination as a candidate, with margins by feasibility; false with seen pairs"
    )
    margin: float = option(0.4, "factor of the margins; only with open_world", minimum=0)
    margin_epochs: int = option(15, "number of epochs in which the margins grow; only with open_world", minimum=1)
    test_graph: Literal["trained", "original"] = option(
        "trained",
        "graph of the open world in evaluations: trained is that of the training; original is built anew with one "
        "update, as the authors' test program does; only with open_world",
    )


def _sizes(state: State) -> dict[str, Any]:
    return {**graph_sizes(state), "test_graph": "original"}


@METHODS.register("cocge")
class CoCge(GraphMethod):
    """Co-CGE: cosines of image features with the nodes of pairs in a graph network."""

    version = 1
    display_name = "Co-CGE"
    citation = """
@article{mancini2022cocge,
  author = {Mancini, Massimiliano and Naeem, Muhammad Ferjad and Xian, Yongqin and Akata, Zeynep},
  title = {Learning Graph Embeddings for Open World Compositional Zero-Shot Learning},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year = {2022}
}
"""
    Options = CoCgeOptions
    translation = Translation(
        names=NAMES,
        settings={
            **SETTINGS,
            "epoch_max_margin": "margin_epochs",
            "feasibility_adjacency": "open_world",
            "margin": "margin",
        },
        fixed={"cosine_classifier": True},
        from_settings=graph_settings,
        sizes=_sizes,
        sections={"net": "", "image_extractor": "image_extractor."},
        encoder="image_extractor.",
        features=feature_width,
        not_saved=r"prompt\.(words\..*|weights)|head\.(margins|hidden)",
        ignored=(*IGNORED, "nlayers", "open_world", "relu", "static_inp", "train_only"),
    )
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 5e-5, "weight_decay": 5e-5, "batch_size": 128, "schedule": "constant"}

    options: CoCgeOptions
    head: MarginCosine

    def __init__(self, options: CoCgeOptions, space: PairSpace) -> None:
        margin = options.margin if options.open_world else None
        head = MarginCosine(space, options.scale, margin, options.margin_epochs, before="add")
        super().__init__(options, space, head, weighted=options.open_world)

    def text_in(self, world: str, pairs: Tensor) -> TextFeatures:
        if world == "open" and self.options.open_world and self.options.test_graph == "original" and not self.training:
            trained = self.prompt.weights.clone()
            self.prompt.set_weights(self.space.open().seen.float())
            self.prompt.set_feasibility(self.feasibility())
            text = super().text_in(world, pairs)
            self.prompt.set_weights(trained)
            return text
        return super().text_in(world, pairs)

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor | Mapping[str, Tensor]:
        world = "open" if self.options.open_world else "closed"
        pairs = self.prompt.every_pair if self.options.open_world else pairs
        return self.head.loss(self(batch.images, self.text_in(world, pairs)), batch, pairs)

    def after_epoch(self, position: TrainingPosition) -> None:
        if self.options.open_world:
            found = self.feasibility().to(self.device)
            self.head.update(found, position.epoch)
            self.prompt.set_feasibility(found)

    @torch.no_grad()
    def feasibility(self) -> Tensor:
        """Return the feasibility by the graph outputs of the words, which is that of the graph as it is."""
        training = self.training
        self.eval()
        world = "open" if self.options.open_world else "closed"
        words = super().text_in(world, self.prompt.every_pair[:0])
        self.train(training)
        assert words.attr is not None and words.obj is not None
        return feasibility(self.space, words.attr, words.obj)
