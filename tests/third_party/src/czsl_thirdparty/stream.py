"""Prototype stream: the test images that a method has named confidently become prototypes of their pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import LearnedWordOptions, SoftPrompt
from czslkit.types import VALIDATION, ImageFeatures, PairSpace, Setting, TextFeatures


@dataclass(frozen=True)
class PrototypeStreamOptions(LearnedWordOptions):
    rate: float = option(0.1, "weight of a new image in the prototype of its pair", minimum=0, maximum=1)
    weight: float = option(5.0, "weight of the prototypes in the score", minimum=0)


@METHODS.register("prototype-stream")
class PrototypeStream(Method):
    """Learned words, and prototypes of pairs that are updated while test images are scored."""

    version = 1
    streams = True
    chunkable = False
    Options = PrototypeStreamOptions
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}

    def __init__(self, options: PrototypeStreamOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = SoftPrompt(backbone, space, context=options.context, dropout=options.word_dropout)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
        self.rate, self.weight = options.rate, options.weight
        self.prototypes = torch.empty(0)

    def begin(self, setting: Setting, candidates: Tensor) -> None:
        self.prototypes = torch.zeros(len(candidates), self.backbone.dim, device=candidates.device)

    def rank(self, images: Tensor | ImageFeatures, text: TextFeatures, setting: Setting = VALIDATION) -> Tensor:
        image = images if isinstance(images, ImageFeatures) else self.encode(images)
        scores = super().rank(image, text, setting)  # [1, P]
        pooled = F.normalize(image.pooled, dim=-1)
        adapted = scores + self.weight * pooled @ self.prototypes.T
        named = int(adapted.argmax())
        self.prototypes[named] = torch.lerp(self.prototypes[named], pooled[0], self.rate)
        return adapted
