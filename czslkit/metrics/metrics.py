"""The results of an evaluation: accuracies, curves and the metrics computed from them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from torch import Tensor

from .names import undefined_metrics


@dataclass(frozen=True)
class Accuracies:
    """Shares of images that are right at one bias, in [0, 1]; 0 if there are no images."""

    attr: float  # attribute of the predicted pair, over all images
    obj: float  # object of the predicted pair, over all images
    pair: float  # predicted pair, over all images
    seen: float  # predicted pair, over images of seen pairs
    unseen: float  # predicted pair, over images of unseen pairs


@dataclass(frozen=True, eq=False)
class Curve:
    """The pair accuracy over images of seen and of unseen pairs at ``M`` growing biases of unseen pairs."""

    biases: Tensor  # [M] float64, ascending, in units of the scores
    seen: Tensor  # [M] float64, in [0, 1]
    unseen: Tensor  # [M] float64, in [0, 1]

    def to_dict(self) -> dict[str, list[float]]:
        """Return the points as lists of floats; biases may be infinite, which strict JSON cannot express."""
        return {name: getattr(self, name).tolist() for name in ("biases", "seen", "unseen")}


@dataclass(frozen=True)
class Metrics:
    """The metrics of one evaluation; accuracies are in [0, 1], and 0 if there are no images.

    Without images of seen pairs, or without images of unseen pairs, ``auc`` and ``best_hm`` are therefore 0, although
    they are undefined; ``undefined`` names such metrics, and tables print a dash for them.
    """

    auc: float  # area under the curve of seen against unseen accuracy
    best_seen: float  # highest seen accuracy of the curve
    best_unseen: float  # highest unseen accuracy of the curve
    best_hm: float  # highest harmonic mean of seen and unseen accuracy of the curve
    hm_seen: float  # seen accuracy at hm_bias
    hm_unseen: float  # unseen accuracy at hm_bias
    hm_bias: float  # first bias that gives best_hm; may be infinite in the exact curve
    at_zero: Accuracies  # at bias 0
    at_limit: Accuracies  # at the largest bias: infinity in the exact curve, 1000 in the original one
    n_seen: int  # number of images of seen pairs
    n_unseen: int  # number of images of unseen pairs
    curve: Curve = field(repr=False, compare=False)

    @property
    def undefined(self) -> dict[str, str]:
        """The reason for each metric that is undefined, such as ``{"auc": "no image shows an unseen pair"}``."""
        bins = "exact" if math.isinf(self.curve.biases[-1]) else "original"
        return undefined_metrics(vars(self), bins)

    @property
    def attr_acc(self) -> float:
        """The attribute accuracy at bias 0, over all images."""
        return self.at_zero.attr

    @property
    def obj_acc(self) -> float:
        """The object accuracy at bias 0, over all images."""
        return self.at_zero.obj

    def to_dict(self) -> dict[str, object]:
        """Return every number except the curve, for strict JSON: an infinite bias becomes ``"inf"`` or ``"-inf"``."""
        numbers = {k: v for k, v in vars(self).items() if k not in ("at_zero", "at_limit", "curve")}
        if math.isinf(self.hm_bias):
            numbers["hm_bias"] = str(self.hm_bias)
        accuracies = {"at_zero": asdict(self.at_zero), "at_limit": asdict(self.at_limit)}
        return {**numbers, "attr_acc": self.attr_acc, "obj_acc": self.obj_acc, **accuracies}
