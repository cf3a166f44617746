"""The best candidates of each image, at each feasibility threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .ranking import Ranked, best_columns
from .score_columns import SEEN, SEEN_MASKED, UNSEEN, ScoreColumns
from .sweep_state import LAST_BIAS, SweepState

Infeasible = Literal["exclude", "original"]


@dataclass(frozen=True)
class TopScores:
    """The highest scores of each of ``N`` images at one threshold; every metric is computed from them.

    ``k`` is the number of predictions per image; a pair that is among the best ``k`` counts as predicted.
    """

    target: Tensor  # [N] long, column of the true pair
    is_seen: Tensor  # [N] bool, whether the true pair is seen
    true_score: Tensor  # [N] float64, score of the true pair; nan if that pair is unused
    seen_threshold: Tensor  # [N] float64, k-th best score of all seen pairs, candidates or not
    seen: Ranked  # [N, k], best seen candidates
    unseen: Ranked  # [N, k], best unseen candidates
    at_bias_1000: Ranked  # [N, k], best unseen candidates once LAST_BIAS is added in float32
    top: Ranked  # [N, keep], best candidates at bias 0, seen and unseen


def descending_top_scores(
    state: SweepState, candidates: ScoreColumns, k: int, infeasible: Infeasible
) -> Iterator[TopScores]:
    """Yield the top scores of each level of :class:`ScoreColumns`, from the highest threshold to the lowest.

    Args:
        state: the state of ``N`` images that have all their scores.
        candidates: the pairs, and the candidates of each level.
        k: number of predictions per image.
        infeasible: treatment of the unseen pairs below a threshold, see :class:`Sweep`.
    """
    n, keep = len(state.target), state.best.score.shape[-1]
    seen = state.best[:, SEEN]
    seen_threshold = seen.merge(state.best[:, SEEN_MASKED]).score[:, k - 1]
    is_seen = candidates.seen[state.target]
    unseen, at_bias_1000 = Ranked.empty(n, keep), Ranked.empty(n, k)
    for level in reversed(range(candidates.n_levels)):  # the candidates of a level include those of higher levels
        unseen = unseen.merge(state.best[:, UNSEEN + level])
        at_bias_1000 = at_bias_1000.merge(state.at_bias_1000[:, UNSEEN + level])
        found = TopScores(state.target, is_seen, state.true_score, seen_threshold, seen, unseen, at_bias_1000, top=seen)
        if infeasible == "original":
            found = _multiplied(found, candidates, level)
        top = found.seen.merge(found.unseen)
        yield replace(found, seen=found.seen.first(k), unseen=found.unseen.first(k), top=top)


def _multiplied(scores: TopScores, candidates: ScoreColumns, level: int) -> TopScores:
    """Return the top scores after multiplying each score by (pair is feasible) + (pair is seen), each 0 or 1."""
    infeasible = candidates.infeasible_at_level(level)
    columns = infeasible.nonzero()[:, 0]
    n, keep, k = len(scores.target), scores.unseen.score.shape[-1], scores.at_bias_1000.score.shape[-1]
    zeros = best_columns(torch.zeros(1, len(columns)), columns, keep).expand(n)  # the infeasible pairs have score 0
    factor = candidates.seen_factor(level)
    return replace(
        scores,
        true_score=scores.true_score.masked_fill(infeasible.index_select(0, scores.target), 0),
        seen_threshold=scores.seen_threshold * factor,
        seen=Ranked(scores.seen.score * factor, scores.seen.column),
        unseen=scores.unseen.merge(zeros),
        at_bias_1000=scores.at_bias_1000.merge(Ranked(zeros.score + LAST_BIAS, zeros.column).first(k)),
    )
