"""The attention blocks of ADE, and the distance between two images by the attention of one to the other."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.aggregators import ImageMlp
from czslkit.components import Aggregator
from czslkit.errors import ConfigError
from czslkit.linear import Linear
from czslkit.types import ImageFeatures

#: Number of tokens above which the attention is averaged over 2 x 2 patches before images are compared.
MOST_TOKENS = 100
#: Least weight of a patch, as a share of the weights of all patches.
LEAST_WEIGHT = 1e-5


@dataclass(frozen=True)
class AdeImage(ImageFeatures):
    """Image features for the pair (``pooled``), for the attribute and for the object."""

    attr: Tensor | None = None  # [B, D]
    obj: Tensor | None = None  # [B, D]


class AttentionBlock(nn.Module):
    """An attention of one image's tokens to those of another, and an MLP; only the first token leaves it.

    Args:
        width: width of a token.
        heads: number of attention heads.

    Raises:
        ValueError: the width is not a multiple of the heads.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} attention heads do not divide the width {width} of the image tokens")
        self.heads = heads
        self.norm1, self.norm2, self.norm_last = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key_value = Linear(width, width, bias=False), Linear(width, 2 * width, bias=False)
        self.projection = Linear(width, width)
        self.mlp = nn.Sequential(Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width))

    def attend(self, query: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return attention ``[B, heads, T, T]`` and values ``[B, heads, T, width / heads]``.

        Args:
            query: tokens that attend, ``[B, T, width]``; fewer tokens make fewer rows.
            other: tokens that are attended to, ``[B, T, width]``.
        """
        query = self._split(self.query(self.norm1(query)))
        key, value = map(self._split, self.key_value(self.norm1(other)).chunk(2, -1))
        attention = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        return attention.softmax(-1), value

    def forward(self, query: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new first token of ``query``, ``[B, width]``, and the attention; see ``attend``."""
        attention, value = self.attend(query, other)
        first = (attention[:, :, :1] @ value).transpose(1, 2).flatten(2)[:, 0]
        hidden = query[:, 0] + self.projection(first)
        return self.norm_last(hidden + self.mlp(self.norm2(hidden))), attention

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, width / heads]


class AttentionBlocks(Aggregator):
    """An aggregator with an attention block and layers for each of pair, attribute and object.

    In evaluation, an image attends to itself.

    Args:
        width: width of the tokens of the image.
        heads: number of attention heads.
        layers: layers after the blocks for pair, attribute and object.
    """

    version = 1

    def __init__(self, width: int, heads: int, layers: tuple[ImageMlp, ImageMlp, ImageMlp]) -> None:
        super().__init__()
        self.pair, self.attr, self.obj = (AttentionBlock(width, heads) for _ in range(3))
        self.pair_layers, self.attr_layers, self.obj_layers = layers

    def layers(self, depth: int) -> tuple[int, ...]:
        if depth < 1:
            raise ValueError("the attention blocks need the tokens of an image, the backbone returns none")
        return (depth - 1,)

    def forward(self, image: ImageFeatures) -> AdeImage:
        (tokens,) = image.layers
        first = tokens[:, :1]  # the other tokens attend in training only, to compare images
        pair, attr, obj = (block(first, tokens)[0] for block in (self.pair, self.attr, self.obj))
        return self.project(pair, attr, obj)

    def project(self, pair: Tensor, attr: Tensor, obj: Tensor) -> AdeImage:
        """Return the features of an image from the first tokens that left the blocks, ``[B, width]`` each."""
        pooled, attr, obj = (
            layers(ImageFeatures(token)).pooled
            for layers, token in ((self.pair_layers, pair), (self.attr_layers, attr), (self.obj_layers, obj))
        )
        return AdeImage(pooled, attr=attr, obj=obj)


def similarity(forth: Tensor, back: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how much the patches of two images attend to each other, and the weights of the patches.

    Args:
        forth: attention of the first image to the second, ``[B, heads, T, T]``, class token first.
        back: attention of the second image to the first.

    Returns:
        Similarity ``[B, n, n]`` with a row for each patch of the first image, weights of the rows ``[B, n]`` and of the
        columns ``[B, n]``, which have the sum ``n``. Gradients reach the similarity only.

    Raises:
        ValueError: the patches of more than 100 tokens are not a grid of even size.
    """
    forth, back = (_pooled(attention.float().sum(1)) for attention in (forth, back))
    found = (forth[:, 1:, 1:] + back[:, 1:, 1:].transpose(1, 2)) / 2
    return found, _weights(back[:, 0, 1:].detach()), _weights(forth[:, 0, 1:].detach())


def transported(similarity: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the mean over images of the similarity of the patches that an optimal transport joins, a scalar.

    The transport is a constant for the gradient.

    Args:
        similarity, rows, columns: see :func:`similarity`.

    Raises:
        ConfigError: the package POT is not installed.
    """
    check_solver()
    flow = transport(1 - similarity.detach(), rows, columns)
    return (flow * similarity).sum((1, 2)).mean()


def check_solver() -> None:
    """Check that the package POT is installed, which solves the transport problems.

    Raises:
        ConfigError: it is not installed.
    """
    if not importlib.util.find_spec("ot"):
        raise ConfigError(
            [
                "training ade needs the package POT for optimal transport, which is not installed: pip install POT. "
                "A trained ade is evaluated without it"
            ]
        )


@torch.library.custom_op("czslkit::transport", mutates_args=())
def transport(cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the transport of least cost of every image, ``[B, n, m]``; it has no gradient.

    Args:
        cost: cost of every route, ``[B, n, m]``.
        rows: amounts that leave, ``[B, n]``.
        columns: amounts that arrive, ``[B, m]``, with the same sum.
    """
    import ot

    leaving, arriving, costs = (tensor.cpu().numpy().astype(np.float64) for tensor in (rows, columns, cost))
    leaving *= leaving.shape[1] / leaving.sum(1, keepdims=True)  # the solver needs equal sums
    arriving *= leaving.shape[1] / arriving.sum(1, keepdims=True)
    flows = [ot.emd(*problem) for problem in zip(leaving, arriving, costs, strict=True)]
    return torch.from_numpy(np.stack(flows).astype(np.float32)).to(cost)


@transport.register_fake
def _shape(cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return torch.empty_like(cost)


def _pooled(attention: Tensor) -> Tensor:
    """Return attention ``[B, T, T]``, if it has many tokens as means over 2 x 2 patches, class token as it is."""
    if attention.shape[1] <= MOST_TOKENS:
        return attention
    for _ in range(2):  # columns, then rows
        attention = torch.cat((attention[:, :, :1], _pooled_columns(attention[:, :, 1:])), 2).transpose(1, 2)
    return attention


def _pooled_columns(attention: Tensor) -> Tensor:
    side = math.isqrt(attention.shape[2])
    if side * side != attention.shape[2] or side % 2:
        raise ValueError(
            f"an image has {attention.shape[2]} patches; more than {MOST_TOKENS - 1} must be a square of even size"
        )
    return F.avg_pool2d(attention.unflatten(2, (side, side)), 2).flatten(2)


def _weights(attention: Tensor) -> Tensor:
    weights = (attention / attention.sum(1, keepdim=True)).clamp(min=0) + LEAST_WEIGHT
    return weights * weights.shape[1] / weights.sum(1, keepdim=True)
