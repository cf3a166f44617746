"""Graph words: a graph network over attributes, objects and training pairs makes the words of a soft prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from czslkit.backbones import load_backbone
from czslkit.components import Backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.prompts import LearnedWordOptions, SoftPrompt
from czslkit.types import PairSpace


class GraphPrompt(SoftPrompt):
    """A soft prompt whose words are mixed with the words that they are seen with in training."""

    version = 1

    def __init__(self, backbone: Backbone, space: PairSpace, **options: Any) -> None:
        super().__init__(backbone, space, **options)
        attr, obj = space.pairs[space.seen].T
        edges = torch.eye(len(self.words))
        edges[attr, self.num_attrs + obj] = edges[self.num_attrs + obj, attr] = 1
        self.register_buffer("edges", edges / edges.sum(1, keepdim=True), persistent=False)  # [A + O, A + O]
        self.edges: Tensor
        self.layer = nn.Linear(self.words.shape[1], self.words.shape[1])
        nn.init.zeros_(self.layer.bias)

    def elements(self) -> Tensor:
        words = super().elements()
        return words + 0.1 * torch.tanh(self.layer(self.edges @ words))


@METHODS.register("graph-words")
class GraphWords(Method):
    """Learned words after one layer of a graph network."""

    version = 1
    Options = LearnedWordOptions
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}

    def __init__(self, options: LearnedWordOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = GraphPrompt(backbone, space, context=options.context, dropout=options.word_dropout)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
