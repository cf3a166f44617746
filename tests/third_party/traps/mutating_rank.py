"""Trap: a head whose ``rank`` changes the scores that it is given."""

from czslkit import METHODS
from czslkit.heads import CosineHead
from czslkit_plugins.csp import Csp


class MutatingHead(CosineHead):
    version = 1

    def rank(self, scores, pairs, setting=None):
        return scores.pair.mul_(0.5)


@METHODS.register("mutating-rank")
class MutatingRank(Csp):
    version = 1

    def __init__(self, options, space):
        super().__init__(options, space)
        self.head = MutatingHead(self.backbone.scale)
