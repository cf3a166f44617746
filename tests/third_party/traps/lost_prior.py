"""Trap: a tensor of ``prepare`` in an attribute, which a checkpoint does not have."""

import torch

from czslkit import METHODS
from czslkit.types import VALIDATION
from czslkit_plugins.csp import Csp


@METHODS.register("lost-prior")
class LostPrior(Csp):
    version = 1

    def __init__(self, options, space):
        super().__init__(options, space)
        self.prior = torch.zeros(len(space.attrs), len(space.objs))

    def prepare(self, data):
        self.prior[data.attr, data.obj] = 1.0

    def rank(self, images, text, setting=VALIDATION):
        return super().rank(images, text, setting) + self.prior[text.pairs[:, 0], text.pairs[:, 1]]
