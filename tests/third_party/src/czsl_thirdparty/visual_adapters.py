"""Visual adapters: low-rank layers in the last blocks of the visual tower, beside fixed sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import FixedPrompt
from czslkit.types import PairSpace


@dataclass(frozen=True)
class VisualAdaptersOptions:
    backbone: str = option("ViT-L-14-quickgelu/openai", "CLIP model and weights")
    blocks: int = option(2, "number of adapted blocks, from the last one back", minimum=1)
    rank: int = option(4, "width of the bottleneck of an adapter", minimum=1)


@METHODS.register("visual-adapters")
class VisualAdapters(Method):
    """Adapters parallel to the MLP of the last visual blocks."""

    version = 1
    Options = VisualAdaptersOptions
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}

    def __init__(self, options: VisualAdaptersOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)

        def low_rank(width: int) -> nn.Module:
            return nn.Sequential(nn.Linear(width, options.rank, bias=False), nn.Linear(options.rank, width, bias=False))

        blocks = range(backbone.depth)[-options.blocks :]
        backbone.add_adapters(low_rank, tower="visual", blocks=blocks, kinds=("mlp",))
        super().__init__(space=space, backbone=backbone, prompt=FixedPrompt(space), head=CosineHead(backbone.scale))
