"""What an evaluation reports."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Accuracies:
    """Shares of images in [0, 1] at one bias. A share of no images is 0."""

    attr: float  # over all images; of the best pair, not of the best attribute
    obj: float  # over all images
    pair: float  # over all images
    seen: float  # pair, over images of seen pairs
    unseen: float  # pair, over images of unseen pairs


@dataclass(frozen=True, eq=False)
class Curve:
    """Pair accuracy over images of seen and of unseen pairs as the bias of the unseen pairs grows."""

    biases: Tensor  # [M] float64, not decreasing, in units of the scores
    seen: Tensor  # [M] float64
    unseen: Tensor  # [M] float64

    def to_dict(self) -> dict[str, list[float]]:
        """Lists of floats. The exact curve starts at bias -inf and ends at inf, which strict JSON has no word for."""
        return {name: getattr(self, name).tolist() for name in ("biases", "seen", "unseen")}


@dataclass(frozen=True)
class Metrics:
    """The numbers of one evaluation; accuracies in [0, 1], a share of no images being 0.

    Without images of unseen pairs, or without images of seen ones, ``auc`` and ``best_hm`` are therefore 0.
    """

    auc: float  # area under seen against unseen accuracy
    best_seen: float
    best_unseen: float
    best_hm: float  # the best harmonic mean of the two along the curve
    hm_seen: float  # seen accuracy there
    hm_unseen: float
    hm_bias: float  # the first bias that gives best_hm; may be infinite in the exact curve
    at_zero: Accuracies  # at bias 0
    at_limit: Accuracies  # at the largest bias: infinity, or 1000 in the original's curve
    n_seen: int  # images of seen pairs
    n_unseen: int
    curve: Curve = field(repr=False, compare=False)

    @property
    def attr_acc(self) -> float:
        """Attribute accuracy at bias 0, over all images."""
        return self.at_zero.attr

    @property
    def obj_acc(self) -> float:
        """Object accuracy at bias 0, over all images."""
        return self.at_zero.obj

    def to_dict(self) -> dict[str, object]:
        """Every number but the curve's, ready for strict JSON: an infinite bias becomes ``"inf"`` or ``"-inf"``."""
        numbers = {k: v for k, v in vars(self).items() if k not in ("at_zero", "at_limit", "curve")}
        if math.isinf(self.hm_bias):
            numbers["hm_bias"] = str(self.hm_bias)
        accuracies = {"at_zero": asdict(self.at_zero), "at_limit": asdict(self.at_limit)}
        return {**numbers, "attr_acc": self.attr_acc, "obj_acc": self.obj_acc, **accuracies}

    def original_stats(self) -> dict[str, float]:
        """The same numbers under the names of the original evaluator; its constant ``*_ca`` keys are left out."""
        named = {
            "AUC": self.auc,
            "best_seen": self.best_seen,
            "best_unseen": self.best_unseen,
            "best_hm": self.best_hm,
            "hm_seen": self.hm_seen,
            "hm_unseen": self.hm_unseen,
            "biasterm": self.hm_bias,
            "attr_acc": self.attr_acc,
            "obj_acc": self.obj_acc,
        }
        for prefix, at in (("closed", self.at_limit), ("closed_ub", self.at_zero)):
            named |= {f"{prefix}_{kind}_match": getattr(at, kind) for kind in ("attr", "obj", "seen", "unseen")}
            named[f"{prefix}_match"] = at.pair
        return named
