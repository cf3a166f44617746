"""CSP: learn one word embedding for each attribute and object, with a fixed context of the prompt.

Nayak, Yu and Bach, "Learning to Compose Soft Prompts for Compositional Zero-Shot
Learning", ICLR 2023. https://arxiv.org/abs/2204.03574
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.prompts import LearnedWordOptions, SoftPrompt
from czslkit.translation import Translation
from czslkit.types import PairSpace


@METHODS.register("csp")
class Csp(Method):
    """CSP: learned words of attributes and objects in a fixed context."""

    version = 1
    display_name = "CSP"
    citation = """
@inproceedings{nayak2023csp,
  author = {Nayak, Nihal V. and Yu, Peilin and Bach, Stephen H.},
  title = {Learning to Compose Soft Prompts for Compositional Zero-Shot Learning},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}
"""
    Options = LearnedWordOptions
    translation = Translation(
        names={r"prompt\.words": "soft_embeddings"},
        settings={"attr_dropout": "word_dropout"},
        fixed={"experiment_name": "csp"},
    )
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 5e-5, "accumulation": 2, "schedule": "constant"}

    def __init__(self, options: LearnedWordOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = SoftPrompt(
            backbone,
            space,
            context=options.context,
            context_length=options.context_length,
            dropout=options.word_dropout,
        )
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
