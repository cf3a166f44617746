"""Percentile bootstrap over test images, from the outcome of each image.

A resample is a *count* for each image: how often it was drawn. Its curve is a cumulative sum of counts over the images
in the order of their breakpoints (the bias at which an image becomes right or wrong). Many resamples are computed
together, as the columns of one array. The counts depend only on the number of images and the seed: methods that are
evaluated on the same images share their resamples, and their difference is paired by test image. The bootstrap does not
include the variation between trainings. This module needs numpy only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .outcomes import Outcomes

RESAMPLES = 1000
SEED = 0
LEVEL = 0.95  # coverage of an interval
N_BIASES = 20  # approximate number of biases that the original evaluator aims for, as in curves.py
DRAWS_PER_BLOCK = 1 << 20  # draws handled at a time
MOST_KEPT_DRAWS = 1 << 23  # draws that are kept for the next result with as many images, 4 bytes each
#: Names of the metrics that are resampled, as in ``Metrics``.
METRIC_NAMES = ("auc", "best_seen", "best_unseen", "best_hm", "attr_acc", "obj_acc")

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


def resample_counts(n: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[Ints]:
    """Yield how often each of ``n`` images is in each resample of ``n`` draws with repetition, in blocks ``[n, r]``.

    >>> sum(block.sum(0).tolist() == [7] * block.shape[1] for block in resample_counts(7))
    1
    """
    if n * resamples <= MOST_KEPT_DRAWS:
        yield from _kept_counts(n, resamples, seed)
    else:
        yield from _drawn_counts(n, resamples, seed)


@functools.lru_cache(maxsize=2)  # the results of a dataset have the same number of images
def _kept_counts(n: int, resamples: int, seed: int) -> tuple[Ints, ...]:
    blocks = tuple(_drawn_counts(n, resamples, seed))
    for block in blocks:
        block.flags.writeable = False
    return blocks


def _drawn_counts(n: int, resamples: int, seed: int) -> Iterator[Ints]:
    random = np.random.default_rng(seed)
    width = max(DRAWS_PER_BLOCK // n, 1)
    for start in range(0, resamples, width):
        r = min(width, resamples - start)
        images = random.integers(n, size=(r, n))
        flat = images * r + np.arange(r)[:, None]
        yield np.bincount(flat.ravel(), minlength=n * r).astype(np.int32).reshape(n, r)


def resampled_metrics(
    outcomes: Outcomes, bins: str = "exact", resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Floats]:
    """Return the metrics of each resample, ``[resamples]`` for each of ``METRIC_NAMES``.

    Raises:
        ValueError: there are no images, or ``bins`` is unknown.
    """
    if not len(outcomes):
        raise ValueError("there are no images to draw from")
    blocks = [weighted_metrics(outcomes, counts, bins) for counts in resample_counts(len(outcomes), resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in METRIC_NAMES}


def weighted_metrics(outcomes: Outcomes, counts: Ints, bins: str = "exact") -> dict[str, Floats]:
    """Return the metrics of collections of images; a collection may contain an image several times.

    Args:
        outcomes: the outcomes of ``N`` images.
        counts: ``[N, r]``, how often each image is in each of ``r`` collections; no collection is empty.
        bins: ``"exact"`` or ``"original"``. ``"original"`` chooses biases for each collection as the original
            evaluator would.

    Returns:
        ``[r]`` for each of ``METRIC_NAMES``, the numbers that :func:`czslkit.evaluate` returns for the images of a
        collection.

    Raises:
        ValueError: ``bins`` is unknown.
    """
    if bins not in _CURVES:
        raise ValueError(f"bins must be one of {', '.join(map(repr, _CURVES))}, got {bins!r}")
    seen, unseen = _CURVES[bins](outcomes, counts)
    with np.errstate(divide="ignore"):
        mean = 2 / (1 / seen + 1 / unseen)  # harmonic; 0 if either accuracy is
    total = counts.sum(0)
    return {
        "auc": ((seen[1:] + seen[:-1]) * np.diff(unseen, axis=0)).sum(0) / 2,
        "best_seen": seen.max(0),
        "best_unseen": unseen.max(0),
        "best_hm": mean.max(0),
        "attr_acc": counts[outcomes.attr_right].sum(0) / total,
        "obj_acc": counts[outcomes.obj_right].sum(0) / total,
    }


def intervals(rows: Sequence[Floats], level: float = LEVEL) -> list[tuple[float, float]]:
    """Return for each row of values the bounds between which the middle ``level`` of the values lies.

    >>> [(round(low), round(high)) for low, high in intervals([np.arange(1001.0), np.zeros(1001)])]
    [(25, 975), (0, 0)]
    """
    if not len(rows):
        return []
    low, high = np.quantile(np.asarray(rows), [(1 - level) / 2, (1 + level) / 2], axis=1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _exact_curve(outcomes: Outcomes, counts: Ints) -> tuple[Floats, Floats]:
    """Return seen and unseen accuracy in every interval between two breakpoints, ``[M + 1, r]`` each."""
    reachable = outcomes.reachable
    true_score, runner_up_score = (
        np.where(reachable, score, 0).astype(np.float64) for score in (outcomes.true_score, outcomes.runner_up_score)
    )
    gap = true_score - runner_up_score
    breakpoint_of = np.where(outcomes.is_seen, gap, -gap)  # a seen pair is right below it, an unseen pair above it
    breakpoints = np.unique(breakpoint_of[reachable & np.isfinite(breakpoint_of)])
    # An image without a runner-up is right at every bias.
    first_changed = np.searchsorted(breakpoints, breakpoint_of) + (breakpoint_of > -np.inf)
    seen, unseen = _count_right(outcomes, counts, first_changed, np.arange(len(breakpoints) + 1))
    return seen / _count_images(outcomes.is_seen, counts), unseen / _count_images(~outcomes.is_seen, counts)


def _original_curve(outcomes: Outcomes, counts: Ints) -> tuple[Floats, Floats]:
    """Return seen and unseen accuracy at the original biases of each collection, ``[points, r]`` each.

    The points are about 20 biases and the last bias; the arithmetic is float32.
    """
    proposes = ~np.isnan(outcomes.proposed_bias)
    biases, bias_index = np.unique(outcomes.proposed_bias[proposes], return_inverse=True)  # [M] float32
    points, any_bias = _choose_biases(bias_index, counts[proposes])
    seen, unseen = _count_right(outcomes, counts, _first_changed(outcomes, biases), points)
    curves = []
    for kind, right in ((outcomes.is_seen, seen), (~outcomes.is_seen, unseen)):
        last = counts[kind & outcomes.right_at_last_bias].sum(0)
        right = np.vstack([np.where(any_bias, right, last), last])  # without a bias, all points are the last
        shares = right.astype(np.float32) / _count_images(kind, counts).astype(np.float32)
        curves.append(shares.astype(np.float64))
    return curves[0], curves[1]


_CURVES: dict[str, Callable[[Outcomes, Ints], tuple[Floats, Floats]]] = {
    "exact": _exact_curve,
    "original": _original_curve,
}


def _choose_biases(bias_index: Ints, counts: Ints) -> tuple[Ints, Bools]:
    """Choose the biases of each collection: every ``n // 20``-th of its ``n`` proposed biases, from the lowest.

    Args:
        bias_index: ``[T]``, number of the bias that each image proposes; biases are numbered from the lowest.
        counts: ``[T, r]``, how often each of these images is in each collection.

    Returns:
        Numbers of the chosen biases, ``[points, r]``, the highest one repeated if a collection has fewer points than
        another; and whether a collection has any bias, ``[r]``.
    """
    order = np.argsort(bias_index, kind="stable")
    cumulative = np.ascontiguousarray(counts[order].cumsum(0, dtype=np.int64).T)  # [r, T]
    n = counts.sum(0)
    step = np.maximum(n // N_BIASES, 1)
    n_points = -(-n // step)
    most = int(np.max(n_points, initial=0))
    positions = np.minimum(np.arange(most)[:, None], np.maximum(n_points - 1, 0)) * step  # [points, r]
    chosen = np.zeros(positions.shape, dtype=np.int64)
    for column in np.flatnonzero(n):
        rows = np.searchsorted(cumulative[column], positions[:, column], side="right")
        chosen[:, column] = bias_index[order[rows]]
    return chosen, n > 0


def _first_changed(outcomes: Outcomes, biases: npt.NDArray[np.float32]) -> Ints:
    """Return the number of the first bias at which each image has changed, ``[N]``.

    An image of a seen pair changes from right to wrong, an image of an unseen pair from wrong to right. The number is
    found by bisection: in float32, too, a higher bias never makes an unseen pair worse.

    Args:
        outcomes: the outcomes of ``N`` images.
        biases: ``[M]`` ascending; the number is ``M`` if the image changes at none of them.
    """
    true_score, runner_up_score = (
        np.where(outcomes.reachable, score, 0).astype(np.float32)
        for score in (outcomes.true_score, outcomes.runner_up_score)
    )
    low, high = np.zeros(len(outcomes), dtype=np.int64), np.full(len(outcomes), len(biases))
    while (active := low < high).any():
        middle = (low + high) // 2
        bias = biases[np.minimum(middle, len(biases) - 1)]
        true = np.where(outcomes.is_seen, true_score, true_score + bias)
        runner_up = np.where(outcomes.is_seen, runner_up_score + bias, runner_up_score)
        right = (true > runner_up) | ((true == runner_up) & outcomes.wins_tie)
        changed = right != outcomes.is_seen
        high = np.where(active & changed, middle, high)
        low = np.where(active & ~changed, middle + 1, low)
    return low


def _count_right(outcomes: Outcomes, counts: Ints, first_changed: Ints, points: Ints) -> tuple[Ints, Ints]:
    """Count the images of seen and of unseen pairs that are right at some points, ``[points, r]`` each.

    Args:
        outcomes: the outcomes of ``N`` images.
        counts: ``[N, r]``, how often each image is in each collection.
        first_changed: ``[N]``, number of the first point at which each image has changed; an image of a seen pair is
            right before this point, an image of an unseen pair is right from this point on.
        points: ``[points]`` or ``[points, r]``, numbers of the points.
    """
    seen, unseen = outcomes.is_seen & outcomes.reachable, ~outcomes.is_seen & outcomes.reachable
    seen_right = counts[seen].sum(0) - _count_changed(seen, counts, first_changed, points)
    return seen_right, _count_changed(unseen, counts, first_changed, points)


def _count_changed(images: Bools, counts: Ints, first_changed: Ints, points: Ints) -> Ints:
    """Count the ``images`` ``[N]`` bool that have changed at some points, ``[points, r]``."""
    order = np.flatnonzero(images)
    order = order[np.argsort(first_changed[order], kind="stable")]
    sums = np.zeros((len(order) + 1, counts.shape[1]), dtype=np.int32)
    np.cumsum(counts[order], axis=0, out=sums[1:])
    rows = np.searchsorted(first_changed[order], points, side="right")
    return sums[rows] if rows.ndim == 1 else np.take_along_axis(sums, rows, axis=0)


def _count_images(kind: Bools, counts: Ints) -> Ints:
    """Return the number of images of a kind in each collection, at least 1; ``[r]``."""
    return np.maximum(counts[kind].sum(0), 1)
