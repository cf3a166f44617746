"""A backbone without an image encoder, for methods that were trained on features of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..components import Backbone
from ..errors import ConfigError
from ..types import ImageFeatures, Preprocessing


class GivenFeatures(Backbone):
    """A backbone whose image features are given by the caller, as ``ImageFeatures(pooled)``.

    A method that uses a visual layer takes it as ``ImageFeatures(pooled, (layer,))``.

    Args:
        dim: width of the features.
    """

    version = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.depth, self.visual_tokens, self.visual_width, self.token_width = 1, 0, 0, 0
        self.preprocessing = Preprocessing()
        self.register_buffer("scale", torch.zeros(()), persistent=False)

    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        raise ConfigError(
            [
                f"images cannot be encoded: the method was loaded without its image encoder, for features of width "
                f"{self.dim}. Give ImageFeatures(pooled), or load it with backbone="
            ]
        )
