"""TODO."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..components import Backbone
from ..types import ImageFeatures
from ..weights import download_or_raise
from .adapters import Adapter
from .openai_format import LONGEST


class ClipBackbone(Backbone):
    """A frozen CLIP with the blocks of its towers in reach.

    Args:
        model: an open_clip model.
        name: what open_clip calls it; needed where its text tower is not OpenAI's, to find its tokenizer.
        adapter_dim: bottleneck of two trainable adapters in every visual block; 0 for none.
        adapter_dropout: inside the adapters.

    Raises:
        ValueError: adapters for a visual tower that is not a vision transformer with a class token.
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str = "",
        adapter_dim: int = 0,
        adapter_dropout: float = 0.1,
    ) -> None:
        import open_clip

        super().__init__()
        self.clip: Any = model.requires_grad_(False)
        self.name = name
        visual, text = model.visual, getattr(model, "text", model)
        self._text: list[Any] = [text]  # in a list: a second name must not become a second submodule
        blocks = _plain_blocks(visual)
        self.depth = len(blocks)
        if adapter_dim and not self.depth:
            raise ValueError(f"adapters need a vision transformer with a class token, not a {type(visual).__name__}")
        self.visual_width = visual.conv1.out_channels if self.depth else 0
        self.visual_tokens = len(visual.positional_embedding) if self.depth else 0
        embedding = getattr(text, "token_embedding", None)
        self.token_width = embedding.embedding_dim if embedding is not None else 0
        size = visual.image_size
        self.image_size = size[0] if isinstance(size, (tuple, list)) else size
        self.dim = _joint_width(visual)
        # what create_model found; a model built from shapes alone is OpenAI's
        self.mean = tuple(getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN)
        self.std = tuple(getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD)
        self.adapters = nn.ModuleList(  # beside the attention of every block, then beside every MLP
            Adapter(self.visual_width, adapter_dim, adapter_dropout)
            for _ in range(2 * self.depth if adapter_dim else 0)
        )

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        scale: Tensor = self.clip.logit_scale
        return scale

    def image_parameters(self) -> Iterator[nn.Parameter]:
        return itertools.chain(self.clip.visual.parameters(), self.adapters.parameters())

    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        if not self.depth:
            pooled: Tensor = self.clip.encode_image(images)
            return ImageFeatures(pooled)
        visual = self.clip.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)  # [B, T - 1, V]
        x = torch.cat((visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x), 1)  # [B, T, V]
        x = visual.ln_pre(visual.patch_dropout(x + visual.positional_embedding.to(x.dtype)))
        kept = {}
        for i, block in enumerate(visual.transformer.resblocks):
            x = _block(block, x, adapters=self.adapters[i :: self.depth] if len(self.adapters) else None)
            if i in layers:
                kept[i] = self.project_image(x)
        pooled = kept[self.depth - 1][:, 0] if self.depth - 1 in kept else self.project_image(x[:, 0])
        return ImageFeatures(pooled, tuple(kept[i] for i in layers), x)

    def project_image(self, tokens: Tensor) -> Tensor:
        visual = self.clip.visual
        tokens = visual.ln_post(tokens)
        return tokens if visual.proj is None else tokens @ visual.proj

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        self._check_text()
        return _tokenizer()(list(texts), context_length=length)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        table = self._text[0].token_embedding
        embedded: Tensor = table(ids.to(table.weight.device))
        return embedded

    def encode_text(self, prompts: Tensor) -> Tensor:
        x = prompts + self._positions(prompts.shape[1]).to(prompts.dtype)
        for block in self._text[0].transformer.resblocks:
            x = _block(block, x, causal=True)
        return x

    def encode_text_after(self, start: Tensor, rest: Tensor) -> Tensor:
        """No token sees those behind it, so the start is encoded once."""
        first = start[None]  # [1, S, W]
        positions = self._positions(len(start) + rest.shape[1]).to(rest.dtype)
        first, x = first + positions[: len(start)], rest + positions[len(start) :]
        for block in self._text[0].transformer.resblocks:
            first, x = _block(block, first, causal=True), _block(block, x, causal=True, before=first)
        return torch.cat((first.expand(len(x), -1, -1), x), 1)

    def _positions(self, length: int) -> Tensor:
        """What tells the tokens of a prompt apart, ``[length, W]``; zero past the last position."""
        self._check_text()
        positions: Tensor = self._text[0].positional_embedding[:length]
        if len(positions) < min(length, LONGEST):
            raise ValueError(f"a prompt has {length} tokens, this CLIP was cut to {len(positions)} text positions")
        return F.pad(positions, (0, 0, 0, length - len(positions)))

    def project_text(self, tokens: Tensor) -> Tensor:
        text = self._text[0]
        tokens = text.ln_final(tokens)
        projection = text.text_projection
        if projection is None:
            return tokens
        return projection(tokens) if isinstance(projection, nn.Module) else tokens @ projection

    def encode_sentences(self, texts: Sequence[str]) -> Tensor:
        if not (self.name and self._foreign_text()):
            return super().encode_sentences(texts)
        features: Tensor = self.clip.encode_text(self._own_tokenizer(list(texts)).to(self.scale.device))
        return features

    @functools.cached_property
    def _own_tokenizer(self) -> Any:
        import open_clip

        return download_or_raise(
            self.name,
            lambda: open_clip.get_tokenizer(self.name),
            part="tokenizer",
            hint="it comes from a hub, through the package transformers",
        )

    def _check_text(self) -> None:
        if foreign := self._foreign_text():
            raise ValueError(foreign)

    def _foreign_text(self) -> str:
        """Why embeddings cannot be read at the end mark of OpenAI's tokens, behind a causal mask; empty if they can."""
        text = self._text[0]
        causal = getattr(text, "attn_mask", None) is not None
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
        if getattr(text, "cls_emb", None) is not None:
            pool = "class token"
        words = text.token_embedding.num_embeddings if self.token_width else 0
        if causal and pool in ("argmax", "eos") and words == _tokenizer().vocab_size:
            return ""
        return (
            f"prompts need a causal text tower read at the end of text, over OpenAI's {_tokenizer().vocab_size} "
            f"tokens; this one is a {type(text).__name__} with {words} tokens, "
            f"{'causal' if causal else 'not causal'}, pooled by {pool}"
        )


def _block(
    block: Any, x: Tensor, *, adapters: Any = None, causal: bool = False, before: Tensor | None = None
) -> Tensor:
    """One transformer block on ``[N, L, W]``; each adapter reads what its residual reads.

    Args:
        before: ``[1, S, W]``, tokens in front of all others that are read, too.
    """
    ahead = None if before is None else block.ln_1(before)
    attended = x + block.ls_1(_attend(block.attn, block.ln_1(x), causal, ahead))
    x = attended if adapters is None else attended + adapters[0](x)
    mixed = x + block.ls_2(block.mlp(block.ln_2(x)))
    return mixed if adapters is None else mixed + adapters[1](x)


def _attend(attn: Any, x: Tensor, causal: bool, ahead: Tensor | None = None) -> Tensor:
    """Self-attention on ``[N, L, W]``, independent of the order of axes that ``attn`` was made for.

    Args:
        ahead: ``[1, S, W]``, tokens that all others read.
    """

    def heads(tokens: Tensor) -> Iterator[Tensor]:
        """Queries, keys and values, ``[N, heads, L, W / heads]`` each."""
        parts = F.linear(tokens, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        return (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in parts)

    q, k, v = heads(x)
    mask = None
    if ahead is not None:
        _, *others = heads(ahead)
        k, v = (torch.cat((o.expand(len(x), -1, -1, -1), own), 2) for o, own in zip(others, (k, v), strict=True))
        mask = q.new_ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(ahead.shape[1]) if causal else None
    read = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal and mask is None).transpose(1, 2).flatten(2)
    projected: Tensor = attn.out_proj(read)
    return projected


def _plain_blocks(visual: Any) -> Sequence[nn.Module]:
    """The blocks of a vision transformer read at its class token; nothing for any other tower."""
    plain = (
        all(hasattr(visual, name) for name in ("conv1", "class_embedding", "ln_pre", "ln_post", "proj"))
        and getattr(visual, "attn_pool", None) is None
        and getattr(visual, "pool_type", "tok") == "tok"
        and not getattr(visual, "final_ln_after_pool", False)
        and all(isinstance(getattr(b, "attn", None), nn.MultiheadAttention) for b in visual.transformer.resblocks)
    )
    return list(visual.transformer.resblocks) if plain else []


def _joint_width(visual: Any) -> int:
    width = getattr(visual, "output_dim", None)
    if width is None:  # timm towers do not say
        size = visual.image_size if isinstance(visual.image_size, (tuple, list)) else (visual.image_size,) * 2
        with torch.no_grad():
            width = visual(torch.zeros(1, 3, *size)).shape[-1]
    return int(width)


@functools.cache
def _tokenizer() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()
