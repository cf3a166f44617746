"""The head of CompCos, Co-CGE and ADE: a cosine that is scaled only in the loss, with a margin for each unseen pair."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..components import HEADS, Head, cosine
from ..types import Batch, ImageFeatures, PairSpace, Scores, TextFeatures, pair_targets

FIRST_EPOCH = -10.0  # cosine, or margin, of unseen pairs before the first update


@HEADS.register("margin_cosine")
class MarginCosine(Head):
    """A head with the plain cosine of image and pair as score, and a cross-entropy of ``scale * (cosine + margin)``.

    The margin of an unseen pair is ``-margin * ramp * feasibility``, so that a plausible pair is pushed away less hard.
    The ramp grows from epoch to epoch to 1. Mancini et al., "Open World Compositional Zero-Shot Learning", CVPR 2021,
    https://arxiv.org/abs/2101.12609

    Args:
        space: label space.
        scale: factor of the cosines in the loss.
        margin: factor of the margins; None for a loss over seen pairs, without margins.
        ramp_epochs: number of epochs after which the ramp is 1.
        before: treatment of unseen pairs before the first update: ``replace`` gives them the cosine -10, ``add`` adds
            -10 to their cosines.
    """

    version = 1

    margins: Tensor  # [A * O], in product(attrs, objs) order; 0 for seen pairs
    hidden: Tensor  # [A * O] bool, pairs whose cosine is replaced by -10

    def __init__(
        self,
        space: PairSpace,
        scale: float,
        margin: float | None = None,
        ramp_epochs: int = 15,
        *,
        before: Literal["replace", "add"] = "replace",
    ) -> None:
        super().__init__()
        self.scale, self.margin, self.ramp_epochs, self.objs = scale, margin, ramp_epochs, len(space.objs)
        self.register_buffer("one", torch.zeros(()), persistent=False)  # log of the scale of the scores
        self.one: Tensor
        if margin is not None:
            unseen = torch.ones(len(space.attrs) * len(space.objs), dtype=torch.bool)
            unseen[space.flat()[space.seen]] = False
            self.register_buffer("hidden", unseen & (before == "replace"))
            self.register_buffer("margins", torch.where(unseen & (before == "add"), FIRST_EPOCH, 0.0))

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        assert text.pair is not None
        return Scores(cosine(image.pooled, text.pair, self.one))

    def logits(self, scores: Scores, pairs: Tensor) -> Tensor:
        """Return the logits of the loss, ``[B, P]``."""
        if self.margin is None:
            return self.scale * scores.pair
        columns = pairs[:, 0] * self.objs + pairs[:, 1]
        return self.scale * (scores.pair.masked_fill(self.hidden[columns], FIRST_EPOCH) + self.margins[columns])

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(scores, pairs), pair_targets(batch, pairs))

    def score_scale(self) -> float:
        return self.scale

    @torch.no_grad()
    def update(self, feasibility: Tensor, epoch: int) -> None:
        """Set the margins at the end of an epoch.

        Args:
            feasibility: ``[A * O]``, feasibility of every pair, 0 for seen pairs.
            epoch: the epoch, counted from 0.
        """
        assert self.margin is not None
        ramp = min(1.0, (epoch + 1) / self.ramp_epochs)
        self.margins.copy_(-self.margin * ramp * feasibility)
        self.hidden.zero_()
