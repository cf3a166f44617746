"""The head of CLIP, CoOp and CSP: the scaled cosine of image and pair."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..components import HEADS, Head, cosine
from ..types import Batch, ImageFeatures, Scores, TextFeatures, pair_targets


@HEADS.register("cosine")
class CosineHead(Head):
    """A head with the scaled cosine of image and pair, and a cross-entropy over the candidates.

    Args:
        scale: log of the logit scale, a scalar.
    """

    version = 1

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone(), persistent=False)
        self.scale: Tensor

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        assert text.pair is not None
        return Scores(cosine(image.pooled, text.pair, self.scale))

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        return F.cross_entropy(scores.pair, pair_targets(batch, pairs))
