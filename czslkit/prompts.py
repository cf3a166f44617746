"""Prompts: candidate pairs into text features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from .components import Backbone
from .types import PairSpace, TextFeatures

PROMPTS = 512  # encoded at a time where nothing is learned from them


def clean(name: str) -> str:
    """A label as the words of a prompt.

    >>> clean("Faux.Fur"), clean("dry-erase_board")
    ('faux fur', 'dry-erase_board')
    """
    return name.replace(".", " ").lower()


def in_parts(prompts: int, encode: Callable[[slice], Tensor]) -> Tensor:
    """What ``encode`` makes of all of so many prompts: at once for a gradient, else a few at a time.

    >>> with torch.no_grad():
    ...     in_parts(600, lambda rows: torch.arange(600)[rows]).sum()
    tensor(179700)
    """
    if torch.is_grad_enabled() or prompts <= PROMPTS:
        return encode(slice(None))
    first = encode(slice(PROMPTS))
    whole = first.new_empty(prompts, *first.shape[1:])  # parts kept one by one would scatter what is free
    whole[:PROMPTS] = first
    for start in range(PROMPTS, prompts, PROMPTS):
        rows = slice(start, start + PROMPTS)
        whole[rows] = encode(rows)
    return whole


class FixedPrompt(nn.Module):
    """Whole sentences such as ``"a photo of wet dog"``; nothing is learned.

    Args:
        space: the words.
        context: what comes before them.
    """

    def __init__(self, space: PairSpace, context: str = "a photo of") -> None:
        super().__init__()
        self.attrs, self.objs = ([clean(name) for name in names] for names in (space.attrs, space.objs))
        self.context = context

    def forward(self, backbone: Backbone, pairs: Tensor) -> TextFeatures:
        """Encode the sentences of ``pairs`` ``[P, 2]``."""
        texts = [f"{self.context} {self.attrs[a]} {self.objs[o]}" for a, o in pairs.tolist()]
        return TextFeatures(pairs, in_parts(len(texts), lambda rows: backbone.encode_sentences(texts[rows])))


class SoftPrompt(nn.Module):
    """``<context> <attribute> <object>`` built from embeddings, with the learned parts chosen.

    A word starts as the mean embedding of its tokens, of which at most
    ``context_length - 2`` count.

    Args:
        backbone: supplies the starting embeddings.
        space: the words to hold an embedding for.
        context: words before the pair.
        learn_words: train one embedding per attribute and object (CSP).
        learn_context: train the context embeddings (CoOp).
        primitives: also give attribute and object prompts, each with a context of its own (Troika).
        keep_tokens: also give the hidden states of all ``context_length`` tokens of a pair, padding
            included (DFSP); without them what follows the end mark is not computed.
        dropout: on the word embeddings.
        context_length: tokens a prompt may have, marks included.

    Raises:
        ValueError: the prompt does not fit ``context_length``.
    """

    def __init__(
        self,
        backbone: Backbone,
        space: PairSpace,
        *,
        context: str = "a photo of",
        learn_words: bool = True,
        learn_context: bool = False,
        primitives: bool = False,
        keep_tokens: bool = False,
        dropout: float = 0.0,
        context_length: int = 8,
    ) -> None:
        super().__init__()
        self.num_attrs, self.primitives, self.keep_tokens = len(space.attrs), primitives, keep_tokens
        self.context_length, self.dropout = context_length, nn.Dropout(dropout)
        with torch.no_grad():
            names = [clean(name) for name in (*space.attrs, *space.objs)]
            ids = backbone.tokenize([context, *names], max(context_length, 3))
            embedded = backbone.embed_tokens(ids)  # [1 + A + O, L, W]
            ends = ids.argmax(1).tolist()
            start = embedded[0, 1 : ends[0]]  # [n, W]
            words = torch.stack([row[1:end].mean(0) for row, end in zip(embedded[1:], ends[1:], strict=True)])
            marks = torch.stack([embedded[0, 0], embedded[0, ends[0]]])
            padding = backbone.embed_tokens(torch.zeros(1, dtype=torch.long))
        self.end = len(start) + 3  # where the prompt of a pair is read
        if self.end >= context_length:
            raise ValueError(
                f"the context {context!r} has {len(start)} tokens; with a pair and the two marks that is "
                f"{len(start) + 4}, more than context_length {context_length}"
            )
        self.words = nn.Parameter(words, requires_grad=learn_words)  # [A + O, W], attributes first
        self.context = nn.ParameterList(  # [n, W] for pairs, attributes and objects
            nn.Parameter(start.clone(), requires_grad=learn_context) for _ in range(3 if primitives else 1)
        )
        self.register_buffer("marks", marks, persistent=False)  # start and end, [2, W]
        self.register_buffer("padding", padding, persistent=False)  # [1, W]
        self.marks: Tensor
        self.padding: Tensor

    def forward(self, backbone: Backbone, pairs: Tensor) -> TextFeatures:
        """Encode the prompts of ``pairs`` ``[P, 2]``, and those of every attribute and object if asked to."""
        words = self.dropout(self.words)
        attr, obj = words[: self.num_attrs], words[self.num_attrs :]

        def states(rows: slice) -> Tensor:  # [n, L, W]
            return self._encode(backbone, 0, torch.stack((attr[pairs[rows, 0]], obj[pairs[rows, 1]]), 1))

        def read(states: Tensor) -> Tensor:  # [n, D]
            return backbone.project_text(states[:, self.end])

        if self.keep_tokens:
            tokens = in_parts(len(pairs), states)
            text = TextFeatures(pairs, read(tokens), tokens=tokens)
        else:
            text = TextFeatures(pairs, in_parts(len(pairs), lambda rows: read(states(rows))))
        if self.primitives:
            single = (self._encode(backbone, i, group.unsqueeze(1))[:, -1] for i, group in ((1, attr), (2, obj)))
            text = replace(text, **dict(zip(("attr", "obj"), map(backbone.project_text, single), strict=True)))
        return text

    def _encode(self, backbone: Backbone, context: int, words: Tensor) -> Tensor:
        """Hidden states ``[N, L, W]`` of the prompts of words ``[N, k, W]``, up to the end mark or the full length."""
        start = torch.cat((self.marks[:1], self.context[context]))  # [1 + n, W], the same for all
        parts = [words, self.marks[1:].expand(len(words), -1, -1)]
        if self.keep_tokens:
            parts.append(self.padding.expand(len(words), self.context_length - self.end - 1, -1))
        return backbone.encode_text_after(start, torch.cat(parts, 1))
