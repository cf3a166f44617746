"""CoOp: learn the context of the prompt, with fixed words of attributes and objects.

Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022.
https://arxiv.org/abs/2109.01134; applied to pairs as in Nayak, Yu and Bach, ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.prompts import SoftPrompt, SoftPromptOptions
from czslkit.translation import Translation
from czslkit.types import PairSpace


@METHODS.register("coop")
class Coop(Method):
    """CoOp: a learned prompt context that all pairs share."""

    version = 1
    display_name = "CoOp"
    citation = """
@article{zhou2022coop,
  author = {Zhou, Kaiyang and Yang, Jingkang and Loy, Chen Change and Liu, Ziwei},
  title = {Learning to Prompt for Vision-Language Models},
  journal = {International Journal of Computer Vision},
  year = {2022}
}
"""
    Options = SoftPromptOptions
    translation = Translation(names={r"prompt\.context\.0": "soft_embeddings"}, fixed={"experiment_name": "coop"})
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 5e-5, "accumulation": 2, "schedule": "constant"}

    def __init__(self, options: SoftPromptOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = SoftPrompt(
            backbone,
            space,
            context=options.context,
            context_length=options.context_length,
            learn_words=False,
            learn_context=True,
        )
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
        self.options = options

    def with_words(self, space: PairSpace) -> Coop:
        options: Any = replace(self.options, backbone=self.backbone)  # type: ignore[arg-type]
        other = Coop(options, space)
        other.load_state_dict({name: value for name, value in self.state_dict().items() if "context" in name}, False)
        return other.eval()
