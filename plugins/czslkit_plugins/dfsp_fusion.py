"""The fusion layers of DFSP: attention of decomposed texts to an image, and of an image to decomposed texts.

Decomposed texts are one sequence of tokens for every attribute and every object, ``[A + O, L, W]``.
"""

from __future__ import annotations

from torch import Tensor, nn

from czslkit.backbones.openai_format import HEAD_WIDTH
from czslkit.interactions import QuickGELU
from czslkit.linear import Linear
from czslkit.shares import computing


class Block(nn.Module):
    """A layer with attention and an MLP on sequences ``[N, L, W]``, both with pre-norm and residual connection.

    Args:
        width: width ``W`` of a token.
        cross: attend to a second sequence instead of to ``x`` itself.
        dropout: dropout inside the MLP.
    """

    def __init__(self, width: int, *, cross: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, max(1, width // HEAD_WIDTH), batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.norm_other = nn.LayerNorm(width) if cross else None
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(Linear(width, 4 * width), QuickGELU(), nn.Dropout(dropout), Linear(4 * width, width))

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Return ``x`` ``[N, L, W]`` after attention to itself, or to ``other`` ``[N, K, W]`` with ``cross``."""
        query = self.norm(x)
        context = query if self.norm_other is None else self.norm_other(other)
        x = x + self.attn(query, context, context, need_weights=False)[0]
        hidden: Tensor = x + self.mlp(self.norm_mlp(x))
        return hidden


def self_attention(width: int, layers: int) -> nn.Sequential:
    """Return the self-attention layers that follow a fusion, for tokens of width ``width``."""
    return nn.Sequential(*(Block(width, dropout=0.3) for _ in range(layers)))


class ImageToText(nn.Module):
    """A layer that lets decomposed texts attend to an image, after mapping image tokens to one for each text token.

    Args:
        visual_width: width ``V`` of an image token.
        width: width ``W`` of a text token.
        tokens: number of image tokens ``T``.
        primitives: number of attributes and objects, ``A + O``.
        length: number of tokens in a prompt, ``L``.
        layers: number of self-attention layers after the fusion.
        batch_mixing: ``original`` mixes the images of a batch as the released program does; ``none`` does not.
    """

    def __init__(
        self, visual_width: int, width: int, tokens: int, primitives: int, length: int, layers: int, batch_mixing: str
    ) -> None:
        super().__init__()
        self.primitives, self.length, self.batch_mixing = primitives, length, batch_mixing
        self.project, self.place = Linear(visual_width, width), Linear(tokens, length * primitives)
        self.dropout = nn.Dropout(0.3)
        self.cross, self.refine = Block(width, cross=True), self_attention(width, layers)

    def forward(self, tokens: Tensor, decomposed: Tensor) -> Tensor:
        """Return texts for every image, ``[B, A + O, L, W]``.

        Args:
            tokens: image tokens, ``[B, T, V]``.
            decomposed: decomposed texts, ``[A + O, L, W]``.
        """
        images = tokens.shape[0]
        visual = self.place(self.project(tokens).transpose(1, 2)).transpose(1, 2)  # [B, L * (A + O), W]
        visual = self.dropout(visual)
        if self.batch_mixing == "original":  # as the reshape in the released program
            visual = visual.transpose(0, 1).reshape(1, images * self.length, self.primitives, -1)
        else:
            visual = visual.reshape(images, self.length, self.primitives, -1)
        groups = visual.shape[0]  # groups of images that share their tokens: one for each image, or the whole batch
        context = visual.transpose(1, 2).flatten(0, 1)  # [groups * (A + O), images / groups * L, W]
        query = decomposed.repeat(groups, images // groups, 1)
        fused: Tensor = self.refine(self.cross(query, context))
        fused = fused.view(groups, self.primitives, images // groups, self.length, -1)
        return fused.transpose(1, 2).flatten(0, 1)


class TextToImage(nn.Module):
    """A layer that lets an image attend to decomposed texts, after mapping text tokens to one for each image token.

    Args:
        visual_width, width, tokens, primitives, length: see :class:`ImageToText`.
    """

    def __init__(self, visual_width: int, width: int, tokens: int, primitives: int, length: int) -> None:
        super().__init__()
        self.project, self.place = Linear(width, visual_width), Linear(length * primitives, tokens)
        self.dropout = nn.Dropout(0.3)
        self.cross = Block(visual_width, cross=True)

    def forward(self, tokens: Tensor, decomposed: Tensor) -> Tensor:
        """Return image tokens ``[B, T, V]`` from image tokens ``[B, T, V]`` and decomposed texts ``[A + O, L, W]``."""
        flat = self.project(decomposed).transpose(0, 1).flatten(0, 1)  # [L * (A + O), V]
        with computing(None):  # the texts are the same for every image
            texts = self.dropout(self.place(flat.T)).T  # [T, V]
        fused: Tensor = self.cross(tokens, texts.expand(tokens.shape[0], -1, -1))
        return fused
