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
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import CzslkitError
from .registry import Registry
from .types import VALIDATION, AttentionMaps, Batch, ImageFeatures, Scores, Setting, TextFeatures


class Backbone(nn.Module, ABC):
    """An encoder of images and prompts into one embedding space of width ``dim``.

    ``BACKBONES[name](argument, **options)`` builds a backbone. ``argument`` is the text after the slash in a setting
    such as ``timm/resnet18``, and empty if the setting has no slash.

    A backbone without a text tower does not override the text methods; they raise an error that names the backbone.
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    dim: int  # joint width D
    depth: int  # number of visual layers that ``encode_image`` can return
    visual_tokens: int  # number of tokens T in a visual layer; 0 without layers
    visual_width: int  # width V of a visual token; 0 without layers
    token_width: int  # width W of a text token; 0 without a text tower
    image_size: int  # height and width of an image in pixels
    mean: tuple[float, ...]  # pixel mean of each channel, from 0 to 1
    std: tuple[float, ...]  # pixel standard deviation of each channel
    scale: Tensor  # log of the logit scale, a scalar

    @abstractmethod
    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        """Return the features of ``images`` ``[B, 3, H, W]``.

        Args:
            layers: indices of visual layers to return as well, projected to ``[B, T, D]`` each.
        """

    def image_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that ``encode_image`` uses. A backbone with a text tower overrides this method."""
        return self.parameters()

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """Return token ids ``[N, length]``: start mark, words, end mark, padding. The words of a long text are cut.

        Args:
            length: number of tokens of each text, including both marks.
        """
        raise NotImplementedError(self._no_text_tower())

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
        """Return the features of whole sentences in the joint space, ``[N, D]``, at the end mark (largest token id)."""
        ids = self.tokenize(texts, 77).to(self.scale.device)
        end = ids.argmax(1)
        ids = ids[:, : int(end.max()) + 1]  # tokens after the end mark have no effect
        hidden = self.encode_text(self.embed_tokens(ids))  # [N, L, W]
        return self.project_text(hidden[torch.arange(len(ids)), end])

    def project_image(self, tokens: Tensor) -> Tensor:
        """Return visual tokens ``[..., V]`` in the joint space, ``[..., D]``."""
        raise NotImplementedError(f"{type(self).__name__} has no projection for visual tokens")

    def project_text(self, tokens: Tensor) -> Tensor:
        """Return text hidden states ``[..., W]`` in the joint space, ``[..., D]``."""
        raise NotImplementedError(self._no_text_tower())

    def _no_text_tower(self) -> str:
        """Return the error message of the text methods."""
        return f"{type(self).__name__} has no text tower; this method needs a CLIP model"


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
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    if text.ndim == 2:
        return scale.exp() * image @ text.T
    return scale.exp() * (text @ image.unsqueeze(-1)).squeeze(-1)
