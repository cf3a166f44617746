"""The feasibility of unseen pairs, and the choice of a feasibility threshold for the open world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..types import PairSpace
from .metrics import Metrics
from .score_columns import Array, as_tensor

NO_THRESHOLD = -10.0  # threshold of the original evaluator if every threshold of the grid has AUC 0


def feasibility(space: PairSpace, attr_vectors: Array, obj_vectors: Array) -> Tensor:
    """Return the feasibility of every combination of attribute and object.

    The feasibility of an unseen pair (a, o) is the mean of two cosines: between ``o`` and the most similar object seen
    with ``a``, and between ``a`` and the most similar attribute seen with ``o``; -1 if there is no such word.
    Source: Mancini et al., Open World Compositional Zero-Shot Learning, CVPR 2021, https://arxiv.org/abs/2101.12609.

    Args:
        space: the ``A`` attributes and ``O`` objects, and which pairs are seen.
        attr_vectors: ``[A, D]`` word vectors.
        obj_vectors: ``[O, D]`` word vectors.

    Returns:
        ``[A * O]`` float32 in [-1, 1], in ``product(attrs, objs)`` order; 0 for seen pairs.

    Raises:
        ValueError: the vectors are not one finite vector per attribute and per object.

    >>> space = PairSpace(("dry", "wet"), ("cat", "dog"), torch.tensor([[0, 0], [1, 1]]), torch.tensor([True, True]))
    >>> vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> feasibility(space, vectors, vectors).tolist()
    [0.0, 0.6000000238418579, 0.6000000238418579, 0.0]
    """
    attr_cosines = _pairwise_cosines("attr_vectors", attr_vectors, len(space.attrs))  # [A, A]
    obj_cosines = _pairwise_cosines("obj_vectors", obj_vectors, len(space.objs))  # [O, O]
    seen = torch.zeros(len(space.attrs), len(space.objs), dtype=torch.bool)
    seen[tuple(space.pairs[space.seen].T)] = True
    # An unseen pair is not among the seen pairs that it is compared with, so no word must be excluded.
    by_obj = torch.stack([_highest_cosine(obj_cosines, with_attr) for with_attr in seen])  # [A, O]
    by_attr = torch.stack([_highest_cosine(attr_cosines, with_obj) for with_obj in seen.T], 1)  # [A, O]
    return ((by_obj + by_attr) / 2).masked_fill(seen, 0).float().flatten()


def threshold_grid(feasibility: Array, seen: Array, n: int = 50) -> tuple[float, ...]:
    """Return ``n`` evenly spaced thresholds from the least to the most feasible unseen pair, as in the original search.

    Args:
        feasibility: ``[K]`` float.
        seen: ``[K]`` bool, whether each pair is seen.
        n: number of thresholds.

    Raises:
        ValueError: ``feasibility`` and ``seen`` differ in length, or every pair is seen.

    >>> threshold_grid(torch.tensor([0.0, 0.25, 0.75]), torch.tensor([True, False, False]), n=3)
    (0.25, 0.5, 0.75)
    """
    values, mask = as_tensor("feasibility", feasibility, "float"), as_tensor("seen", seen, "bool")
    if values.ndim != 1 or values.shape != mask.shape:
        raise ValueError(f"feasibility is {list(values.shape)} and seen {list(mask.shape)}, expected [K] both")
    if mask.all():
        raise ValueError(f"all of the {len(mask)} pairs are seen: thresholds need the feasibility of unseen pairs")
    unseen = values[~mask].double()
    return tuple(np.linspace(float(unseen.min()), float(unseen.max()), n).tolist())


def best_threshold(thresholds: Sequence[float], metrics: Sequence[Metrics]) -> float:
    """Return the first threshold with the highest AUC; -10, which excludes nothing, if every AUC is 0.

    Args:
        thresholds: the thresholds of a sweep over validation images.
        metrics: the metrics of that sweep, one per threshold.

    Raises:
        ValueError: the numbers of thresholds and of metrics differ.
    """
    if len(thresholds) != len(metrics):
        raise ValueError(f"{len(thresholds)} thresholds but {len(metrics)} metrics, expected the same number")
    best = max(range(len(metrics)), key=lambda i: metrics[i].auc, default=None)
    return NO_THRESHOLD if best is None or metrics[best].auc == 0 else float(thresholds[best])


def _pairwise_cosines(name: str, vectors: Array, n: int) -> Tensor:
    """Return the cosine of every two of ``n`` vectors, ``[n, n]`` float64, or raise ValueError."""
    values = as_tensor(name, vectors, "float").double()
    if values.ndim != 2 or len(values) != n:
        raise ValueError(f"{name} is {list(values.shape)}, expected [{n}, D], one vector for each name")
    if not values.isfinite().all():
        raise ValueError(f"{name}: vector {int((~values.isfinite().all(1)).nonzero()[0])} is not finite")
    values = torch.nn.functional.normalize(values, dim=1)
    return values @ values.T


def _highest_cosine(cosines: Tensor, seen: Tensor) -> Tensor:
    """Return the highest cosine of each word with a seen word, ``[n]``; -1 if no word is seen.

    Args:
        cosines: ``[n, n]``, cosines between every two words.
        seen: ``[n]`` bool, words that were seen together with a given word of the other kind.
    """
    return cosines[:, seen].amax(1) if seen.any() else cosines.new_full((len(cosines),), -1.0)
