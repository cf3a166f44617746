"""Trap: text features are kept from the first validation on, although the words are learned."""

import torch

from czslkit import METHODS
from czslkit_plugins.csp import Csp


@METHODS.register("kept-text")
class KeptText(Csp):
    version = 1
    recipe = {"lr": 0.1}

    def __init__(self, options, space):
        super().__init__(options, space)
        self.kept = {}

    def text(self, pairs):
        if torch.is_grad_enabled():
            return super().text(pairs)
        key = tuple(pairs.flatten().tolist())
        if key not in self.kept:
            self.kept[key] = super().text(pairs)
        return self.kept[key]
