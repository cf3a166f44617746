"""Trap: adapters of the visual tower that no gradient reaches, in a backbone that encodes images without gradients."""

from dataclasses import replace

import torch

from czslkit import METHODS
from czslkit_plugins.csp import Csp


class Adapted(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.down = torch.nn.Linear(backbone.dim, 4)
        self.up = torch.nn.Linear(4, backbone.dim)
        encode = backbone.encode_image

        def encode_image(images, layers=()):
            image = encode(images, layers)
            return replace(image, pooled=image.pooled + self.up(self.down(image.pooled)).detach())

        backbone.encode_image = encode_image


@METHODS.register("idle-adapters")
class IdleAdapters(Csp):
    version = 1

    def __init__(self, options, space):
        super().__init__(options, space)
        self.adapters = Adapted(self.backbone)
