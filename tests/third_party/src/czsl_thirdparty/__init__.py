"""Skim: texts attend to the mean of all visual layers.

Not from a paper: it shows the least code with which another distribution adds a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from czslkit.backbones import load_backbone
from czslkit.components import AGGREGATORS, Aggregator, Backbone, Interaction
from czslkit.heads import CosineHead
from czslkit.interactions import CrossAttention
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import SoftPrompt
from czslkit.types import ImageFeatures, PairSpace, TextFeatures

from . import balanced as balanced
from . import byte_clip as byte_clip
from . import ema_teacher as ema_teacher
from . import graph_words as graph_words
from . import learned_head as learned_head
from . import stream as stream
from . import swatches as swatches
from . import visual_adapters as visual_adapters


@AGGREGATORS.register("mean_layers")
class MeanLayers(Aggregator):
    """The mean of all visual layers, token by token, as the only level."""

    def layers(self, depth: int) -> tuple[int, ...]:
        if depth < 1:
            raise ValueError("mean_layers needs a visual tower with layers, the backbone returns none")
        return tuple(range(depth))

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        return replace(image, levels=(torch.stack(image.layers).mean(0),))  # [B, T, D]


class AttendToLevel(Interaction):
    """Pair texts attend to the only level; the result is added to them with a learned weight for each channel."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(dim)
        self.attend = CrossAttention(dim, heads, dropout=0.1)
        self.weight = torch.nn.Parameter(torch.full((dim,), 0.1))

    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        assert text.pair is not None
        (level,) = image.levels
        pair = F.normalize(text.pair, dim=-1)
        return image, replace(text, pair=pair + self.weight * self.attend(pair, self.norm(level)))  # [B, P, D]


@dataclass(frozen=True)
class SkimOptions:
    backbone: str = option("demo", "CLIP model and weights")
    word_dropout: float = option(0.3, "dropout on the learned words", minimum=0, maximum=1)
    heads: int = option(4, "attention heads", minimum=1)


@METHODS.register("skim")
class Skim(Method):
    """Skim: learned words attend to the mean of all visual layers."""

    Options = SkimOptions
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3, "augment": False}

    def __init__(self, options: SkimOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=SoftPrompt(backbone, space, dropout=options.word_dropout),
            aggregator=MeanLayers(),
            interaction=AttendToLevel(backbone.dim, options.heads),
            head=CosineHead(backbone.scale),
        )
