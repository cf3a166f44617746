"""Predictions for new photos: what a method returns, and the base class that gives ``predict`` to every method."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .errors import ConfigError
from .types import PairSpace


@dataclass(frozen=True, eq=False)
class Calibration:
    """What the validation split chose for predictions, as far as it is known."""

    bias: Mapping[str, float] = field(default_factory=dict)  # by world: added to the scores of unseen pairs
    #: [A * O] bool in product(attrs, objs) order, the unseen pairs to predict in the open world; None for all
    feasible: Tensor | None = None


@dataclass(frozen=True)
class PredictedPair:
    """A pair that a method names for an image."""

    attr: str
    obj: str
    score: float  # the score by which pairs are ranked; that of an unseen pair includes the bias
    probability: float  # share of the pair in a softmax of the scores of all candidates
    attr_probability: float  # sum of the probabilities of all candidates with this attribute
    obj_probability: float  # sum of the probabilities of all candidates with this object
    seen: bool  # whether training images show the pair


@dataclass(frozen=True, eq=False)
class Prediction:
    """The best pairs of one image, and how probable every attribute and every object is."""

    image: str  # path of the image, or its number in the order given, from 0
    pairs: tuple[PredictedPair, ...]  # best first
    attrs: Tensor  # probability of each attribute of the label space, then of each new one that was named, [A]
    objs: Tensor  # probability of each object of the label space, then of each new one that was named, [O]
    error: str = ""  # why the image cannot be read; there are then no pairs


class Predictor:
    """The base class of methods that names the pairs of new photos."""

    #: What the validation split chose for ``predict``; ``czslkit.load`` reads it.
    calibration: Calibration = Calibration()

    def predict(self, images: Any, pairs: Any = None, top: int = 5, **settings: Any) -> list[Prediction]:
        """Return the best pairs of images, one :class:`Prediction` for each in their order.

        The scores are those of the evaluation on a test split. The method is left in evaluation mode.

        Args:
            images: paths, PIL images or uint8 arrays ``[H, W]`` or ``[H, W, 3]``; or a single one of them.
            pairs: the candidates: names such as ``"wet dog"``, attributes or objects, in a list or with commas between
                them, or ``[K, 2]`` long; by default all pairs of the world.
            top: number of pairs to return for an image.
            settings: ``world``, ``bias``, ``batch_size``, ``workers``, ``progress`` and ``memory``; see
                ``czslkit.predict.predict_images``.

        Raises:
            ConfigError: an argument cannot be used; the message has what is expected.
        """
        above = importlib.import_module("czslkit.predict")  # which stands on this module, so it is found when called
        found: list[Prediction] = above.predict_images(self, images, pairs, top, **settings)
        return found

    def with_words(self, space: PairSpace) -> Predictor:
        """Return this method for a label space with more words, which ``predict`` was asked for.

        A method overrides it if it can name words that its training did not have. The weights may be shared.

        Args:
            space: label space that starts with the attributes and objects of this method.

        Raises:
            ConfigError: the method only knows the words of its training, as by default.
        """
        raise ConfigError([f"{type(self).__name__} only knows the words of its training"])
