"""Percentile bootstrap over test images, from a few numbers per image; numpy alone.

A resample is a whole number for each image: how often it was drawn. Its curve is then a cumulative sum over the images
in the order in which they turn, and many resamples are many columns of one array. The draws depend on nothing but the
number of images and the seed, so methods measured on the same images meet in the same resamples: what is paired in the
comparison of two is the test set. What a training would be like that was done again is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .outcomes import Outcomes

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95
STEPS = 20  # about how many biases the original aims for
BLOCK = 1 << 20  # draws handled at a time
#: What is resampled, by the names that metrics have.
NAMES = ("auc", "best_seen", "best_unseen", "best_hm", "attr_acc", "obj_acc")

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]


def draws(n: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[Ints]:
    """How often each of ``n`` images is in each resample of ``n`` drawn with repetition, in blocks ``[n, r]``.

    >>> sum(block.sum(0).tolist() == [7] * block.shape[1] for block in draws(7))
    1
    """
    random = np.random.default_rng(seed)
    width = max(BLOCK // n, 1)
    for start in range(0, resamples, width):
        r = min(width, resamples - start)
        images = random.integers(n, size=(r, n))
        flat = images * r + np.arange(r)[:, None]
        yield np.bincount(flat.ravel(), minlength=n * r).astype(np.int32).reshape(n, r)


def resampled(
    outcomes: Outcomes, bins: str = "exact", resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Floats]:
    """The metrics of each resample, ``[resamples]`` each, by ``NAMES``.

    Raises:
        ValueError: no images, or no such ``bins``.
    """
    if not len(outcomes):
        raise ValueError("there are no images to draw from")
    blocks = [weighted(outcomes, block, bins) for block in draws(len(outcomes), resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in NAMES}


def weighted(outcomes: Outcomes, weights: Ints, bins: str = "exact") -> dict[str, Floats]:
    """The metrics of images that are there so many times each.

    Args:
        outcomes: of ``N`` images.
        weights: ``[N, r]``, a column for each collection of them; none is empty.
        bins: ``"exact"`` or ``"original"``. With the latter each collection has the biases that the original
            evaluator would choose for it.

    Returns:
        ``[r]`` each, by ``NAMES``; what :func:`czslkit.evaluate` gives for images with repetition.

    Raises:
        ValueError: no such ``bins``.
    """
    if bins not in _CURVES:
        raise ValueError(f"bins must be one of {', '.join(map(repr, _CURVES))}, got {bins!r}")
    seen, unseen = _CURVES[bins](outcomes, weights)
    with np.errstate(divide="ignore"):
        mean = 2 / (1 / seen + 1 / unseen)  # 0 where either is
    total = weights.sum(0)
    return {
        "auc": ((seen[1:] + seen[:-1]) * np.diff(unseen, axis=0)).sum(0) / 2,
        "best_seen": seen.max(0),
        "best_unseen": unseen.max(0),
        "best_hm": mean.max(0),
        "attr_acc": weights[outcomes.attr].sum(0) / total,
        "obj_acc": weights[outcomes.obj].sum(0) / total,
    }


def interval(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Between which values the middle ``level`` of them lies.

    >>> [round(end) for end in interval(np.arange(1001.0))]
    [25, 975]
    """
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _exact(outcomes: Outcomes, weights: Ints) -> tuple[Floats, Floats]:
    """Accuracy over images of seen and of unseen pairs between all biases at which an image turns, ``[M + 1, r]``."""
    gap = np.where(outcomes.open, outcomes.true, 0).astype(np.float64) - np.where(outcomes.open, outcomes.rival, 0)
    turn = np.where(outcomes.is_seen, gap, -gap)  # a seen pair is right below this bias, an unseen one above
    breaks = np.unique(turn[outcomes.open & np.isfinite(turn)])
    turned = np.searchsorted(breaks, turn) + (turn > -np.inf)  # an image without a rival is right at every bias
    seen, unseen = _counts(outcomes, weights, turned, np.arange(len(breaks) + 1))
    return seen / _total(outcomes.is_seen, weights), unseen / _total(~outcomes.is_seen, weights)


def _original(outcomes: Outcomes, weights: Ints) -> tuple[Floats, Floats]:
    """The same at each collection's own about 20 biases and at the last one, ``[points, r]``, in float32 arithmetic."""
    biases, at = np.unique(outcomes.bias[~np.isnan(outcomes.bias)], return_inverse=True)  # [M] float32
    points, some = _chosen(at, weights[~np.isnan(outcomes.bias)])
    seen, unseen = _counts(outcomes, weights, _turned(outcomes, biases), points)
    curves = []
    for kind, counts in ((outcomes.is_seen, seen), (~outcomes.is_seen, unseen)):
        last = weights[kind & outcomes.at_last].sum(0)
        counts = np.vstack([np.where(some, counts, last), last])  # where there is no bias, all points are the last
        shares = counts.astype(np.float32) / _total(kind, weights).astype(np.float32)
        curves.append(shares.astype(np.float64))
    return curves[0], curves[1]


_CURVES: dict[str, Callable[[Outcomes, Ints], tuple[Floats, Floats]]] = {"exact": _exact, "original": _original}


def _chosen(at: Ints, weights: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Which biases the original takes of each collection: every ``n // 20``-th of its ``n``, from the lowest on.

    Args:
        at: ``[T]``, number of the bias of each image that has one; biases are numbered from the lowest.
        weights: ``[T, r]``.

    Returns:
        Numbers of biases ``[points, r]``, the highest repeated where a collection has fewer points than others; and
        whether it has any, ``[r]``.
    """
    order = np.argsort(at, kind="stable")
    until = np.ascontiguousarray(weights[order].cumsum(0, dtype=np.int64).T)  # [r, T]
    n = weights.sum(0)
    step = np.maximum(n // STEPS, 1)
    most = int(np.max(-(-n // step), initial=0))
    places = np.minimum(np.arange(most)[:, None], np.maximum(-(-n // step) - 1, 0)) * step  # [points, r]
    found = np.zeros(places.shape, dtype=np.int64)
    for column in np.flatnonzero(n):
        found[:, column] = at[order[np.searchsorted(until[column], places[:, column], side="right")]]
    return found, n > 0


def _turned(outcomes: Outcomes, biases: npt.NDArray[np.float32]) -> Ints:
    """Number of the first of the ascending ``biases`` ``[M]`` at which an image has turned, ``M`` if at none; ``[N]``.

    By halving: in float32, too, a higher bias never makes an unseen pair worse.
    """
    true, rival = (np.where(outcomes.open, of, 0).astype(np.float32) for of in (outcomes.true, outcomes.rival))
    low, high = np.zeros(len(outcomes), dtype=np.int64), np.full(len(outcomes), len(biases))
    while (active := low < high).any():
        middle = (low + high) // 2
        bias = biases[np.minimum(middle, len(biases) - 1)]
        own = np.where(outcomes.is_seen, true, true + bias)
        other = np.where(outcomes.is_seen, rival + bias, rival)
        right = (own > other) | ((own == other) & outcomes.wins_tie)
        turned = right != outcomes.is_seen
        high = np.where(active & turned, middle, high)
        low = np.where(active & ~turned, middle + 1, low)
    return low


def _counts(outcomes: Outcomes, weights: Ints, turned: Ints, points: Ints) -> tuple[Ints, Ints]:
    """How many images of seen and of unseen pairs are right at some points.

    Args:
        turned: ``[N]``, number of the first point at which an image has turned: that of a seen pair is right before
            it, that of an unseen one from it on.
        points: ``[points]`` or ``[points, r]``, their numbers.

    Returns:
        ``[points, r]`` each.
    """
    befores = [_before(kind & outcomes.open, weights, turned, points) for kind in (outcomes.is_seen, ~outcomes.is_seen)]
    seen = weights[outcomes.is_seen & outcomes.open].sum(0) - befores[0]
    return seen, befores[1]


def _before(images: npt.NDArray[np.bool_], weights: Ints, turned: Ints, points: Ints) -> Ints:
    """How many of the ``images`` ``[N]`` bool have turned at some points, ``[points, r]``."""
    order = np.flatnonzero(images)
    order = order[np.argsort(turned[order], kind="stable")]
    sums = np.zeros((len(order) + 1, weights.shape[1]), dtype=np.int32)
    np.cumsum(weights[order], axis=0, out=sums[1:])
    rows = np.searchsorted(turned[order], points, side="right")
    return sums[rows] if rows.ndim == 1 else np.take_along_axis(sums, rows, axis=0)


def _total(kind: npt.NDArray[np.bool_], weights: Ints) -> Ints:
    """How many images are of a kind, at least 1; ``[r]``."""
    return np.maximum(weights[kind].sum(0), 1)
