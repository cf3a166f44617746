"""Learned head: a learned network on the image features.

Not from a paper: it shows how a method learns on the side of the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import FixedPrompt
from czslkit.types import ImageFeatures, PairSpace


@dataclass(frozen=True)
class LearnedHeadOptions:
    backbone: str = option("ViT-L-14-quickgelu/openai", "CLIP model and weights")
    hidden: int = option(32, "width of the hidden layer", minimum=1)


@METHODS.register("learned-head")
class LearnedHead(Method):
    """A two-layer network on the pooled image, beside fixed sentences."""

    version = 1
    Options = LearnedHeadOptions
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3, "augment": False, "warmup_epochs": 0.5}

    def __init__(self, options: LearnedHeadOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        super().__init__(space=space, backbone=backbone, prompt=FixedPrompt(space), head=CosineHead(backbone.scale))
        self.image_head = nn.Sequential(
            nn.Linear(backbone.dim, options.hidden),
            nn.GELU(),
            nn.Linear(options.hidden, backbone.dim),
        )

    def encode(self, images: Tensor) -> ImageFeatures:
        image = super().encode(images)
        return replace(image, pooled=image.pooled + self.image_head(image.pooled))
