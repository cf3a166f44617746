"""Byte CLIP: a backbone of its own, whose text tower reads bytes and lets every token attend to every other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from czslkit.components import BACKBONES, Backbone
from czslkit.types import ImageFeatures

PADDING, START, END = 0, 1, 257  # byte b is token b + 1, from 2 on; text has no byte 0


def transformer(width: int) -> nn.TransformerEncoder:
    """Return two blocks with attention in both directions."""
    layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@BACKBONES.register("byte-clip")
class ByteClip(Backbone):
    """A small encoder of 32 x 32 pixels and of bytes, with random weights."""

    version = 1
    dim, depth, visual_tokens, visual_width, token_width = 48, 2, 17, 32, 40
    image_size, mean, std = 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    causal = False

    def __init__(self, argument: str = "") -> None:
        super().__init__()
        with torch.random.fork_rng([]):  # the same weights everywhere, whatever was drawn before
            torch.manual_seed(0)
            self.patches = nn.Conv2d(3, self.visual_width, 8, 8)
            self.visual, self.textual = transformer(self.visual_width), transformer(self.token_width)
            self.class_token = nn.Parameter(torch.randn(self.visual_width))
            self.visual_positions = nn.Parameter(0.3 * torch.randn(self.visual_tokens, self.visual_width))
            self.tokens = nn.Embedding(END + 1, self.token_width)
            self.text_positions = nn.Parameter(0.3 * torch.randn(self.text_length, self.token_width))
            self.visual_projection = nn.Linear(self.visual_width, self.dim, bias=False)
            self.text_projection = nn.Linear(self.token_width, self.dim, bias=False)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.requires_grad_(False)

    def image_parameters(self) -> Iterator[nn.Parameter]:
        yield from (self.class_token, self.visual_positions)
        for module in (self.patches, self.visual, self.visual_projection):
            yield from module.parameters()

    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        x = self.patches(images).flatten(2).transpose(1, 2)  # [B, T - 1, V]
        x = torch.cat((self.class_token.expand(len(x), 1, -1), x), 1) + self.visual_positions
        states = []
        for block in self.visual.layers:
            x = block(x)
            states.append(x)
        return ImageFeatures(self.project_image(x[:, 0]), tuple(self.project_image(states[i]) for i in layers), x)

    def project_image(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.visual_projection(tokens)
        return projected

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        ids = torch.full((len(texts), length), PADDING)
        for row, text in zip(ids, texts, strict=True):
            words = [byte + 1 for byte in text.encode()][: length - 2]
            row[: len(words) + 2] = torch.tensor([START, *words, END])
        return ids

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.tokens(ids.to(self.tokens.weight.device))
        return embedded

    def encode_text(self, prompts: Tensor) -> Tensor:
        hidden: Tensor = self.textual(prompts + self.text_positions[: prompts.shape[1]])
        return hidden

    def project_text(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.text_projection(tokens)
        return projected
