"""From the best columns of each image to accuracies, curves and metrics: pure functions.

The true pair of an image is among its best ``k`` as long as one rival of the other kind (seen or unseen) stays behind
it, so a whole row of scores comes down to two numbers and what a tie between them means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .metrics import Accuracies, Curve, Metrics
from .ranking import NO_COLUMN, Ranked

Bins = Literal["exact", "original"]
LIFT = 1e3  # the bias at which the original takes its last point
MARGIN = 1e-4  # how far beyond a breakpoint the original puts its bias
STEPS = 20  # about how many biases the original aims for


@dataclass(frozen=True)
class Standings:
    """How the columns stand for each of ``N`` images."""

    target: Tensor  # [N] long, the true column
    is_seen: Tensor  # [N] bool, whether the true pair is
    true: Tensor  # [N] float64, score of the true pair; nan where it is no candidate
    bar: Tensor  # [N] float64, the k-th best score among seen pairs, candidates or not
    seen: Ranked  # [N, k], best seen candidates
    unseen: Ranked  # [N, k], best unseen candidates
    lifted: Ranked  # [N, k], best unseen candidates once LIFT is added in float32
    top: Ranked  # [N, k'], best candidates at bias 0, as many as were kept


@dataclass(frozen=True)
class Duels:
    """The true pair of each image against the rival that would push it out of the best ``k``."""

    open: Tensor  # [N] bool, whether the true pair is among the best k of its own kind; if not, it never wins
    true: Tensor  # [N] float64
    rival: Tensor  # [N] float64, -inf where there is no rival
    wins_tie: Tensor  # [N] bool


def duels(target: Tensor, is_seen: Tensor, seen: Ranked, unseen: Ranked) -> Duels:
    """Who each true pair has to beat; ``target`` and ``is_seen`` are ``[N]``, the rankings ``[N, k]``."""
    own, other = seen.where(is_seen, unseen), unseen.where(is_seen, seen)
    match = own.column == target[:, None]  # [N, k]
    rank = match.int().argmax(1, keepdim=True)  # [N, 1]
    last = match.shape[1] - 1 - rank  # with `rank` ahead of it at home, this rival is the one too many
    column = other.column.gather(1, last)[:, 0]
    return Duels(match.any(1), own.score.gather(1, rank)[:, 0], other.score.gather(1, last)[:, 0], target < column)


def exact_curve(standings: Standings) -> Curve:
    """Every point from bias -inf to inf: one before, between and after the biases at which some image turns.

    A point holds for a whole interval of biases and goes by its middle; straight lines join the points.
    """
    duel = duels(standings.target, standings.is_seen, standings.seen, standings.unseen)
    is_seen, gap = standings.is_seen[duel.open], (duel.true - duel.rival)[duel.open]
    turn = gap.where(is_seen, -gap)  # a seen pair is right below this bias, an unseen one above
    turns = turn.isfinite()  # an image without a rival is right at every bias
    breaks, at = turn[turns].unique(return_inverse=True)  # [M], ascending
    lost, won = (at[is_seen[turns] == kind].bincount(minlength=len(breaks)).cumsum(0) for kind in (True, False))
    seen = int(is_seen.sum()) - torch.cat([lost.new_zeros(1), lost])  # [M + 1]
    unseen = int((~is_seen & ~turns).sum()) + torch.cat([won.new_zeros(1), won])
    infinity = breaks.new_tensor([torch.inf])
    middles = torch.cat([-infinity, (breaks[:-1] + breaks[1:]) / 2, infinity[: len(breaks)]])
    n_seen, n_unseen = int(standings.is_seen.sum()), int((~standings.is_seen).sum())
    return Curve(middles, seen.double() / max(n_seen, 1), unseen.double() / max(n_unseen, 1))


def original_curve(standings: Standings) -> Curve:
    """The points of the original evaluator, in its float32 arithmetic: about 20 biases, then 1000.

    A bias is put ``MARGIN`` below where an unseen image turns right, at every ``len // 20``-th such image; no point
    stands for bias -inf. What this leaves out: other biases than 1000 can make two unseen pairs tie by rounding.
    """
    target, is_seen = standings.target, standings.is_seen
    right_at_last, gaps = last_point(standings)
    gaps = gaps[~gaps.isnan()]
    biases = gaps.sort().values[:: max(len(gaps) // STEPS, 1)]

    duel = duels(target, is_seen, standings.seen, standings.unseen)
    true, rival = duel.true.float(), duel.rival.float()
    points = [_right(duel, true.where(is_seen, true + b), rival.where(~is_seen, rival + b)) for b in biases]
    seen, unseen = (_shares32([*points, right_at_last], images) for images in (is_seen, ~is_seen))
    return Curve(torch.cat([biases, biases.new_tensor([LIFT])]).double(), seen, unseen)


def last_point(standings: Standings) -> tuple[Tensor, Tensor]:
    """Which images the original finds right at ``LIFT``, ``[N]`` bool, and where it could put a bias for each.

    That is ``[N]`` float32: ``MARGIN`` below where an image of an unseen pair turns right, nan for all others.
    """
    last = duels(standings.target, standings.is_seen, standings.seen, standings.lifted)
    right = _right(last, last.true, last.rival)
    gaps = standings.bar.float() - standings.true.float() - MARGIN
    return right, gaps.where(right & ~standings.is_seen, torch.nan)


def _right(duel: Duels, true: Tensor, rival: Tensor) -> Tensor:
    return duel.open & ((true > rival) | ((true == rival) & duel.wins_tie))


def _shares32(points: list[Tensor], images: Tensor) -> Tensor:
    """Share of the ``images`` ``[N]`` bool right at each point ``[N]`` bool, as a float32 mean gives it; ``[M]``."""
    counts = torch.stack([(right & images).sum() for right in points])
    return (counts.float() / max(int(images.sum()), 1)).double()


CURVES: dict[str, Callable[[Standings], Curve]] = {"exact": exact_curve, "original": original_curve}


def measure(standings: Standings, pairs: Tensor, bins: Bins) -> Metrics:
    """All metrics of one set of candidates; ``pairs`` is ``[K, 2]``."""
    curve = CURVES[bins](standings)
    seen, unseen, is_seen = curve.seen, curve.unseen, standings.is_seen
    mean = 2 / (1 / seen + 1 / unseen)  # 0 where either is
    best = int(mean.argmax())
    limit = LIFT if bins == "original" else torch.inf
    return Metrics(
        auc=float(torch.trapezoid(seen, unseen)),
        best_seen=float(seen.max()),
        best_unseen=float(unseen.max()),
        best_hm=float(mean[best]),
        hm_seen=float(seen[best]),
        hm_unseen=float(unseen[best]),
        hm_bias=float(curve.biases[best]),
        at_zero=accuracies(predicted(standings, 0.0), standings, pairs),
        at_limit=accuracies(predicted(standings, limit, bins), standings, pairs),
        n_seen=int(is_seen.sum()),
        n_unseen=int((~is_seen).sum()),
        curve=curve,
    )


def predicted(standings: Standings, bias: float, bins: Bins = "exact") -> Tensor:
    """The best ``k`` columns of each image at a bias, ``[N, k]``; ``"original"`` adds it in float32.

    At an infinite bias all pairs of one kind come before those of the other, whatever the scores.
    """
    seen, unseen = standings.seen, standings.unseen
    if math.isinf(bias):
        first, second = (unseen, seen) if bias > 0 else (seen, unseen)
        both = torch.cat([first.column, second.column], 1)
        return both.gather(1, (both == NO_COLUMN).int().argsort(stable=True, dim=1))[:, : seen.column.shape[1]]
    if bins == "original" and bias == LIFT:
        return seen.merge(standings.lifted).column
    if bins == "original":
        return seen.merge(Ranked((unseen.score.float() + bias).double(), unseen.column)).column
    return seen.merge(Ranked(unseen.score + bias, unseen.column)).column


def accuracies(columns: Tensor, standings: Standings, pairs: Tensor) -> Accuracies:
    """Accuracies of the predicted ``columns`` ``[N, k]``."""
    attr, obj, pair = hits(columns, standings.target, pairs).unbind(1)  # [N]
    seen, unseen = pair[standings.is_seen], pair[~standings.is_seen]
    return Accuracies(*(float(right.sum()) / max(len(right), 1) for right in (attr, obj, pair, seen, unseen)))


def hits(columns: Tensor, target: Tensor, pairs: Tensor) -> Tensor:
    """Whether attribute, object and pair of each image are right, ``[N, 3]`` bool.

    Args:
        columns: the predicted ones, ``[N, k]``; an attribute is right if it is in any of the ``k``.
        target: the true column, ``[N]``.
        pairs: ``[K, 2]``.
    """
    labels = torch.cat([pairs, pairs.new_full((1, 2), -1)])  # the last for NO_COLUMN
    found = labels.index_select(0, columns.clamp(max=len(pairs)).flatten()).reshape(*columns.shape, 2)  # [N, k, 2]
    parts = (found == labels.index_select(0, target)[:, None]).any(1)
    return torch.cat([parts, (columns == target[:, None]).any(1, keepdim=True)], 1)
