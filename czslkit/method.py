"""The base class of methods: a backbone, a prompt, an aggregator, an interaction and a head."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .aggregators import Pooled
from .components import Aggregator, Backbone, Head, Interaction
from .deferred import check
from .errors import ConfigError, PluginError, class_in_file
from .interactions import NoInteraction
from .options import parse, schema_problems
from .prediction import Predictor
from .registry import Registry
from .training_hooks import TrainingHooks
from .translation import Translation
from .types import VALIDATION, Batch, Explanation, ImageFeatures, PairSpace, Scores, Setting, TextFeatures


class Method(TrainingHooks, Predictor, nn.Module):
    """A model that scores pairs for images. Most subclasses only choose its parts in ``__init__``.

    A registered subclass has a frozen dataclass ``Options``, and is built by ``Subclass(options, space)``.

    Args:
        space: label space.
        backbone: encoder of images and prompts.
        prompt: module that is called as ``prompt(backbone, pairs)`` with pairs ``[P, 2]`` and returns text features.
        head: module that turns features into scores.
        aggregator: module that chooses and joins visual layers; by default no layers.
        interaction: module that changes image and text features by each other; by default they do not change.

    Raises:
        ValueError: one of the parts is not a ``torch.nn.Module``.
    """

    #: Name in papers, such as ``CSP``, which tables in LaTeX print; subclasses do not inherit it.
    display_name: ClassVar[str] = ""
    #: BibTeX entry of the paper, or only its key, which tables in LaTeX cite; subclasses do not inherit it.
    citation: ClassVar[str] = ""
    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1
    #: Dataclass of the options that a configuration may set; other keys are an error.
    Options: ClassVar[type]
    #: Training settings of the published recipe that differ from the defaults.
    recipe: ClassVar[Mapping[str, Any]] = {}
    #: True if the score of a pair is independent of the other candidates. These may then be scored in chunks.
    chunkable: ClassVar[bool] = True
    #: True if the scores of an image are independent of the batch. The evaluator may then choose the batch size.
    independent: bool = True
    #: True if scoring an image changes the method: it then gets ``begin``, and images one by one in a random order.
    streams: bool = False
    #: False if only test images stream. Without ``begin``, ``rank`` then must not change the method.
    streams_in_validation: ClassVar[bool] = True
    #: The pairs that ``rank`` itself never predicts, in words for the caption of tables; empty if there are none.
    masks_pairs: str = ""
    #: Names of the authors' tensors and settings; None if their checkpoints cannot be read.
    translation: ClassVar[Translation | None] = None
    #: Names of tensors in the authors' checkpoint that their program never uses; this method does not load them.
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
        aggregator, interaction = aggregator or Pooled(), interaction or NoInteraction()
        parts = {"backbone": backbone, "prompt": prompt, "head": head, "aggregator": aggregator}
        for name, part in (parts | {"interaction": interaction}).items():
            if not isinstance(part, nn.Module):
                raise ValueError(
                    f"the {name} of {type(self).__name__} is {part!r}, expected a torch.nn.Module: "
                    "the parameters of anything else would never be trained"
                )
        self.space, self.backbone, self.prompt, self.head = space, backbone, prompt, head
        self.aggregator, self.interaction = aggregator, interaction
        self.layers = self.aggregator.layers(backbone.depth)

    def train(self, mode: bool = True) -> Method:
        """Set training or evaluation mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not any(p.requires_grad for p in self.backbone.parameters()):
            self.backbone.eval()
        return self

    @property
    def trains(self) -> bool:
        """True if the method has parameters to learn."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def device(self) -> torch.device:
        """The device of the method's parameters and buffers."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def text(self, pairs: Tensor) -> TextFeatures:
        """Return the text features of up to about 300,000 candidates ``[P, 2]``. They do not depend on images."""
        features: TextFeatures = self.prompt(self.backbone, pairs)
        return features

    def text_in(self, world: str, pairs: Tensor) -> TextFeatures:
        """Return the text features of candidates of the ``closed`` or ``open`` world; by default those of ``text``."""
        return self.text(pairs)

    def encode(self, images: Tensor) -> ImageFeatures:
        """Return the features of images ``[B, 3, H, W]``. They do not depend on candidates.

        Raises:
            PluginError: the backbone does not return image features.
        """
        features: Any = self.backbone.encode_image(images, self.layers)
        if not isinstance(features, ImageFeatures):
            raise PluginError(
                f"encode_image of {class_in_file(type(self.backbone))} returned a {type(features).__name__}, expected "
                "ImageFeatures: return ImageFeatures(pooled)"
            )
        return features

    def forward(self, images: Tensor | ImageFeatures, text: TextFeatures) -> Scores:
        """Return the raw logits of every branch.

        Args:
            images: normalised pixels ``[B, 3, H, W]``, or the features that ``encode`` returned.
            text: features that ``text`` returned.
        """
        image = images if isinstance(images, ImageFeatures) else self.encode(images)
        scores: Scores = self.head(*self.interaction(self.aggregator(image), text, self.backbone))
        return scores

    def rank(self, images: Tensor | ImageFeatures, text: TextFeatures, setting: Setting = VALIDATION) -> Tensor:
        """Return the scores by which the evaluator ranks pairs, ``[B, P]``.

        Args:
            images, text: see ``forward``.
            setting: split, world and number of candidates; by default the setting in which the best epoch is chosen.
        """
        return self.head.rank(self(images, text), text.pairs, setting)

    @torch.no_grad()
    def explain(self, images: Tensor | ImageFeatures, text: TextFeatures, setting: Setting = VALIDATION) -> Explanation:
        """Return the scores of ``forward`` and ``rank`` with the attention of every text to every image.

        It is meant for a few images, a few pairs and evaluation mode: memory grows with images x texts x visual tokens.

        Raises:
            CzslkitError: the texts do not attend to images; the message names interactions that can be explained.
        """
        image = images if isinstance(images, ImageFeatures) else self.encode(images)
        image, changed_text, maps = self.interaction.explain(self.aggregator(image), text, self.backbone)
        scores: Scores = self.head(image, changed_text)
        ranked = self.head.rank(scores, text.pairs, setting)
        return Explanation(maps.attention, maps.weights, maps.contribution, text.pairs, scores, ranked)

    def begin(self, setting: Setting, candidates: Tensor) -> None:
        """Start a pass over a stream of images; it is called only if the method ``streams``.

        Every pass has a copy of the trained method. Then texts are encoded, and ``rank`` is called image by image; it
        may use ``torch.enable_grad``. A method that changes its encoder sets ``caches_features = False``.

        Args:
            setting: split, world and number of candidates of the pass.
            candidates: the pairs that will be scored, ``[P, 2]``.
        """

    def feasibility(self) -> Tensor:
        """Return how plausible every pair is, from -1 to 1, ``[A * O]``, after a training; see ``eval.feasibility``.

        Raises:
            ConfigError: the method has no feasibility of its own.
        """
        raise ConfigError(
            [
                f"eval.feasibility is method, but {type(self).__name__} has no feasibility of its own: define "
                "feasibility() in it, or set eval.feasibility to file, clip or the path of a file"
            ]
        )

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor | Mapping[str, Tensor]:
        """Return the training loss of ``batch`` with the candidates ``pairs`` ``[P, 2]``, a scalar.

        A method may return several scalars by name instead. The loss is then their sum, and the history of the training
        and its log have each of them.

        Raises:
            ValueError: an image shows a pair that is not a candidate.
        """
        return self.head.loss(self(batch.images, self.text(pairs)), batch, pairs)

    def validation_loss(
        self, batch: Batch, text: TextFeatures, *, fused: bool = False
    ) -> Tensor | Mapping[str, Tensor]:
        """Return the loss of a batch of validation images, by default ``loss``; see it for the forms of the result.

        Args:
            text: text features of the candidates, which are encoded once for all batches.
            fused: use the scores that pairs are ranked by as pair logits, as Troika's and MSCI's programs do.

        Raises:
            ConfigError: the method has a loss of its own, which cannot use the fused scores.
        """
        if type(self).loss is not Method.loss:
            if fused:
                raise ConfigError(
                    [
                        f"{type(self).__name__} has a loss of its own, which has no fused scores: set "
                        "train.fused_validation_loss to false, or override validation_loss"
                    ]
                )
            return self.loss(batch, text.pairs)
        scores = self(batch.images, text)
        if fused:
            scores = replace(scores, pair=self.head.rank(scores, text.pairs))
        return self.head.loss(scores, batch, text.pairs)


METHODS = Registry("method", Method)


@dataclass(frozen=True)
class NoOptions:
    """The empty options of a method without options."""


Method.Options = NoOptions


def build(name: str, space: PairSpace, **options: Any) -> Method:
    """Build a registered method for a label space, on the CPU.

    Args:
        name: name of the method, one that ``czslkit list`` prints.
        space: label space with the words and pairs to recognise.
        options: options of the method, by keyword.

    Raises:
        UnknownNameError: no method or backbone has the name.
        ConfigError: the method does not have some options or cannot use them; the message lists all of them.

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
    """Build a method from its parsed options.

    Args:
        where: start of every error message, such as the method's name.

    Raises:
        ConfigError: some options are invalid or do not fit the backbone.
        PluginError: the class cannot be built; the message has what to change. The prompt, the head and the method also
            raise it when they are called and return a value of a wrong type.
    """
    if problems := class_problems(cls, where=where):
        raise ConfigError(problems)
    try:
        method: Method = cls(options, space)  # type: ignore[call-arg, arg-type]
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError([f"{where}: {error}"]) from error
    except (AttributeError, TypeError) as error:
        if "before Module.__init__() call" in str(error) or "Method.__init__()" in str(error):
            raise PluginError(f"{where}: {class_in_file(cls)}: {error}. {_CALL_SUPER}") from error
        raise
    if not isinstance(getattr(method, "backbone", None), nn.Module):
        raise PluginError(f"{where}: {class_in_file(cls)} does not call Method.__init__. {_CALL_SUPER}")
    if not isinstance(method.masks_pairs, str):
        raise PluginError(
            f"{where}: masks_pairs of {class_in_file(cls)} is {method.masks_pairs!r}, expected words for the caption "
            'of tables that say which pairs rank never predicts, such as "pairs of an unseen word"; or ""'
        )
    for part, kind in {method.prompt: TextFeatures, method.head: Scores, method: Scores}.items():
        part.register_forward_hook(partial(_check_result, where, kind))
    return method


def ranked(method: Method, images: Tensor | ImageFeatures, text: TextFeatures, setting: Setting) -> Tensor:
    """Return what ``method.rank`` returns, ``[B, P]``; the arguments are its arguments.

    Raises:
        PluginError: it is no tensor of this shape, or has scores that are NaN or positively infinite.
    """
    scores: Any = method.rank(images, text, setting)
    count = len(images) if isinstance(images, Tensor) else len(images.pooled)
    if not isinstance(scores, Tensor):
        found = f"a {type(scores).__name__}"
    elif scores.shape != (count, len(text.pairs)):
        found = f"a tensor {list(scores.shape)}"
    else:
        finite = (scores < torch.inf).all()  # false for NaN
        check(finite, partial(_rank_error, method, count, len(text.pairs), "scores that are NaN or infinite"))
        return scores
    raise _rank_error(method, count, len(text.pairs), found)


def _rank_error(method: Method, images: int, pairs: int, found: str) -> PluginError:
    """Return the error of a method whose ``rank`` returned ``found``."""
    return PluginError(
        f"rank of {class_in_file(type(method))} returned {found}, expected a tensor [{images}, {pairs}] of "
        "finite numbers, or of -inf for pairs that are never predicted"
    )


def finite_scores(method: Method, scores: Tensor) -> Tensor:
    """Return the scores of a method as float32, with a number below all others for -inf if it masks pairs."""
    scores = scores.float()
    if not method.masks_pairs:
        return scores
    lowest = torch.finfo(scores.dtype).min / 4  # it stays finite when the protocol doubles it or adds a bias
    return scores.masked_fill(scores == -torch.inf, lowest)


def class_problems(cls: type[Method], *, where: str) -> list[str]:
    """Return the mistakes in a method's class that are visible without building it, each with what to change.

    Args:
        where: start of every message, such as the method's name.
    """
    problems = [f"{where}: {problem}" for problem in schema_problems(getattr(cls, "Options", None))]
    signature = inspect.signature(cls)
    try:
        signature.bind(None, None)
        fits = next(iter(signature.parameters)) != "space"
    except TypeError:
        fits = False
    if not fits:
        problems.append(
            f"{where}: {class_in_file(cls)} takes {signature}, but a method is built as "
            f"{cls.__name__}(options, space): write def __init__(self, options, space)"
        )
    return problems


#: What to change if a subclass does not call ``Method.__init__`` as it must.
_CALL_SUPER = (
    "Call super().__init__(space=space, backbone=..., prompt=..., head=...) before __init__ sets modules on self"
)


def _check_result(where: str, kind: type, module: nn.Module, arguments: Any, result: Any) -> None:
    """Check what a prompt, a head or a method returned, as a forward hook.

    Raises:
        PluginError: it is not a ``kind``.
    """
    if not isinstance(result, kind):
        raise PluginError(
            f"{where}: the call of {class_in_file(type(module))} returned a {type(result).__name__}, expected "
            f"czslkit.{kind.__name__}: return {kind.__name__}({'pairs, ' if kind is TextFeatures else ''}...)"
        )
