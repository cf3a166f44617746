"""The feasibility of unseen pairs: how plausible they are by the similarity of their words to words of seen pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from .metrics.score_columns import Array, as_tensor
from .types import PairSpace


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
