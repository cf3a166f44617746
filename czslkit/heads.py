"""Heads that several methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .components import HEADS, Head, cosine
from .types import Batch, ImageFeatures, Scores, TextFeatures, pair_targets


@HEADS.register("cosine")
class CosineHead(Head):
    """Scaled cosine of image and pair; cross-entropy over the candidates."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone(), persistent=False)
        self.scale: Tensor

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        assert text.pair is not None
        return Scores(cosine(image.pooled, text.pair, self.scale))

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        return F.cross_entropy(scores.pair, pair_targets(batch, pairs))


@HEADS.register("three_branch")
class ThreeBranchHead(Head):
    """Pair, attribute and object cosines, each with its own view of the image (Troika, MSCI).

    Args:
        dim: joint width ``D``.
        scale: log of the logit scale, a scalar.
        loss_weights: of the pair, attribute and object cross-entropies.
        score_weights: ``v`` in ``v_p * pair + (v_a * softmax(attr)) * (v_o * softmax(obj))``; a
            zero for a primitive takes its factor out, it does not make it zero.
    """

    def __init__(
        self,
        dim: int,
        scale: Tensor,
        loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        score_weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone(), persistent=False)
        self.scale: Tensor
        self.loss_weights, self.score_weights = loss_weights, score_weights
        self.attr_view, self.obj_view = (
            nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU(), nn.Dropout(0.5)) for _ in range(2)
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
        return torch.stack(losses).sum()

    def rank(self, scores: Scores, pairs: Tensor) -> Tensor:
        assert scores.attr is not None and scores.obj is not None
        pair, *primitives = self.score_weights
        product = torch.ones_like(scores.pair)
        for weight, logits, index in zip(primitives, (scores.attr, scores.obj), pairs.T, strict=True):
            if weight:
                product = product * (weight * logits.softmax(-1)[:, index])
        return pair * scores.pair + product
