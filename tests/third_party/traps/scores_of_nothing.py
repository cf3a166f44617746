"""Trap: ``rank`` computes the scores and does not return them."""

from czslkit import METHODS
from czslkit.types import VALIDATION
from czslkit_plugins.csp import Csp


@METHODS.register("scores-of-nothing")
class ScoresOfNothing(Csp):
    version = 1

    def rank(self, images, text, setting=VALIDATION):
        super().rank(images, text, setting)
