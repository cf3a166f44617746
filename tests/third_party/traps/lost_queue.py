"""Trap: a queue in a Python list, which a resumed training starts with empty."""

import torch

from czslkit import METHODS
from czslkit_plugins.csp import Csp


@METHODS.register("lost-queue")
class LostQueue(Csp):
    version = 1

    def __init__(self, options, space):
        super().__init__(options, space)
        self.queue = []

    def loss(self, batch, pairs):
        loss = super().loss(batch, pairs)
        if self.training:
            weight = torch.tensor(self.queue).mean() if self.queue else 1
            self.queue.append(loss.item())
            return loss * weight
        return loss
