"""Trap: a hook changes the image encoder, although its features are computed only once."""

from dataclasses import replace

import torch

from czslkit import METHODS
from czslkit_plugins.csp import Csp


@METHODS.register("moving-encoder")
class MovingEncoder(Csp):
    version = 1
    recipe = {"augment": False}

    def __init__(self, options, space):
        super().__init__(options, space)
        self.register_buffer("shift", torch.zeros(self.backbone.dim))

    def encode(self, images):
        image = super().encode(images)
        return replace(image, pooled=image.pooled + self.shift)

    def after_step(self, position):
        self.shift += 0.1 * torch.linspace(-1, 1, len(self.shift))
