"""Aggregators that several methods share."""

from __future__ import annotations

from dataclasses import replace

from .components import AGGREGATORS, Aggregator
from .types import ImageFeatures


@AGGREGATORS.register("pooled")
class Pooled(Aggregator):
    """An aggregator without visual layers: only the pooled vector of the image is used."""

    version = 1

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        return image


@AGGREGATORS.register("last_layer")
class LastLayer(Aggregator):
    """An aggregator that uses all tokens of the last visual layer as one level."""

    version = 1

    def layers(self, depth: int) -> tuple[int, ...]:
        if depth < 1:
            raise ValueError("last_layer needs a visual tower with layers, the backbone returns none")
        return (depth - 1,)

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        return replace(image, levels=image.layers)
