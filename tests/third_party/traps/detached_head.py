"""Trap: the learned layer of the images is applied without gradients."""

from dataclasses import replace

import torch

from czslkit import METHODS
from czslkit_plugins.csp import Csp


@METHODS.register("detached-head")
class DetachedHead(Csp):
    version = 1

    def __init__(self, options, space):
        super().__init__(options, space)
        self.image_head = torch.nn.Linear(self.backbone.dim, self.backbone.dim)

    def encode(self, images):
        with torch.no_grad():
            image = super().encode(images)
            return replace(image, pooled=image.pooled + self.image_head(image.pooled))
