"""The choice of a feasibility threshold for the open world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metrics import Metrics
from .score_columns import Array, as_tensor

NO_THRESHOLD = -10.0  # threshold of the original evaluator if every threshold of the grid has AUC 0


def threshold_grid(feasibility: Array, seen: Array, n: int = 50) -> tuple[float, ...]:
    """Return ``n`` evenly spaced thresholds from the least to the most feasible unseen pair, as in the original search.

    Args:
        feasibility: ``[K]`` float.
        seen: ``[K]`` bool, whether each pair is seen.
        n: number of thresholds.

    Raises:
        ValueError: ``feasibility`` and ``seen`` differ in length, or every pair is seen.

    >>> import torch
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
