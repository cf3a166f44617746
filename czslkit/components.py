"""The base classes of the four component kinds: backbone, aggregator, interaction and head.

A method sends images through ``backbone -> aggregator -> interaction -> head``; a prompt turns candidate pairs into
text features. A registered component is found by its name::

    @AGGREGATORS.register("mine")
    class Mine(Aggregator):
        version = 1

        def forward(self, image): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import CzslkitError, first_ten
from .precision import unrounded
from .registry import Registry
from .types import VALIDATION, AttentionMaps, Batch, ImageFeatures, Preprocessing, Scores, Setting, TextFeatures


class Backbone(nn.Module, ABC):
    """An encoder of images and prompts into one embedding space of width ``dim``.

    ``BACKBONES[name](argument)`` builds a backbone. ``argument`` is the text after the slash in a setting such as
    ``timm/resnet18``, and empty if the setting has no slash. ``__init__`` sets the attributes below that have no value.

    A text is a sequence of tokens: marks before the words, the words, the end mark, padding. A backbone without a text
    tower does not override the text methods; they raise an error that names the backbone.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    dim: int  # joint width D
    depth: int  # number of visual layers that ``encode_image`` can return
    visual_tokens: int  # number of tokens T in a visual layer; 0 without layers
    visual_width: int  # width V of a visual token; 0 without layers
    token_width: int  # width W of a text token; 0 without a text tower
    text_depth: int = 0  # number of blocks of the text tower that take adapters
    image_size: int  # height and width of an image in pixels
    mean: tuple[float, ...]  # pixel mean of each channel, from 0 to 1
    std: tuple[float, ...]  # pixel standard deviation of each channel
    scale: Tensor  # log of the logit scale, a scalar

    #: True if no text token attends to later tokens, so that the padding after the end mark has no effect on a text.
    #: Otherwise ``encode_text`` receives texts without padding, and only texts of the same length together.
    causal: bool = False
    #: True if padding is a part of every text, because the text tower was trained so: ``encode_text`` then always
    #: receives ``text_length`` tokens.
    pads_texts: bool = False
    #: Number of tokens of a text, including marks and padding.
    text_length: int = 77
    #: Number of marks before the words of a text.
    start_marks: int = 1
    #: Id of the token that fills a text after its end mark.
    padding_token: int = 0

    _preprocessing = Preprocessing()  # all but size, mean and std

    @property
    def preprocessing(self) -> Preprocessing:
        """How a photo becomes the input of ``encode_image``.

        ``image_size``, ``mean`` and ``std`` are parts of it. A backbone that sets only these has images resized as by
        OpenAI's CLIP; for another resize mode, interpolation or crop, ``__init__`` sets ``preprocessing`` instead.
        """
        return replace(self._preprocessing, size=self.image_size, mean=tuple(self.mean), std=tuple(self.std))

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing) -> None:
        self._preprocessing = value
        self.image_size, self.mean, self.std = value.size, value.mean, value.std

    @classmethod
    def stated_preprocessing(cls, argument: str) -> Preprocessing | None:
        """Return how images are prepared for the backbone of a setting, without building it; None if that is unknown.

        Results record it and are made again when it changes. By default, it is unknown.
        """
        return None

    @abstractmethod
    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        """Return the features of ``images`` ``[B, 3, H, W]``.

        Args:
            layers: indices of visual layers to return as well, projected to ``[B, T, D]`` each.
        """

    def embed_image(self, images: Tensor) -> Tensor:
        """Return the tokens of images ``[B, 3, H, W]`` that enter the first visual block, ``[B, T, V]``."""
        raise NotImplementedError(_no_blocks(self))

    def run_image_blocks(self, tokens: Tensor, blocks: Sequence[int]) -> Tensor:
        """Return visual tokens after some consecutive blocks; both are ``[B, n, V]``, for any number of tokens."""
        raise NotImplementedError(_no_blocks(self))

    def image_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that ``encode_image`` uses; ``load_backbone(..., trainable=True)`` lets them learn.

        By default, these are all parameters except ``scale``. A backbone with a text tower overrides this method.
        """
        return (parameter for parameter in self.parameters() if parameter is not self.scale)

    def add_adapters(
        self,
        make: Callable[[int], nn.Module],
        *,
        tower: str = "visual",
        blocks: Sequence[int] | None = None,
        kinds: Sequence[str] = ("attention", "mlp"),
    ) -> None:
        """Add a trainable module to some blocks of a tower. A backbone that takes adapters overrides this method.

        An adapter receives tokens ``[N, L, width]``, treats every token by itself, and returns a tensor of the same
        shape. The sum of the adapters at one place is added to the output of a sub-layer of the block.

        Args:
            make: function that returns a new adapter for tokens of a given width. It is called for every block of the
                first kind, then for every block of the next kind.
            tower: ``visual`` or ``text``.
            blocks: indices of the blocks, by default all blocks.
            kinds: places in a block: ``attention`` and ``mlp`` receive the tokens that enter the attention or the MLP;
                ``after_attention`` and ``after_mlp`` receive its output.

        Raises:
            ValueError: the backbone takes no adapters, or has no such tower, block or kind.
        """
        raise ValueError(f"{type(self).__name__} takes no adapters; it needs a method add_adapters")

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """Return token ids ``[N, length]``: start marks, words, end mark, padding. The words of a long text are cut.

        Args:
            length: number of tokens of each text, including marks and padding.
        """
        raise NotImplementedError(self._no_text_tower())

    def end_of_text(self, ids: Tensor) -> Tensor:
        """Return the position of the end mark in texts of token ids ``[N, L]``, ``[N]`` long.

        By default, the end mark is the token with the largest id.
        """
        return ids.argmax(1)

    def check_words(self, words: Sequence[str]) -> None:
        """Check that every word has a token, since prompts of words without tokens would be the same.

        Raises:
            ValueError: some words have no token; the message names them.
        """
        ends = self.end_of_text(self.tokenize(words, self.text_length)).tolist()
        self._refuse_words([word for word, end in zip(words, ends, strict=True) if end <= self.start_marks])

    def _refuse_words(self, words: Sequence[str]) -> None:
        """Raise ``ValueError`` if there are ``words``, which have no token."""
        if words:
            raise ValueError(
                f"{type(self).__name__} has no token for {first_ten([repr(word) for word in words])}; "
                "rename these attributes or objects in the dataset, or use another backbone"
            )

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings ``[..., W]`` of token ids ``[...]``, without positions."""
        raise NotImplementedError(self._no_text_tower())

    def encode_text(self, prompts: Tensor) -> Tensor:
        """Return the last hidden states of embedded prompts, before the final norm; both are ``[N, L, W]``."""
        raise NotImplementedError(self._no_text_tower())

    def encode_text_after(self, start: Tensor, rest: Tensor) -> Tensor:
        """Return ``encode_text`` of prompts that share their first tokens.

        A backbone that can encode the shared tokens once overrides this method.

        Args:
            start: embeddings that every prompt begins with, ``[S, W]``.
            rest: remaining embeddings of each prompt, ``[N, L - S, W]``.

        Returns:
            ``[N, L, W]``.
        """
        return self.encode_text(torch.cat((start.expand(len(rest), -1, -1), rest), 1))

    def encode_sentences(self, texts: Sequence[str]) -> Tensor:
        """Return the features of whole sentences in the joint space, ``[N, D]``."""
        ids = self.tokenize(texts, self.text_length).to(self.scale.device)
        end = self.end_of_text(ids)
        if not self.pads_texts:
            ids = ids[:, : int(end.max()) + 1]
        if self.causal or self.pads_texts:
            return self.pool_text(self.encode_text(self.embed_tokens(ids)), end)
        order = end.argsort(stable=True)
        parts = [
            self.pool_text(self.encode_text(self.embed_tokens(ids[rows, : int(end[rows[0]]) + 1])), end[rows])
            for rows in order.split(end.unique(return_counts=True)[1].tolist())  # texts of the same length
        ]
        return torch.cat(parts)[order.argsort()]

    def pool_text(self, hidden: Tensor, end: Tensor) -> Tensor:
        """Return the features of texts in the joint space, ``[N, D]``; by default the features of their end marks.

        Args:
            hidden: hidden states that ``encode_text`` returned, ``[N, L, W]``.
            end: position of the end mark in each text, ``[N]`` long.
        """
        return self.project_text(hidden[torch.arange(len(hidden), device=hidden.device), end])

    def project_image(self, tokens: Tensor) -> Tensor:
        """Return visual tokens ``[..., V]`` in the joint space, ``[..., D]``."""
        raise NotImplementedError(f"{type(self).__name__} has no projection for visual tokens")

    def project_text(self, tokens: Tensor) -> Tensor:
        """Return text hidden states ``[..., W]`` in the joint space, ``[..., D]``."""
        raise NotImplementedError(self._no_text_tower())

    def _no_text_tower(self) -> str:
        """Return the error message of the text methods."""
        return f"{type(self).__name__} has no text tower; this method needs a CLIP model"


def _no_blocks(backbone: Backbone) -> str:
    """Return the error message of the methods for visual blocks."""
    return f"{type(backbone).__name__} has no visual blocks; this method needs a CLIP with a vision transformer"


class Aggregator(nn.Module, ABC):
    """A module that chooses visual layers and fills ``image.levels`` from ``image.layers``."""

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    def layers(self, depth: int) -> tuple[int, ...]:
        """Return the indices of the layers that ``forward`` uses, in a backbone of ``depth`` layers.

        Raises:
            ValueError: the backbone is not deep enough.
        """
        return ()

    @abstractmethod
    def forward(self, image: ImageFeatures) -> ImageFeatures:
        """Return ``image`` with ``levels`` filled."""


class Interaction(nn.Module, ABC):
    """A module that changes image and text features by each other."""

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    #: True if ``forward`` uses ``image.tokens``. The tokens are then computed for every image.
    reads_tokens: bool = False

    @abstractmethod
    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        """Return the changed features of image and text."""

    def explain(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures, AttentionMaps]:
        """Return the features of ``forward``, with the attention of the texts to the image's tokens.

        An interaction whose texts attend to the tokens overrides this method.

        Raises:
            CzslkitError: the texts do not attend to the tokens; the message names registered interactions that can be
                explained.
        """
        known = ((name, INTERACTIONS[name]) for name in INTERACTIONS)
        explainable = (f"{name} ({cls.__module__})" for name, cls in known if cls.explain is not Interaction.explain)
        raise CzslkitError(
            f"{type(self).__name__} has nothing to explain: its texts do not attend to an image's tokens. "
            f"Interactions that can be explained: {', '.join(explainable)}."
        )


class Head(nn.Module, ABC):
    """A module that turns features into scores, and scores into a loss and a ranking."""

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    @abstractmethod
    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        """Return the raw logits of every branch."""

    @abstractmethod
    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        """Return the training loss, a scalar.

        Args:
            scores: scores of the images of ``batch`` and the candidates ``pairs``.
            pairs: attribute and object index of each candidate, ``[P, 2]``.
        """

    def rank(self, scores: Scores, pairs: Tensor, setting: Setting = VALIDATION) -> Tensor:
        """Return the scores by which the evaluator ranks pairs, ``[B, P]``, without changing ``scores``.

        Args:
            pairs: attribute and object index of each candidate, ``[P, 2]``.
            setting: split, world and number of candidates of the evaluation.
        """
        return scores.pair

    def score_scale(self) -> float:
        """Return the factor that turns the scores of ``rank`` into logits, whose softmax are probabilities.

        By default, the scores are logits. Predictions report probabilities; no metric depends on them.
        """
        return 1.0


BACKBONES = Registry("backbone", Backbone)  # type: ignore[type-abstract]
AGGREGATORS = Registry("aggregator", Aggregator)  # type: ignore[type-abstract]
INTERACTIONS = Registry("interaction", Interaction)  # type: ignore[type-abstract]
HEADS = Registry("head", Head)  # type: ignore[type-abstract]


def cosine(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Return the scaled cosine of every image with every text, ``[B, N]``.

    Args:
        image: ``[B, D]``.
        text: ``[N, D]`` for all images, or ``[B, N, D]`` with separate texts for every image.
        scale: log of the factor, a scalar.

    >>> cosine(torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor(0.0)).tolist()
    [[1.0, 0.0]]
    """
    with unrounded(image.device):  # bfloat16 would leave 2 or 3 digits of a score
        if torch.bfloat16 in (image.dtype, text.dtype):
            image, text = image.float(), text.float()
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        if text.ndim == 2:
            return scale.exp() * image @ text.T
        return scale.exp() * (text @ image.unsqueeze(-1)).squeeze(-1)
