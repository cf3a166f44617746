"""Trap: random numbers from a generator that nobody seeds."""

import random

from czslkit import METHODS
from czslkit_plugins.csp import Csp


@METHODS.register("other-generator")
class OtherGenerator(Csp):
    version = 1

    def loss(self, batch, pairs):
        return super().loss(batch, pairs) * (random.uniform(0.5, 1.5) if self.training else 1)
