"""Balanced: every pair is drawn equally often, beside images of the same object in another state.

The prior of the pairs in the training split is added to the logits of the loss (Menon et al., "Long-tail learning via
logit adjustment", ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import LearnedWordOptions, SoftPrompt
from czslkit.training_hooks import TrainingData
from czslkit.types import Batch, PairSpace, pair_targets


@dataclass(frozen=True)
class BalancedOptions(LearnedWordOptions):
    margin: float = option(1.0, "logit margin between an image's pair and its hard negative", minimum=0)


@METHODS.register("balanced")
class Balanced(Method):
    """Learned words with a sampler, hard negatives and a prior of the pairs."""

    version = 1
    Options = BalancedOptions
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}

    def __init__(self, options: BalancedOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = SoftPrompt(backbone, space, context=options.context, dropout=options.word_dropout)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
        self.margin = options.margin
        self.register_buffer("log_prior", torch.zeros(len(space.attrs), len(space.objs)))
        self.log_prior: Tensor

    def prepare(self, data: TrainingData) -> None:
        attr, obj = data.space.pairs.T
        counts = torch.zeros_like(self.log_prior)
        counts[attr, obj] = data.pair_counts.to(counts)
        self.log_prior.copy_((counts + 1).log() - (counts + 1).sum().log())

    def sample_order(self, data: TrainingData, epoch: int, generator: Generator) -> Tensor:
        weights = 1 / data.pair_counts[data.pair].double()
        return torch.multinomial(weights, len(data), replacement=True, generator=generator)

    def companions(self, data: TrainingData, index: Tensor, generator: Generator) -> Mapping[str, Tensor]:
        """Return for each image an image of the same object with another attribute, or itself if there is none."""
        same_object = data.obj[index, None] == data.obj
        other_state = data.attr[index, None] != data.attr
        weights = (same_object & other_state).double()  # [B, N]
        weights[weights.sum(1) == 0, :] += F.one_hot(index[weights.sum(1) == 0], len(data))
        return {"negative": torch.multinomial(weights, 1, generator=generator)[:, 0]}

    def loss(self, batch: Batch, pairs: Tensor) -> dict[str, Tensor]:
        text = self.text(pairs)
        target = pair_targets(batch, pairs)
        logits = self(batch.images, text).pair + self.log_prior[pairs[:, 0], pairs[:, 1]]
        parts = {"pair": F.cross_entropy(logits, target)}
        if "negative" in batch.companions:  # a validation batch has no companions
            negative = self(batch.companions["negative"].images, text).pair  # [B, P]
            rows = torch.arange(len(target), device=target.device)
            different = batch.companions["negative"].attr != batch.attr
            gap = self.margin + negative[rows, target] - logits[rows, target]
            parts["negative"] = (F.relu(gap) * different).mean()
        return parts
