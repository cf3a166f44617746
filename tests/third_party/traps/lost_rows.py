"""Trap: text features with a bias for each pair that ``by_pair`` does not return."""

from dataclasses import dataclass, replace

import torch

from czslkit import METHODS, TextFeatures
from czslkit.types import VALIDATION
from czslkit_plugins.csp import Csp


@dataclass(frozen=True)
class BiasedText(TextFeatures):
    bias: torch.Tensor = torch.empty(0)  # [P]


@METHODS.register("lost-rows")
class LostRows(Csp):
    version = 1

    def text(self, pairs):
        text = super().text(pairs)
        return BiasedText(**vars(text), bias=text.pair.mean(1))

    def rank(self, images, text, setting=VALIDATION):
        bias = text.bias
        return super().rank(images, replace(text, bias=torch.empty(0)), setting) + bias
