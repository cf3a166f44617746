"""MSCI: texts read shallow visual layers first, then deep ones.

"MSCI: Addressing CLIP's Inherent Limitations for Compositional Zero-Shot Learning",
IJCAI 2025. https://arxiv.org/abs/2505.10289

Own parts: the aggregator of low and high layers, the two-stage interaction and its two
fusions. Adapters, soft prompts and the three-branch head are shared with Troika.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.backbones import load_backbone
from czslkit.components import AGGREGATORS, INTERACTIONS, Aggregator, Backbone, Interaction
from czslkit.heads import ThreeBranchHead
from czslkit.interactions import CrossAttention
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import SoftPrompt
from czslkit.types import ImageFeatures, PairSpace, TextFeatures


@AGGREGATORS.register("low_high")
class LowHigh(Aggregator):
    """First ``low`` and last ``high`` layers, each group joined and brought back to ``dim``.

    A group of one layer passes as it is.

    Args:
        dim: joint width ``D``.
        low, high: number of layers; groups of a shallow backbone may overlap.
        dropout: on the aggregated tokens.
    """

    def __init__(self, dim: int, low: int = 4, high: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.project_low, self.project_high = (self._project(n, dim, dropout) for n in (low, high))

    def layers(self, depth: int) -> tuple[int, ...]:
        if depth < max(self.low, self.high):
            raise ValueError(f"low_high needs {self.low} low and {self.high} high layers, the backbone has {depth}")
        return (*range(self.low), *range(depth - self.high, depth))

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        low = self.project_low(torch.cat(image.layers[: self.low], -1))  # [B, T, D]
        high = self.project_high(torch.cat(image.layers[self.low :], -1))
        return replace(image, levels=(low, high))

    @staticmethod
    def _project(layers: int, dim: int, dropout: float) -> nn.Module:
        if layers == 1:
            return nn.Identity()
        return nn.Sequential(nn.Linear(layers * dim, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Dropout(dropout))


class Stage(nn.Module):
    """Texts ``[N, D]`` or ``[B, N, D]`` read one level ``[B, T, D]``, normalised once for all layers."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(CrossAttention(dim, heads, dropout) for _ in range(layers))

    def forward(self, query: Tensor, level: Tensor) -> Tensor:
        level = self.norm(level)
        for layer in self.layers:
            query = layer(query, level)
        return query


class WeightedSum(nn.Module):
    """``t + a * local + b * global`` with learned channel weights, the same for every pair and image."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.local_weight, self.global_weight = (nn.Parameter(torch.full((dim,), init)) for _ in range(2))

    def forward(self, text: Tensor, local: Tensor, overall: Tensor) -> Tensor:
        return text + self.local_weight * local + self.global_weight * overall


class Gated(nn.Module):
    """``t + a * local + b * global`` with ``a, b`` in (0, 1) from all three, per pair, image and channel.

    Our reading of the paper, whose abstract has the weights of local and global information
    depend on the composition and its elements, but whose equations leave the form open.
    ``init`` is the value of both weights before training.
    """

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gate = nn.Linear(3 * dim, 2 * dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, torch.logit(torch.tensor(init)).item())

    def weights(self, text: Tensor, local: Tensor, overall: Tensor) -> tuple[Tensor, Tensor]:
        """Local and global weights, ``[B, N, D]`` each, from ``[N, D]`` and twice ``[B, N, D]``."""
        joined = torch.cat((text.expand_as(local), local, overall), -1)
        local_weight, global_weight = self.gate(joined).sigmoid().chunk(2, -1)
        return local_weight, global_weight

    def forward(self, text: Tensor, local: Tensor, overall: Tensor) -> Tensor:
        local_weight, global_weight = self.weights(text, local, overall)
        return text + local_weight * local + global_weight * overall


FUSIONS = {"weighted_sum": WeightedSum, "gated": Gated}


@INTERACTIONS.register("two_stage")
class TwoStage(Interaction):
    """Every text reads the low level, what it became reads the high level, and a fusion joins the three.

    Args:
        dim: joint width ``D``.
        heads, layers, dropout: of the cross-attention, one number per stage.
        fusion: ``weighted_sum`` (the released program) or ``gated``.
        init: weight of either stage before training.
    """

    def __init__(
        self,
        dim: int,
        heads: tuple[int, int] = (12, 12),
        layers: tuple[int, int] = (1, 1),
        dropout: tuple[float, float] = (0.1, 0.1),
        fusion: str = "weighted_sum",
        init: float = 0.1,
    ) -> None:
        super().__init__()
        self.local, self.overall = (Stage(dim, *sizes) for sizes in zip(heads, layers, dropout, strict=True))
        self.fusion = FUSIONS[fusion](dim, init)

    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        assert text.pair is not None and text.attr is not None and text.obj is not None
        branches = (text.pair, text.attr, text.obj)
        joined = F.normalize(torch.cat(branches), dim=-1)  # [P + A + O, D]: texts do not see each other
        low, high = image.levels
        local = self.local(joined, low)  # [B, P + A + O, D]
        fused = self.fusion(joined, local, self.overall(local, high))
        pair, attr, obj = fused.split([len(branch) for branch in branches], 1)
        return image, replace(text, pair=pair, attr=attr, obj=obj)


@dataclass(frozen=True)
class MsciOptions:
    backbone: str = option("ViT-L-14-quickgelu/openai", "CLIP model and weights")
    context: str = option("a photo of", "words that the learned contexts start from")
    context_length: int = option(8, "tokens of a prompt, marks included", minimum=5)
    word_dropout: float = option(0.3, "dropout on the learned words", minimum=0, maximum=1)
    adapter_dim: int = option(64, "bottleneck of the adapters", minimum=1)
    adapter_dropout: float = option(0.1, "dropout inside the adapters", minimum=0, maximum=1)
    low_layers: int = option(4, "first visual layers, for the local stage", minimum=1)
    high_layers: int = option(4, "last visual layers, for the global stage", minimum=1)
    heads: tuple[int, int] = option((12, 12), "attention heads of the two stages", minimum=1)
    layers: tuple[int, int] = option((1, 1), "cross-attention layers of the two stages", minimum=1)
    dropout: tuple[float, float] = option((0.1, 0.1), "dropout in the two stages", minimum=0, maximum=1)
    fusion: Literal["weighted_sum", "gated"] = option("weighted_sum", "how text, local and global join")
    fusion_init: float = option(0.1, "weight of either stage before training", minimum=1e-3, maximum=0.999)
    loss_weights: tuple[float, float, float] = option((1.0, 1.0, 1.0), "of pair, attribute and object", minimum=0)
    score_weights: tuple[float, float, float] = option((1.0, 1.0, 1.0), "of pair, attribute and object", minimum=0)


@METHODS.register("msci")
class Msci(Method):
    """MSCI: adapters, three soft prompts, two-stage interaction, three branches."""

    Options = MsciOptions

    def __init__(self, options: MsciOptions, space: PairSpace) -> None:
        backbone = load_backbone(
            options.backbone, adapter_dim=options.adapter_dim, adapter_dropout=options.adapter_dropout
        )
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=SoftPrompt(
                backbone,
                space,
                context=options.context,
                learn_context=True,
                primitives=True,
                dropout=options.word_dropout,
                context_length=options.context_length,
            ),
            aggregator=LowHigh(backbone.dim, options.low_layers, options.high_layers),
            interaction=TwoStage(
                backbone.dim, options.heads, options.layers, options.dropout, options.fusion, options.fusion_init
            ),
            head=ThreeBranchHead(backbone.dim, backbone.scale, options.loss_weights, options.score_weights),
        )
