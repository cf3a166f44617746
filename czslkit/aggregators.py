"""Aggregators that several methods share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from .components import AGGREGATORS, Aggregator
from .linear import Linear
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


@AGGREGATORS.register("mlp")
class ImageMlp(Aggregator):
    """An aggregator that changes the pooled vector of an image by layers ``Linear, LayerNorm, ReLU, Dropout``.

    Args:
        width: width of the pooled vector.
        dim: width of the result.
        hidden: widths of the hidden layers; none for a single linear layer.
        norm: use layer norms.
        dropout: dropout after each hidden layer; None for none.
        relu: end with a ReLU.
    """

    version = 1

    def __init__(
        self,
        width: int,
        dim: int,
        hidden: Sequence[int] = (),
        *,
        norm: bool = True,
        dropout: float | None = 0.5,
        relu: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in hidden:
            layers += [Linear(width, number), *[nn.LayerNorm(number)] * norm, nn.ReLU()]
            layers += [] if dropout is None else [nn.Dropout(dropout)]
            width = number
        self.mod = nn.Sequential(*layers, Linear(width, dim), *[nn.ReLU()] * relu)

    def forward(self, image: ImageFeatures) -> ImageFeatures:
        return replace(image, pooled=self.mod(image.pooled))
