"""Trap: scores that depend on the other candidates, without ``chunkable = False``."""

from czslkit import METHODS
from czslkit.types import VALIDATION
from czslkit_plugins.csp import Csp


@METHODS.register("candidate-softmax")
class CandidateSoftmax(Csp):
    version = 1

    def rank(self, images, text, setting=VALIDATION):
        return super().rank(images, text, setting).softmax(1)
