"""CLIP zero-shot: the cosine of image and ``"a photo of ATTRIBUTE OBJECT"``.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021. https://arxiv.org/abs/2103.00020
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import FixedPrompt
from czslkit.translation import Translation
from czslkit.types import PairSpace


@dataclass(frozen=True)
class ClipOptions:
    """The options of zero-shot CLIP."""

    backbone: str = option("ViT-L-14-quickgelu/openai", "CLIP model and weights")
    context: str = option("a photo of", "words before the pair")


@METHODS.register("clip")
class Clip(Method):
    """Zero-shot CLIP, without training."""

    version = 1
    display_name = "CLIP"
    citation = """
@inproceedings{radford2021clip,
  author = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and others},
  title = {Learning Transferable Visual Models From Natural Language Supervision},
  booktitle = {International Conference on Machine Learning},
  year = {2021}
}
"""
    Options = ClipOptions
    translation = Translation(names={}, fixed={"experiment_name": "clip"})

    def __init__(self, options: ClipOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=FixedPrompt(space, options.context),
            head=CosineHead(backbone.scale),
        )
        self.options = options

    def with_words(self, space: PairSpace) -> Clip:
        options: Any = replace(self.options, backbone=self.backbone)  # type: ignore[arg-type]
        return Clip(options, space).eval()
