"""Trap: what a hook decides in the second epoch is forgotten when the training is resumed later."""

from czslkit import METHODS
from czslkit_plugins.csp import Csp


@METHODS.register("lost-decision")
class LostDecision(Csp):
    version = 1

    def __init__(self, options, space):
        super().__init__(options, space)
        self.factor = 1.0

    def before_epoch(self, position):
        if position.epoch == 1:
            self.factor = 3.0

    def loss(self, batch, pairs):
        return super().loss(batch, pairs) + self.factor * self.prompt.words.square().sum() / 10
