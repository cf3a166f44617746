"""A method is a backbone, a prompt and three more components, wired once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .aggregators import Pooled
from .components import Aggregator, Backbone, Head, Interaction
from .errors import ConfigError
from .interactions import NoInteraction
from .options import parse
from .registry import Registry
from .translation import Translation
from .types import VALIDATION, Batch, Explanation, ImageFeatures, PairSpace, Scores, Setting, TextFeatures

Prompt = Callable[[Backbone, Tensor], TextFeatures]


class Method(nn.Module):
    """Images to pair scores. Subclasses choose parts in ``__init__``; few override more.

    Args:
        space: the label space.
        backbone: images and prompts into one space.
        prompt: candidate pairs ``[P, 2]`` to text features.
        head: features to scores.
        aggregator: which visual layers to use, and how; none by default.
        interaction: how text and image see each other; not at all by default.

    A registered subclass names its settings in ``Options``, a frozen dataclass, and is
    built as ``Subclass(options, space)``.
    """

    #: What a config file may set; unknown keys are an error.
    Options: ClassVar[type]
    #: Training settings of the published recipe, where they differ from the defaults.
    recipe: ClassVar[Mapping[str, Any]] = {}
    #: A pair's score does not depend on which other pairs are candidates, so the
    #: evaluator may encode the candidates in chunks.
    chunkable: ClassVar[bool] = True
    #: An image's scores do not depend on its batch, so the evaluator may score fewer images at a time.
    independent: bool = True
    #: How a checkpoint of the authors reads as ours; None if there is no such program.
    translation: ClassVar[Translation | None] = None
    #: Tensors of the authors' checkpoint that their program never uses, not kept.
    unused: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        space: PairSpace,
        backbone: Backbone,
        prompt: nn.Module,
        head: Head,
        aggregator: Aggregator | None = None,
        interaction: Interaction | None = None,
    ) -> None:
        super().__init__()
        self.space, self.backbone, self.prompt, self.head = space, backbone, prompt, head
        self.aggregator = aggregator or Pooled()
        self.interaction = interaction or NoInteraction()
        self.layers = self.aggregator.layers(backbone.depth)

    def train(self, mode: bool = True) -> Method:
        """As ``nn.Module.train``, but a backbone with nothing to learn stays in evaluation mode."""
        super().train(mode)
        if not any(p.requires_grad for p in self.backbone.parameters()):
            self.backbone.eval()
        return self

    @property
    def trains(self) -> bool:
        """Whether there is anything to learn."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where its parameters and buffers are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    @property
    def frozen_image(self) -> bool:
        """Whether all that is used of an image is pooled features that never change: they are computed once."""
        more_than_pooled = self.layers or self.interaction.reads_tokens
        return not more_than_pooled and not any(p.requires_grad for p in self.backbone.image_parameters())

    def text(self, pairs: Tensor) -> TextFeatures:
        """Everything that does not depend on an image, for candidates ``[P, 2]``, of which there may be 300,000."""
        features: TextFeatures = self.prompt(self.backbone, pairs)
        return features

    def encode(self, images: Tensor) -> ImageFeatures:
        """Everything that does not depend on the candidates, for images ``[B, 3, H, W]``."""
        return self.backbone.encode_image(images, self.layers)

    def forward(self, images: Tensor | ImageFeatures, text: TextFeatures) -> Scores:
        """Raw logits of every branch; ``images`` ``[B, 3, H, W]``, or what ``encode`` made of them."""
        image = images if isinstance(images, ImageFeatures) else self.encode(images)
        scores: Scores = self.head(*self.interaction(self.aggregator(image), text, self.backbone))
        return scores

    def rank(self, images: Tensor | ImageFeatures, text: TextFeatures, setting: Setting = VALIDATION) -> Tensor:
        """What the evaluator sorts by, ``[B, P]``; the default setting is that of choosing an epoch."""
        return self.head.rank(self(images, text), text.pairs, setting)

    @torch.no_grad()
    def explain(self, images: Tensor | ImageFeatures, text: TextFeatures, setting: Setting = VALIDATION) -> Explanation:
        """Scores as ``forward`` and ``rank`` give them, with what every text read in every image.

        Meant for a few images, a few pairs and evaluation mode: memory grows with images x texts x visual tokens.

        Raises:
            CzslkitError: the interaction has nothing to show; names those that have.
        """
        image = images if isinstance(images, ImageFeatures) else self.encode(images)
        seen, read, reading = self.interaction.explain(self.aggregator(image), text, self.backbone)
        scores: Scores = self.head(seen, read)
        ranked = self.head.rank(scores, text.pairs, setting)
        return Explanation(reading.attention, reading.weights, reading.contribution, text.pairs, scores, ranked)

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor:
        """Scalar training loss of ``batch`` against the candidates ``pairs`` ``[P, 2]``.

        Raises:
            ValueError: an image shows a pair that is not a candidate.
        """
        return self.head.loss(self(batch.images, self.text(pairs)), batch, pairs)


METHODS = Registry("method", Method)


@dataclass(frozen=True)
class NoOptions:
    """For a method that has nothing to set."""


Method.Options = NoOptions


def build(name: str, space: PairSpace, **options: Any) -> Method:
    """A registered method for a label space, on the CPU.

    Args:
        name: as ``czslkit list`` shows it.
        space: the words and pairs to recognise.
        options: the method's own settings, by keyword.

    Raises:
        UnknownNameError: no such method or backbone.
        ConfigError: settings that the method does not have or cannot use, all of them.

    >>> import torch, czslkit
    >>> pairs = torch.tensor([[0, 0], [0, 1], [1, 1]])
    >>> space = czslkit.PairSpace(("dotted", "wet"), ("heart", "star"), pairs, torch.tensor([True, True, False]))
    >>> method = czslkit.build("clip", space, backbone="demo").eval()
    >>> method.rank(torch.zeros(2, 3, 64, 64), method.text(pairs)).shape
    torch.Size([2, 3])
    """
    cls = METHODS[name]
    return construct(cls, parse(cls.Options, options, where=name), space, where=name)


def construct(cls: type[Method], options: Any, space: PairSpace, *, where: str) -> Method:
    """A method from its parsed options.

    Raises:
        ConfigError: settings that do not fit the backbone they name; starts with ``where``.
    """
    try:
        return cls(options, space)  # type: ignore[call-arg, arg-type]
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError([f"{where}: {error}"]) from error


def learned_state(method: Method) -> dict[str, Tensor]:
    """Everything that training changes: trained parameters, and buffers such as running means."""
    frozen = {name for name, p in method.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in method.state_dict().items() if name not in frozen}


def load_learned(method: Method, values: Mapping[str, Tensor]) -> None:
    """Put ``values``, as ``learned`` gave them, in their places."""
    method.load_state_dict({**method.state_dict(), **values})
