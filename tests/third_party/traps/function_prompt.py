"""Trap: the prompt is a function, whose parameters are never trained or saved."""

import torch

from czslkit import METHODS, Method, TextFeatures, load_backbone
from czslkit.heads import CosineHead
from czslkit.prompts import LearnedWordOptions


@METHODS.register("function-prompt")
class FunctionPrompt(Method):
    version = 1
    Options = LearnedWordOptions

    def __init__(self, options, space):
        backbone = load_backbone(options.backbone)
        attrs, objs = (torch.nn.Parameter(torch.randn(len(w), backbone.dim)) for w in (space.attrs, space.objs))

        def prompt(backbone, pairs):
            return TextFeatures(pairs, attrs[pairs[:, 0]] + objs[pairs[:, 1]])

        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
