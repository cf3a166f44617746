"""The identity interaction, and the cross-attention layer that several methods use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .components import INTERACTIONS, Backbone, Interaction
from .linear import Linear
from .types import ImageFeatures, TextFeatures


@INTERACTIONS.register("none")
class NoInteraction(Interaction):
    """An interaction that returns image and text unchanged."""

    version = 1

    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        return image, text


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the activation of OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(1.702 * x) / 1.702  # the same function in one fused operation


class CrossAttention(nn.Module):
    """A layer with attention of texts to an image's tokens and an MLP, both residual (Troika, MSCI).

    Texts do not attend to each other, so one call may contain texts of several branches.

    Args:
        dim: width ``D`` of texts and tokens.
        heads: number of attention heads; it must divide ``dim``.
        dropout: dropout after the attention's output, inside the MLP and after the MLP.

    Raises:
        ValueError: ``heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} attention heads do not divide the joint width {dim}")
        self.heads = heads
        self.query, self.key, self.value = (Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Sequential(Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            Linear(dim, 4 * dim), QuickGELU(), nn.Dropout(dropout), Linear(4 * dim, dim), nn.Dropout(dropout)
        )

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        """Return the texts after the layer, ``[B, N, D]``.

        Args:
            query: texts, ``[N, D]`` or ``[B, N, D]``.
            context: image tokens, ``[B, T, D]``.
        """
        q = self._split(self.query(query))  # projected before it is repeated over the images
        k, v = self._split(self.key(context)), self._split(self.value(context))  # [B, heads, T, D / heads]
        attended = F.scaled_dot_product_attention(q.expand(context.shape[0], -1, -1, -1), k, v)
        query = query + self.out(attended.transpose(1, 2).flatten(2))
        hidden: Tensor = query + self.mlp(self.norm(query))
        return hidden

    def attention(self, query: Tensor, context: Tensor) -> Tensor:
        """Return the attention weights that ``forward`` uses, ``[B, heads, N, T]``; they sum to 1 over ``T``."""
        q, k = self._split(self.query(query)), self._split(self.key(context))
        return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        """Split ``[N, D]`` or ``[B, N, D]`` into heads, ``[1 or B, heads, N, D / heads]``."""
        return x.view(-1, x.shape[-2], self.heads, x.shape[-1] // self.heads).transpose(1, 2)


def attended(layers: Iterable[nn.Module], query: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Return texts after a chain of ``CrossAttention`` layers, and the attention of these layers.

    Returns:
        Texts ``[B, N, D]``, and the attention's mean over heads and layers, ``[B, N, T]``.
    """
    attention = []
    for layer in layers:
        assert isinstance(layer, CrossAttention)
        attention.append(layer.attention(query, context).mean(1))
        query = layer(query, context)
    return query, torch.stack(attention).mean(0)


def contributions(moves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the norm of each stage's move ``[..., D]`` divided by the sum of all norms, ``[...]``; 0 if all are 0.

    >>> found = contributions({"local": torch.tensor([[3.0, 4], [0, 0]]), "global": torch.tensor([[0.0, 15], [0, 0]])})
    >>> found["local"].tolist(), found["global"].tolist()
    ([0.25, 0.0], [0.75, 0.0])
    """
    norms = {stage: move.norm(dim=-1) for stage, move in moves.items()}
    total = torch.stack(list(norms.values())).sum(0)
    return {stage: norm / total.clamp(min=torch.finfo(norm.dtype).tiny) for stage, norm in norms.items()}
