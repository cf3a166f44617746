"""The head of Troika and MSCI: three branches, for pair, attribute and object, with their losses and their fusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..components import HEADS, Head, cosine
from ..linear import Linear
from ..loss_parts import report
from ..types import VALIDATION, Batch, ImageFeatures, Scores, Setting, TextFeatures, pair_targets

Weights = tuple[float, float, float]


@dataclass(frozen=True)
class ScoreFusion:
    """The fusion of pair, attribute and object scores: ``w_p * pair + (w_a * p(attr)) * (w_o * p(obj))``.

    ``pair`` is a raw logit, and ``p`` a softmax over all attributes or all objects. If the weight of an attribute or
    object is 0, its factor is left out of the product.
    """

    weights: Weights = (1.0, 1.0, 1.0)  # weights of pair, attribute and object
    closed: Weights | None = None  # weights on the test split of the closed world; None: ``weights``
    open: Weights | None = None  # weights on the test split of the open world; None: ``weights``
    #: Number of pairs in a chunk of the authors' test programs. They count attributes and objects once per chunk, which
    #: divides their probabilities by the number of chunks. 0: no division.
    primitive_chunk: int = 0

    def __call__(self, scores: Scores, pairs: Tensor, setting: Setting) -> Tensor:
        """Return the fused scores ``[B, P]`` of the candidates ``pairs`` ``[P, 2]``."""
        assert scores.attr is not None and scores.obj is not None
        weights, chunks = self.weights, 1
        if setting.split == "test":
            weights = {"closed": self.closed, "open": self.open}[setting.world] or weights
            chunks = math.ceil(setting.columns / self.primitive_chunk) if self.primitive_chunk else 1
        pair, *primitives = weights
        product = torch.ones_like(scores.pair)
        for weight, logits, index in zip(primitives, (scores.attr, scores.obj), pairs.T, strict=True):
            if weight:
                product = product * (weight / chunks * logits.softmax(-1)[:, index])
        return pair * scores.pair + product


@HEADS.register("three_branch")
class ThreeBranchHead(Head):
    """A head with the cosines of pair, attribute and object, each with a view of the image (Troika, MSCI).

    Args:
        dim: joint width ``D``.
        scale: log of the logit scale, a scalar.
        loss_weights: weights of the pair, attribute and object cross-entropies.
        fusion: fusion of the three scores for the ranking.
    """

    version = 1

    def __init__(
        self,
        dim: int,
        scale: Tensor,
        loss_weights: Weights = (1.0, 1.0, 1.0),
        fusion: ScoreFusion = ScoreFusion(),
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone(), persistent=False)
        self.scale: Tensor
        self.loss_weights, self.fusion = loss_weights, fusion
        self.attr_view, self.obj_view = (
            nn.Sequential(Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU(), nn.Dropout(0.5)) for _ in range(2)
        )

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        assert text.pair is not None and text.attr is not None and text.obj is not None
        return Scores(
            cosine(image.pooled, text.pair, self.scale),
            cosine(self.attr_view(image.pooled), text.attr, self.scale),
            cosine(self.obj_view(image.pooled), text.obj, self.scale),
        )

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        assert scores.attr is not None and scores.obj is not None
        branches = (scores.pair, pair_targets(batch, pairs)), (scores.attr, batch.attr), (scores.obj, batch.obj)
        losses = [w * F.cross_entropy(*branch) for w, branch in zip(self.loss_weights, branches, strict=True)]
        return torch.stack([*map(report, ("pair", "attr", "obj"), losses)]).sum()

    def rank(self, scores: Scores, pairs: Tensor, setting: Setting = VALIDATION) -> Tensor:
        return self.fusion(scores, pairs, setting)
