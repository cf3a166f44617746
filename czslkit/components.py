"""The four component kinds. Each has one job and one call: the page a plugin author reads.

A method sends images through ``backbone -> aggregator -> interaction -> head``; a prompt
turns candidate pairs into the text side. A component registered here is found by name::

    @AGGREGATORS.register("mine")
    class Mine(Aggregator):
        def forward(self, image): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import CzslkitError
from .registry import Registry
from .types import VALIDATION, AttentionMaps, Batch, ImageFeatures, Scores, Setting, TextFeatures


class Backbone(nn.Module, ABC):
    """Images and prompts into one embedding space of width ``dim``.

    ``BACKBONES[name](argument, **options)`` builds one: ``argument`` is what follows the
    slash in a setting such as ``timm/resnet18``, empty without one.

    A backbone without a text tower need not override the text methods; asking one of
    them is an error that names the backbone.
    """

    dim: int  # D
    depth: int  # visual layers that ``encode_image`` can return; 0 if none
    visual_tokens: int  # T of the tokens that it returns; 0 if none
    visual_width: int  # V
    token_width: int  # W
    image_size: int  # pixels, square
    mean: tuple[float, ...]  # of each channel, on a scale from 0 to 1
    std: tuple[float, ...]
    scale: Tensor  # log of the logit scale, a scalar

    @abstractmethod
    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        """Features of ``images`` ``[B, 3, H, W]``, with the named ``layers`` projected, ``[B, T, D]`` each."""

    def image_parameters(self) -> Iterator[nn.Parameter]:
        """What ``encode_image`` depends on; everything unless there is a text tower, too."""
        return self.parameters()

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """Token ids ``[N, length]``: start, words, end, padding; over-long texts keep their end mark."""
        raise NotImplementedError(self._no_text())

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token ids ``[...]`` to embeddings ``[..., W]``, without positions."""
        raise NotImplementedError(self._no_text())

    def encode_text(self, prompts: Tensor) -> Tensor:
        """Embedded prompts to last hidden states before the final norm, both ``[N, L, W]``."""
        raise NotImplementedError(self._no_text())

    def encode_text_after(self, start: Tensor, rest: Tensor) -> Tensor:
        """``encode_text`` of prompts that begin with ``start`` ``[S, W]``, and go on with ``rest``, ``[N, L - S, W]``.

        To override where that can be had for less than the whole prompts.
        """
        return self.encode_text(torch.cat((start.expand(len(rest), -1, -1), rest), 1))

    def encode_sentences(self, texts: Sequence[str]) -> Tensor:
        """Whole sentences into the joint space, ``[N, D]``; read at the end mark, the largest token id."""
        ids = self.tokenize(texts, 77).to(self.scale.device)
        end = ids.argmax(1)
        ids = ids[:, : int(end.max()) + 1]  # what follows the end mark is never read
        hidden = self.encode_text(self.embed_tokens(ids))  # [N, L, W]
        return self.project_text(hidden[torch.arange(len(ids)), end])

    def project_image(self, tokens: Tensor) -> Tensor:
        """Visual tokens ``[..., V]`` into the joint space, ``[..., D]``."""
        raise NotImplementedError(f"{type(self).__name__} has no projection for visual tokens")

    def project_text(self, tokens: Tensor) -> Tensor:
        """Text hidden states ``[..., W]`` into the joint space, ``[..., D]``."""
        raise NotImplementedError(self._no_text())

    def _no_text(self) -> str:
        return f"{type(self).__name__} has no text tower; this method needs a CLIP model"


class Aggregator(nn.Module, ABC):
    """Fills ``image.levels`` from ``image.layers``."""

    def layers(self, depth: int) -> tuple[int, ...]:
        """Which of the backbone's ``depth`` layers ``forward`` wants, by index.

        Raises:
            ValueError: the backbone is not deep enough.
        """
        return ()

    @abstractmethod
    def forward(self, image: ImageFeatures) -> ImageFeatures: ...


class Interaction(nn.Module, ABC):
    """Lets image and text see each other; features in, features out."""

    #: It reads ``image.tokens``, which are then kept or computed for every image.
    reads_tokens: bool = False

    @abstractmethod
    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]: ...

    def explain(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures, AttentionMaps]:
        """As ``forward``, with what the texts read; for interactions in which texts attend to an image's tokens.

        Raises:
            CzslkitError: this is none of them; names those that are registered.
        """
        known = ((name, INTERACTIONS[name]) for name in INTERACTIONS)
        able = (f"{name} ({cls.__module__})" for name, cls in known if cls.explain is not Interaction.explain)
        raise CzslkitError(
            f"{type(self).__name__} has nothing to explain: in it, no text attends to an image's tokens. "
            f"Interactions that can be explained: {', '.join(able)}."
        )


class Head(nn.Module, ABC):
    """Features into scores; scores into a loss and a ranking."""

    @abstractmethod
    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores: ...

    @abstractmethod
    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        """Scalar, from the scores of ``batch`` against the candidates ``pairs`` ``[P, 2]``."""

    def rank(self, scores: Scores, pairs: Tensor, setting: Setting = VALIDATION) -> Tensor:
        """One number per image and pair, ``[B, P]``; the evaluator sorts by it. Changes nothing."""
        return scores.pair


BACKBONES = Registry("backbone", Backbone)  # type: ignore[type-abstract]
AGGREGATORS = Registry("aggregator", Aggregator)  # type: ignore[type-abstract]
INTERACTIONS = Registry("interaction", Interaction)  # type: ignore[type-abstract]
HEADS = Registry("head", Head)  # type: ignore[type-abstract]


def cosine(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Scaled cosine of ``[B, D]`` with ``[N, D]`` or ``[B, N, D]``, as ``[B, N]``.

    Args:
        scale: log of the factor, a scalar.

    >>> import torch
    >>> cosine(torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor(0.0)).tolist()
    [[1.0, 0.0]]
    """
    image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
    if text.ndim == 2:
        return scale.exp() * image @ text.T
    return scale.exp() * (text @ image.unsqueeze(-1)).squeeze(-1)
