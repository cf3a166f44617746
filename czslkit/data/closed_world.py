"""The candidate pairs of the closed world."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import PairSpace


def closed_world_candidates(space: PairSpace, split_pairs: Tensor) -> Tensor:
    """Return the mask of the closed-world candidates of a split: the training pairs and the pairs of the split.

    Pairs of the other split of validation and test are columns of the scores, but never predicted.

    Args:
        space: the label space with ``P`` pairs, of which the training pairs are seen.
        split_pairs: ``[p, 2]`` long, the pairs of the validation or of the test split.

    Returns:
        ``[P]`` bool.
    """
    return space.seen | torch.isin(space.flat(), split_pairs[:, 0] * len(space.objs) + split_pairs[:, 1])
