"""Trap: scores that depend on the other images of the batch, without ``independent = False``."""

from czslkit import METHODS
from czslkit.types import VALIDATION
from czslkit_plugins.csp import Csp


@METHODS.register("batch-statistics")
class BatchStatistics(Csp):
    version = 1

    def rank(self, images, text, setting=VALIDATION):
        scores = super().rank(images, text, setting)
        return scores - scores.mean(0)
