"""Curves of seen and unseen accuracy over the bias of unseen pairs, and the metrics of a curve.

The true pair of an image stays among the best ``k`` until one pair of the other kind (seen or unseen) overtakes it: the
*runner-up*. So two scores, and which of the two pairs wins a tie, decide at which biases the image is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .metrics import Accuracies, Curve, Metrics
from .outcomes import Outcomes
from .ranking import NO_COLUMN, Ranked
from .sweep_state import LAST_BIAS
from .top_scores import TopScores

Bins = Literal["exact", "original"]
BIAS_OFFSET = 1e-4  # distance of a bias of the original evaluator below the breakpoint
N_BIASES = 20  # approximate number of biases that the original evaluator aims for


@dataclass(frozen=True)
class Margins:
    """The score of each image's true pair against the score of its runner-up, at bias 0."""

    reachable: Tensor  # [N] bool, whether the true pair is among the best k of its own kind; if not, it never wins
    true_score: Tensor  # [N] float64
    runner_up_score: Tensor  # [N] float64, -inf if there is no runner-up
    wins_tie: Tensor  # [N] bool, whether the true pair wins if both scores are equal


def margins(target: Tensor, is_seen: Tensor, seen: Ranked, unseen: Ranked) -> Margins:
    """Return the margin between each image's true pair and its runner-up.

    Args:
        target: ``[N]`` long, column of the true pair.
        is_seen: ``[N]`` bool, whether the true pair is seen.
        seen: ``[N, k]``, best seen candidates.
        unseen: ``[N, k]``, best unseen candidates.
    """
    same_kind, other_kind = seen.where(is_seen, unseen), unseen.where(is_seen, seen)
    match = same_kind.column == target[:, None]  # [N, k]
    rank = match.int().argmax(1, keepdim=True)  # [N, 1]
    # With `rank` pairs of its own kind ahead of it, the true pair leaves the best k after k - rank of the other kind.
    runner_up = match.shape[1] - 1 - rank
    return Margins(
        reachable=match.any(1),
        true_score=same_kind.score.gather(1, rank)[:, 0],
        runner_up_score=other_kind.score.gather(1, runner_up)[:, 0],
        wins_tie=target < other_kind.column.gather(1, runner_up)[:, 0],
    )


def exact_curve(scores: TopScores) -> Curve:
    """Return the curve with a point for every interval of biases in which no image changes.

    The intervals lie before, between and after the *breakpoints*, the biases at which an image becomes right or wrong.
    The bias of a point is the middle of its interval, -inf for the first and inf for the last.
    """
    found = margins(scores.target, scores.is_seen, scores.seen, scores.unseen)
    is_seen = scores.is_seen[found.reachable]
    gap = (found.true_score - found.runner_up_score)[found.reachable]
    breakpoint_of = gap.where(is_seen, -gap)  # a seen pair is right below this bias, an unseen pair above it
    changes = breakpoint_of.isfinite()  # an image without a runner-up is right at every bias
    breakpoints, index = breakpoint_of[changes].unique(return_inverse=True)  # [M], ascending
    lost, won = (
        index[is_seen[changes] == kind].bincount(minlength=len(breakpoints)).cumsum(0) for kind in (True, False)
    )
    seen = int(is_seen.sum()) - torch.cat([lost.new_zeros(1), lost])  # [M + 1]
    unseen = int((~is_seen & ~changes).sum()) + torch.cat([won.new_zeros(1), won])
    infinity = breakpoints.new_tensor([torch.inf])
    middles = (breakpoints[:-1] + breakpoints[1:]) / 2
    biases = torch.cat([-infinity, middles, infinity[: len(breakpoints)]])
    n_seen, n_unseen = int(scores.is_seen.sum()), int((~scores.is_seen).sum())
    return Curve(biases, seen.double() / max(n_seen, 1), unseen.double() / max(n_unseen, 1))


def original_curve(scores: TopScores) -> Curve:
    """Return the curve of the original evaluator, in its float32 arithmetic: about 20 biases, then 1000.

    The sorted biases that images propose (:func:`original_last_point`) are thinned to every ``n // 20``-th. There is no
    point for bias -inf. One detail of the original is left out: rounding can make two unseen pairs tie at other biases
    than 1000, too.
    """
    target, is_seen = scores.target, scores.is_seen
    right_at_last, proposed = original_last_point(scores)
    proposed = proposed[~proposed.isnan()]
    biases = proposed.sort().values[:: max(len(proposed) // N_BIASES, 1)]

    found = margins(target, is_seen, scores.seen, scores.unseen)
    true, runner_up = found.true_score.float(), found.runner_up_score.float()
    right = [
        _true_pair_wins(found, true.where(is_seen, true + bias), runner_up.where(~is_seen, runner_up + bias))
        for bias in biases
    ]
    seen, unseen = (_float32_accuracies([*right, right_at_last], images) for images in (is_seen, ~is_seen))
    return Curve(torch.cat([biases, biases.new_tensor([LAST_BIAS])]).double(), seen, unseen)


def original_last_point(scores: TopScores) -> tuple[Tensor, Tensor]:
    """Return which images the original evaluator finds right at bias 1000, and the bias that each image proposes.

    Returns:
        right: ``[N]`` bool.
        proposed: ``[N]`` float32, ``BIAS_OFFSET`` below the bias at which an image of an unseen pair becomes right; nan
            for images of seen pairs and images that are wrong at bias 1000.
    """
    found = margins(scores.target, scores.is_seen, scores.seen, scores.at_bias_1000)
    right = _true_pair_wins(found, found.true_score, found.runner_up_score)
    proposed = scores.seen_threshold.float() - scores.true_score.float() - BIAS_OFFSET
    return right, proposed.where(right & ~scores.is_seen, torch.nan)


def _true_pair_wins(found: Margins, true_score: Tensor, runner_up_score: Tensor) -> Tensor:
    """Return whether each image is right with these scores, ``[N]`` bool."""
    tie = true_score == runner_up_score
    return found.reachable & ((true_score > runner_up_score) | (tie & found.wins_tie))


def _float32_accuracies(points: list[Tensor], images: Tensor) -> Tensor:
    """Return the share of some images that are right at each point, rounded as a float32 mean; ``[M]`` float64.

    Args:
        points: ``M`` tensors ``[N]`` bool, which images are right.
        images: ``[N]`` bool, which images count.
    """
    counts = torch.stack([(right & images).sum() for right in points])
    return (counts.float() / max(int(images.sum()), 1)).double()


CURVES: dict[str, Callable[[TopScores], Curve]] = {"exact": exact_curve, "original": original_curve}


def measure(scores: TopScores, pairs: Tensor, bins: Bins) -> Metrics:
    """Return all metrics of one set of candidates; ``pairs`` is ``[K, 2]``."""
    curve = CURVES[bins](scores)
    seen, unseen, is_seen = curve.seen, curve.unseen, scores.is_seen
    mean = 2 / (1 / seen + 1 / unseen)  # harmonic; 0 if either accuracy is
    best = int(mean.argmax())
    limit = LAST_BIAS if bins == "original" else torch.inf
    return Metrics(
        auc=float(torch.trapezoid(seen, unseen)),
        best_seen=float(seen.max()),
        best_unseen=float(unseen.max()),
        best_hm=float(mean[best]),
        hm_seen=float(seen[best]),
        hm_unseen=float(unseen[best]),
        hm_bias=float(curve.biases[best]),
        at_zero=accuracies(predict(scores, 0.0), scores, pairs),
        at_limit=accuracies(predict(scores, limit, bins), scores, pairs),
        n_seen=int(is_seen.sum()),
        n_unseen=int((~is_seen).sum()),
        curve=curve,
    )


def predict(scores: TopScores, bias: float, bins: Bins = "exact") -> Tensor:
    """Return the best ``k`` columns of each image at a bias, ``[N, k]``.

    At an infinite bias all pairs of one kind come before those of the other kind, whatever their scores.

    Args:
        bias: added to the scores of unseen pairs.
        bins: ``"exact"`` adds it in float64, ``"original"`` in float32.
    """
    seen, unseen = scores.seen, scores.unseen
    if math.isinf(bias):
        first, second = (unseen, seen) if bias > 0 else (seen, unseen)
        both = torch.cat([first.column, second.column], 1)
        return both.gather(1, (both == NO_COLUMN).int().argsort(stable=True, dim=1))[:, : seen.column.shape[1]]
    if bins == "original" and bias == LAST_BIAS:
        return seen.merge(scores.at_bias_1000).column
    if bins == "original":
        return seen.merge(Ranked((unseen.score.float() + bias).double(), unseen.column)).column
    return seen.merge(Ranked(unseen.score + bias, unseen.column)).column


def accuracies(predicted: Tensor, scores: TopScores, pairs: Tensor) -> Accuracies:
    """Return the accuracies of predicted columns ``[N, k]``; ``pairs`` is ``[K, 2]``."""
    attr, obj, pair = correct_parts(predicted, scores.target, pairs).unbind(1)  # [N]
    seen, unseen = pair[scores.is_seen], pair[~scores.is_seen]
    return Accuracies(*(float(right.sum()) / max(len(right), 1) for right in (attr, obj, pair, seen, unseen)))


def correct_parts(predicted: Tensor, target: Tensor, pairs: Tensor) -> Tensor:
    """Return whether the attribute, the object and the pair of each image are right, ``[N, 3]`` bool.

    Args:
        predicted: ``[N, k]`` columns; an attribute is right if any of the ``k`` pairs has it.
        target: ``[N]``, column of the true pair.
        pairs: ``[K, 2]``.
    """
    labels = torch.cat([pairs, pairs.new_full((1, 2), -1)])  # the last row is for NO_COLUMN
    rows = predicted.clamp(max=len(pairs)).flatten()
    found = labels.index_select(0, rows).reshape(*predicted.shape, 2)  # [N, k, 2]
    parts = (found == labels.index_select(0, target)[:, None]).any(1)
    return torch.cat([parts, (predicted == target[:, None]).any(1, keepdim=True)], 1)


def image_outcomes(scores: TopScores, pairs: Tensor) -> Outcomes:
    """Return the numbers that decide at which biases each image is right; ``pairs`` is ``[K, 2]``."""
    found = margins(scores.target, scores.is_seen, scores.seen, scores.unseen)
    right_at_last, proposed = original_last_point(scores)
    right = correct_parts(predict(scores, 0.0), scores.target, pairs)
    return Outcomes(
        target=scores.target.numpy().astype(np.int32),
        is_seen=scores.is_seen.numpy(),
        reachable=found.reachable.numpy(),
        true_score=found.true_score.where(found.reachable, 0).numpy(),
        runner_up_score=found.runner_up_score.where(found.reachable, 0).numpy(),
        wins_tie=found.wins_tie.numpy(),
        proposed_bias=proposed.numpy(),
        right_at_last_bias=right_at_last.numpy(),
        attr_right=right[:, 0].numpy(),
        obj_right=right[:, 1].numpy(),
    )
