"""Prompts: modules that turn candidate pairs into text features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from .components import Backbone
from .options import option
from .shares import encoded_by_ranks
from .types import PairSpace, TextFeatures

PROMPTS_PER_CHUNK = 512  # number of prompts encoded at a time without gradients


def clean(name: str) -> str:
    """Return a label as words for a prompt.

    >>> clean("Faux.Fur"), clean("dry-erase_board")
    ('faux fur', 'dry-erase_board')
    """
    return name.replace(".", " ").lower()


def in_parts(prompts: int, encode: Callable[[slice], Tensor]) -> Tensor:
    """Encode prompts all at once with gradients, and a few hundred at a time without gradients.

    Args:
        prompts: number of prompts.
        encode: function that encodes the prompts in a slice.

    Returns:
        The encoded prompts, ``[prompts, ...]``.

    >>> with torch.no_grad():
    ...     in_parts(600, lambda rows: torch.arange(600)[rows]).sum()
    tensor(179700)
    """
    if torch.is_grad_enabled() or prompts <= PROMPTS_PER_CHUNK:
        return encode(slice(None))
    first = encode(slice(PROMPTS_PER_CHUNK))
    encoded = first.new_empty(prompts, *first.shape[1:])  # one tensor, since many parts would fragment the memory
    encoded[:PROMPTS_PER_CHUNK] = first
    for start in range(PROMPTS_PER_CHUNK, prompts, PROMPTS_PER_CHUNK):
        rows = slice(start, start + PROMPTS_PER_CHUNK)
        encoded[rows] = encode(rows)
    return encoded


class FixedPrompt(nn.Module):
    """A fixed sentence for each pair, such as ``"a photo of wet dog"``; nothing is learned.

    Args:
        space: label space with the words.
        context: words before the pair.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    def __init__(self, space: PairSpace, context: str = "a photo of") -> None:
        super().__init__()
        self.attrs, self.objs = ([clean(name) for name in names] for names in (space.attrs, space.objs))
        self.context = context

    def forward(self, backbone: Backbone, pairs: Tensor) -> TextFeatures:
        """Return the encoded sentences of ``pairs`` ``[P, 2]``.

        Raises:
            ValueError: the backbone has no token for some words.
        """
        backbone.check_words([*self.attrs, *self.objs])
        texts = [f"{self.context} {self.attrs[a]} {self.objs[o]}" for a, o in pairs.tolist()]
        return TextFeatures(pairs, in_parts(len(texts), lambda rows: backbone.encode_sentences(texts[rows])))


@dataclass(frozen=True)
class SoftPromptOptions:
    """The options of every method with a soft prompt."""

    backbone: str = option("ViT-L-14-quickgelu/openai", "CLIP model and weights")
    context: str = option("a photo of", "words before the pair; a learned context starts from them")
    context_length: int = option(8, "number of tokens of a prompt, including both marks", minimum=5)


@dataclass(frozen=True)
class LearnedWordOptions(SoftPromptOptions):
    """The options of every method with a soft prompt in which the words of attributes and objects are learned."""

    word_dropout: float = option(0.3, "dropout on the learned words", minimum=0, maximum=1)


class SoftPrompt(nn.Module):
    """A prompt ``<context> <attribute> <object>`` of embeddings, some of which are learned.

    The initial embedding of a word is the mean of the embeddings of its tokens, as many as ``context_length`` allows. A
    subclass overrides ``elements`` to make the embeddings in another way.

    Args:
        backbone: encoder that supplies the initial embeddings.
        space: label space with the words.
        context: words before the pair.
        learn_words: train one embedding for each attribute and object (CSP).
        learn_context: train the context embeddings (CoOp).
        primitives: also encode prompts of attributes and of objects, each with a separate context (Troika).
        keep_tokens: also return the hidden states of all ``context_length`` tokens of a pair, padding included (DFSP).
            Without this, tokens after the end mark are not computed.
        dropout: dropout on the word embeddings.
        context_length: number of tokens in a prompt, including the marks before and after the words.

    Raises:
        ValueError: the prompt does not fit ``context_length``, a word has no token, or the tokens of a text tower that
            is not causal are to be kept.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    words: Tensor  # embeddings of the attributes, then of the objects, [A + O, W]; a parameter if words are learned
    dropout: nn.Dropout  # dropout on the word embeddings

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
        if keep_tokens and not backbone.causal:
            raise ValueError(
                f"{type(backbone).__name__} is not causal, so padding would change the tokens of a prompt, which this "
                "method uses; it needs a causal text tower, with causal = True"
            )
        first = backbone.start_marks  # position of the first word
        with torch.no_grad():
            names = [clean(name) for name in (*space.attrs, *space.objs)]
            ids = backbone.tokenize([context, *names], max(context_length, 3))
            backbone.check_words(names)
            embedded = backbone.embed_tokens(ids)  # [1 + A + O, L, W]
            ends = backbone.end_of_text(ids).tolist()
            start = embedded[0, first : ends[0]]  # [n, W]
            words = torch.stack([row[first:end].mean(0) for row, end in zip(embedded[1:], ends[1:], strict=True)])
            marks = torch.cat([embedded[0, :first], embedded[0, ends[0]][None]])
            padding = backbone.embed_tokens(torch.full((1,), backbone.padding_token))
        self.end = first + len(start) + 2  # position of the end mark in the prompt of a pair
        length = min(context_length, backbone.text_length) if backbone.pads_texts else context_length
        if self.end >= length:
            raise ValueError(
                f"the context {context!r} has {len(start)} tokens; with a pair and the {first + 1} marks that is "
                f"{self.end + 1}, more than {'context_length' if length == context_length else 'text_length'} {length}"
            )
        self.words = nn.Parameter(words, requires_grad=learn_words)  # [A + O, W], attributes first
        self.context = nn.ParameterList(  # contexts of pairs, attributes and objects, [n, W] each
            nn.Parameter(start.clone(), requires_grad=learn_context) for _ in range(3 if primitives else 1)
        )
        self.register_buffer("marks", marks, persistent=False)  # marks before the words and end mark, [m + 1, W]
        self.register_buffer("padding", padding, persistent=False)  # [1, W]
        self.marks: Tensor
        self.padding: Tensor

    def elements(self) -> Tensor:
        """Return the embeddings of all words, ``[A + O, W]``, attributes first: the learned words with dropout.

        A subclass overrides this method to make the embeddings in another way, for example with a graph network over
        ``self.words``. It is called once in every call of the prompt.
        """
        dropped: Tensor = self.dropout(self.words)
        return dropped

    def forward(self, backbone: Backbone, pairs: Tensor) -> TextFeatures:
        """Return the encoded prompts of ``pairs`` ``[P, 2]``, and with ``primitives`` of all attributes and objects.

        Raises:
            ValueError: ``elements`` does not return one embedding for each word.
        """
        return self.with_elements(backbone, pairs, self.elements())

    def with_elements(self, backbone: Backbone, pairs: Tensor, words: Tensor) -> TextFeatures:
        """Return what ``forward`` returns, with the embeddings ``words`` ``[A + O, W]`` in the place of ``elements``.

        A subclass whose embeddings depend on the pairs, or on the world, overrides ``forward`` and calls this method.

        Raises:
            ValueError: ``words`` is not one embedding for each word.
        """
        if words.shape != self.words.shape:
            raise ValueError(
                f"{type(self).__name__}.elements returned {list(words.shape)}, expected {list(self.words.shape)}: one "
                "embedding for each attribute, then for each object"
            )
        attr, obj = words[: self.num_attrs], words[self.num_attrs :]

        def hidden_states(rows: slice) -> Tensor:  # [n, L, W]
            return self._encode(backbone, 0, torch.stack((attr[pairs[rows, 0]], obj[pairs[rows, 1]]), 1))

        def pool(states: Tensor, end: int) -> Tensor:  # [n, D]
            return backbone.pool_text(states, torch.full((len(states),), end, device=states.device))

        def single_word(context: int, words: Tensor, rows: slice) -> Tensor:  # [n, D]
            return pool(self._encode(backbone, context, words[rows].unsqueeze(1)), self.end - 1)

        if self.keep_tokens:
            tokens = encoded_by_ranks(len(pairs), hidden_states, in_parts)
            text = TextFeatures(pairs, pool(tokens, self.end), tokens=tokens)
        else:
            pooled = encoded_by_ranks(len(pairs), lambda rows: pool(hidden_states(rows), self.end), in_parts)
            text = TextFeatures(pairs, pooled)
        if self.primitives:
            attr, obj = (
                encoded_by_ranks(len(some), partial(single_word, context, some))
                for context, some in ((1, attr), (2, obj))
            )
            text = replace(text, attr=attr, obj=obj)
        return text

    def _encode(self, backbone: Backbone, context: int, words: Tensor) -> Tensor:
        """Return the hidden states of prompts, ``[N, L, W]``.

        Args:
            context: index of the context: 0 for pairs, 1 for attributes, 2 for objects.
            words: embeddings of the words of each prompt, ``[N, k, W]``.
        """
        start = torch.cat((self.marks[:-1], self.context[context]))  # shared by all prompts, [m + n, W]
        parts = [words, self.marks[-1:].expand(len(words), -1, -1)]
        length = backbone.text_length if backbone.pads_texts else self.context_length if self.keep_tokens else 0
        if (missing := length - len(start) - words.shape[1] - 1) > 0:
            parts.append(self.padding.expand(len(words), missing, -1))
        return backbone.encode_text_after(start, torch.cat(parts, 1))
