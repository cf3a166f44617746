"""Trap: the loss is an attribute of the object, so the validation does not use it."""

from czslkit import METHODS, Method
from czslkit_plugins.csp import Csp


@METHODS.register("ignored-loss")
class IgnoredLoss(Csp):
    version = 1

    def __init__(self, options, space):
        super().__init__(options, space)
        self.loss = self.smoothed

    def smoothed(self, batch, pairs):
        return Method.loss(self, batch, pairs) + 0.1 * self.prompt.words.square().sum()
