"""Trap: a stream whose memory belongs to the class, so that a pass starts with the memory of the pass before."""

import torch.nn.functional as F

from czslkit import METHODS, ImageFeatures
from czslkit.types import VALIDATION
from czslkit_plugins.csp import Csp


@METHODS.register("leaking-stream")
class LeakingStream(Csp):
    version = 1
    streams = True
    memory = []

    def rank(self, images, text, setting=VALIDATION):
        image = images if isinstance(images, ImageFeatures) else self.encode(images)
        scores = super().rank(image, text, setting)
        self.memory.append(F.normalize(image.pooled, dim=-1))  # [1, D]
        mean = sum(self.memory) / len(self.memory)
        return scores + mean @ F.normalize(text.pair, dim=-1).T
