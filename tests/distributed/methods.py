"""Methods that processes cannot train on shares of a batch, or whose hooks keep something; a plugin of one file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.prompts import SoftPrompt
from czslkit.training_hooks import AveragedWeights
from czslkit.types import Batch, PairSpace


@dataclass(frozen=True)
class Options:
    backbone: str = "demo"


class _OwnLoss(Method):
    Options = Options

    def __init__(self, options: Options, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = SoftPrompt(backbone, space, dropout=0.3)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))


@METHODS.register("contrastive")
class Contrastive(_OwnLoss):
    """A method whose loss compares the images of a batch, and which averages its weights."""

    def __init__(self, options: Options, space: PairSpace) -> None:
        super().__init__(options, space)
        self.average = AveragedWeights(self, 0.5)

    def loss(self, batch: Batch, pairs: Tensor) -> dict[str, Tensor]:
        scores = self(batch.images, self.text(pairs)).pair.softmax(-1)
        near = scores @ scores.T
        same = (batch.attr[:, None] == batch.attr) & (batch.obj[:, None] == batch.obj)
        return {"pair": self.head.loss(self(batch.images, self.text(pairs)), batch, pairs), "near": near[~same].mean()}

    def after_step(self, position: object) -> None:
        self.average.update(self)

    def evaluation_weights(self) -> dict[str, Tensor]:
        return self.average.tensors()


@METHODS.register("remembering")
class Remembering(_OwnLoss):
    """A method whose loss keeps the features of the last batch."""

    def __init__(self, options: Options, space: PairSpace) -> None:
        super().__init__(options, space)
        self.register_buffer("last", torch.zeros(self.backbone.dim))

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor:
        image = batch.images if not isinstance(batch.images, Tensor) else self.encode(batch.images)
        loss = self.head.loss(self(image, self.text(pairs)), batch, pairs) + self.last.mean()
        self.last.copy_(image.pooled.detach().mean(0))
        return loss
