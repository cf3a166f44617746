"""The forward pass of CLIP's image and text towers, with access to their blocks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..components import Backbone
from ..linear import linear, use_linear
from ..recompute import recomputed
from ..types import ImageFeatures
from ..weights import download_or_raise
from .adapters import BlockAdapters, TokenFunction
from .openai_format import TEXT_POSITIONS
from .preprocess_cfg import of_open_clip


class ClipBackbone(Backbone):
    """A frozen CLIP whose visual layers, prompts and blocks a method can use.

    Args:
        model: open_clip model.
        name: open_clip's name of the model, for the tokenizer of a model without OpenAI's tokenizer.
        tokenizer: tokenizer that the model's configuration asks for; empty for OpenAI's.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1
    causal = True  # the prompts of every other text tower are refused

    def __init__(self, model: Any, *, name: str = "", tokenizer: str = "") -> None:
        super().__init__()
        self.clip: Any = model.requires_grad_(False)
        use_linear(model)
        self.name, self.tokenizer = name, tokenizer
        visual, text = model.visual, getattr(model, "text", model)
        self._text: list[Any] = [text]  # in a list, since an attribute would be a second copy in the state dict
        self.depth = len(_class_token_blocks(visual))
        self.visual_width = visual.conv1.out_channels if self.depth else 0
        self.visual_tokens = len(visual.positional_embedding) if self.depth else 0
        embedding = getattr(text, "token_embedding", None)
        self.token_width = embedding.embedding_dim if embedding is not None else 0
        self.text_depth = len(text.transformer.resblocks) if not self._no_prompts_reason() else 0
        self.dim = _joint_width(visual)
        # create_model sets preprocess_cfg; a model from shapes lacks it and is OpenAI's
        older = {"mean": getattr(visual, "image_mean", None), "std": getattr(visual, "image_std", None)}
        self.preprocessing = of_open_clip(getattr(visual, "preprocess_cfg", older), visual.image_size)
        self.adapters, self.text_adapters = BlockAdapters(), BlockAdapters()

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """The log of CLIP's logit scale, a scalar."""
        scale: Tensor = self.clip.logit_scale
        return scale

    def image_parameters(self) -> Iterator[nn.Parameter]:
        return itertools.chain(self.clip.visual.parameters(), self.adapters.parameters())

    def add_adapters(
        self,
        make: Callable[[int], nn.Module],
        *,
        tower: str = "visual",
        blocks: Sequence[int] | None = None,
        kinds: Sequence[str] = ("attention", "mlp"),
    ) -> None:
        """Add a trainable module to some blocks of a tower, see :meth:`Backbone.add_adapters`.

        Raises:
            ValueError: a tower has no such block or kind, or its blocks cannot be adapted.
        """
        if tower == "visual":
            if not self.depth:
                name = type(self.clip.visual).__name__
                raise ValueError(f"adapters need a vision transformer with a class token, not a {name}")
            self.adapters.add(make, self.visual_width, self.depth, blocks, kinds)
        elif tower == "text":
            self._check_takes_prompts()
            self.text_adapters.add(make, self.token_width, self.text_depth, blocks, kinds)
        else:
            raise ValueError(f"adapters for tower {tower!r}, expected 'visual' or 'text'")

    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        if not self.depth:
            return ImageFeatures(self.clip.encode_image(images))
        x, projected = self.embed_image(images), {}
        for i in range(self.depth):
            x = self.run_image_blocks(x, [i])
            if i in layers:
                projected[i] = recomputed("image", self.project_image, x)
        last = self.depth - 1
        pooled = projected[last][:, 0] if last in projected else self.project_image(x[:, 0])
        return ImageFeatures(pooled, tuple(projected[i] for i in layers), x)

    def embed_image(self, images: Tensor) -> Tensor:
        if not self.depth:
            return super().embed_image(images)
        visual = self.clip.visual
        x = visual.conv1(images).flatten(2).transpose(1, 2)  # [B, T - 1, V]
        x = torch.cat((visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x), 1)  # [B, T, V]
        tokens: Tensor = visual.ln_pre(visual.patch_dropout(x + visual.positional_embedding.to(x.dtype)))
        return tokens

    def run_image_blocks(self, tokens: Tensor, blocks: Sequence[int]) -> Tensor:
        if not self.depth:
            return super().run_image_blocks(tokens, blocks)
        for i in blocks:
            block = self.clip.visual.transformer.resblocks[i]
            tokens = recomputed(
                "image", functools.partial(_run_block, block, adapters=self.adapters.of_block(i)), tokens
            )
        return tokens

    def project_image(self, tokens: Tensor) -> Tensor:
        visual = self.clip.visual
        tokens = visual.ln_post(tokens)
        return tokens if visual.proj is None else linear(tokens, visual.proj.T)

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        self._check_takes_prompts()
        return _openai_tokenizer()(list(texts), context_length=length)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        table = self._text[0].token_embedding
        embedded: Tensor = table(ids.to(table.weight.device))
        return embedded

    def encode_text(self, prompts: Tensor) -> Tensor:
        x = prompts + self._positions(prompts.shape[1]).to(prompts.dtype)
        for i, block in enumerate(self._text[0].transformer.resblocks):
            run = functools.partial(_run_block, block, adapters=self.text_adapters.of_block(i), causal=True)
            x = recomputed("text", run, x)
        return x

    def encode_text_after(self, start: Tensor, rest: Tensor) -> Tensor:
        """Return ``encode_text`` of prompts that share ``start``; encode ``start`` only once.

        This is possible because a token does not attend to later tokens.
        """
        positions = self._positions(len(start) + rest.shape[1]).to(rest.dtype)
        shared, x = start[None] + positions[: len(start)], rest + positions[len(start) :]  # [1, S, W], [N, L - S, W]
        for i, block in enumerate(self._text[0].transformer.resblocks):
            run = functools.partial(_run_block, block, adapters=self.text_adapters.of_block(i), causal=True)
            after = recomputed("text", run, shared)  # first, since the order of sums in gradients follows from it
            x = recomputed("text", lambda x, shared, run=run: run(x, shared=shared), x, shared)
            shared = after
        return torch.cat((shared.expand(x.shape[0], -1, -1), x), 1)

    def _positions(self, length: int) -> Tensor:
        """Return the positional embeddings of the first ``length`` tokens, ``[length, W]``, padded with zeros.

        Raises:
            ValueError: the text tower cannot encode prompts, or has fewer positions than ``length``.
        """
        self._check_takes_prompts()
        positions: Tensor = self._text[0].positional_embedding[:length]
        if len(positions) < min(length, TEXT_POSITIONS):
            raise ValueError(f"a prompt has {length} tokens, this CLIP was cut to {len(positions)} text positions")
        return F.pad(positions, (0, 0, 0, length - len(positions)))

    def project_text(self, tokens: Tensor) -> Tensor:
        text = self._text[0]
        tokens = text.ln_final(tokens)
        projection = text.text_projection
        if projection is None:
            return tokens
        return projection(tokens) if isinstance(projection, nn.Module) else linear(tokens, projection.T)

    def encode_sentences(self, texts: Sequence[str]) -> Tensor:
        if not (self.name and self._no_prompts_reason()):
            return super().encode_sentences(texts)
        features: Tensor = self.clip.encode_text(self._model_tokenizer(list(texts)).to(self.scale.device))
        return features

    def check_words(self, words: Sequence[str]) -> None:
        if not (self.name and self._no_prompts_reason()):
            super().check_words(words)
        self._refuse_words([word for word in words if not word.strip()])  # the model's own tokenizer adds marks

    @functools.cached_property
    def _model_tokenizer(self) -> Any:
        """The tokenizer of the model, which may have to be downloaded."""
        import open_clip

        return download_or_raise(
            self.name,
            lambda: open_clip.get_tokenizer(self.name),
            part="tokenizer",
            hint="it is downloaded from a hub by the package transformers",
        )

    def _check_takes_prompts(self) -> None:
        """Check that the text tower can encode prompts of OpenAI's tokens.

        Raises:
            ValueError: the text tower cannot encode them; the message has the reason.
        """
        if reason := self._no_prompts_reason():
            raise ValueError(reason)

    def _no_prompts_reason(self) -> str:
        """Return the reason why the text tower cannot encode prompts of OpenAI's tokens, empty if it can."""
        text = self._text[0]
        causal = getattr(text, "attn_mask", None) is not None
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
        if getattr(text, "cls_emb", None) is not None:
            pool = "class token"
        tokens = text.token_embedding.num_embeddings if self.token_width else 0
        openai_tokens = _openai_tokenizer().vocab_size
        if causal and pool in ("argmax", "eos") and tokens == openai_tokens and not self.tokenizer:
            return ""
        return (
            f"prompts need a causal text tower that is read at the end of the text and has OpenAI's {openai_tokens} "
            f"tokens; this model has a {type(text).__name__} with {tokens} tokens, "
            f"{'causal' if causal else 'not causal'}, pooled by {pool}"
            + (f", with the tokenizer {self.tokenizer}" if self.tokenizer else "")
        )


def _run_block(
    block: Any,
    x: Tensor,
    adapters: Mapping[str, Sequence[TokenFunction]],
    *,
    causal: bool = False,
    shared: Tensor | None = None,
) -> Tensor:
    """Return the output of one transformer block for tokens ``x`` ``[N, L, W]``.

    Args:
        adapters: adapters by kind; each has the input of the residual connection, or the output of the sub-layer.
        causal: let a token attend only to itself and earlier tokens.
        shared: tokens before every sequence, ``[1, S, W]``, to which ``x`` also attends.
    """
    normed_shared = None if shared is None else block.ln_1(shared)
    attention = block.ls_1(_attention(block.attn, block.ln_1(x), causal, normed_shared))
    attended = x + sum((adapter(attention) for adapter in adapters["after_attention"]), attention)
    for adapter in adapters["attention"]:
        attended = attended + adapter(x)
    mlp = block.ls_2(block.mlp(block.ln_2(attended)))
    hidden: Tensor = attended + sum((adapter(mlp) for adapter in adapters["after_mlp"]), mlp)
    for adapter in adapters["mlp"]:
        hidden = hidden + adapter(attended)
    return hidden


def _attention(attn: Any, x: Tensor, causal: bool, shared: Tensor | None = None) -> Tensor:
    """Return the self-attention of tokens ``x`` ``[N, L, W]``, for any ``batch_first`` of ``attn``.

    Args:
        shared: tokens before every sequence, ``[1, S, W]``, to which ``x`` also attends.
    """

    def split_heads(tokens: Tensor) -> Iterator[Tensor]:
        """Return queries, keys and values, ``[N, heads, L, W / heads]`` each."""
        parts = linear(tokens, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        return (part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for part in parts)

    q, k, v = split_heads(x)
    mask = None
    if shared is not None:
        _, shared_k, shared_v = (part.expand(x.shape[0], -1, -1, -1) for part in split_heads(shared))
        k, v = torch.cat((shared_k, k), 2), torch.cat((shared_v, v), 2)
        mask = q.new_ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(shared.shape[1]) if causal else None
    attended = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal and mask is None)
    projected: Tensor = attn.out_proj(attended.transpose(1, 2).flatten(2))
    return projected


def _class_token_blocks(visual: Any) -> Sequence[nn.Module]:
    """Return the blocks of a vision transformer that is pooled at its class token; none for any other tower."""
    pools_class_token = (
        all(hasattr(visual, name) for name in ("conv1", "class_embedding", "ln_pre", "ln_post", "proj"))
        and getattr(visual, "attn_pool", None) is None
        and getattr(visual, "pool_type", "tok") == "tok"
        and not getattr(visual, "final_ln_after_pool", False)
        and all(isinstance(getattr(b, "attn", None), nn.MultiheadAttention) for b in visual.transformer.resblocks)
    )
    return list(visual.transformer.resblocks) if pools_class_token else []


def _joint_width(visual: Any) -> int:
    """Return the width ``D`` of the joint space that a visual tower projects to."""
    width = getattr(visual, "output_dim", None)
    if width is None:  # timm towers have no such attribute
        size = visual.image_size if isinstance(visual.image_size, (tuple, list)) else (visual.image_size,) * 2
        with torch.no_grad():
            width = visual(torch.zeros(1, 3, *size)).shape[-1]
    return int(width)


@functools.cache
def _openai_tokenizer() -> Any:
    """Return OpenAI's tokenizer."""
    import open_clip

    return open_clip.SimpleTokenizer()
