"""The numbers per image that a sweep keeps, and how a chunk of scores is reduced to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..deferred import is_host, sent
from .ranking import Ranked, best_in_groups
from .score_columns import UNSEEN, UNUSED, ScoreColumns

LAST_BIAS = 1000.0  # last bias of the original evaluator, added in float32
SCORES_PER_BLOCK = 1_000_000  # scores handled at a time: few enough to stay in a CPU cache


@dataclass
class SweepState:
    """The best columns and the true pair of each image: every metric is computed from them.

    Columns are ranked within the ``G`` groups of :class:`ScoreColumns`, so that every threshold can be evaluated later.
    """

    target: Tensor  # [N] long, column of the true pair; UNUSED if no image has that number
    true_score: Tensor  # [N] float64, score of the true pair; nan until it is received
    best: Ranked  # [N, G, keep], best columns of each group
    at_bias_1000: Ranked  # [N, G, k], best columns of each unseen group once LAST_BIAS is added in float32

    @staticmethod
    def empty(images: int, groups: int, keep: int, k: int, like: Tensor | None = None) -> SweepState:
        """Return a state for ``images`` images that have no scores yet.

        Args:
            like: a tensor with the device and the dtype of scores; None for float64 on the CPU.
        """
        best = Ranked.empty(images, groups, keep, like=like)
        return SweepState(
            target=torch.full((images,), UNUSED),
            true_score=best.score.new_full((images,), torch.nan),
            best=best,
            at_bias_1000=Ranked.empty(images, groups, k, like=like),
        )

    def received(self) -> SweepState:
        """Return the same state on the CPU, with scores as float64."""
        return SweepState(
            self.target, self.true_score.cpu().double(), self.best.received(), self.at_bias_1000.received()
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the scores and columns."""
        return sum(t.nbytes for ranked in (self.best, self.at_bias_1000) for t in (ranked.score, ranked.column))

    def __getitem__(self, images: Tensor) -> SweepState:
        return SweepState(self.target[images], self.true_score[images], self.best[images], self.at_bias_1000[images])

    def image_numbers(self) -> Tensor:
        """Return the numbers of the images that have been received, ``[n]`` ascending."""
        return (self.target != UNUSED).nonzero()[:, 0]

    def check_targets(self, images: Tensor, target: Tensor, pairs: Tensor) -> None:
        """Check that every image has the same true pair as in earlier chunks.

        Args:
            images: ``[n]`` image numbers.
            target: ``[n]``, column of each image's true pair.
            pairs: ``[K, 2]``, for the message.

        Raises:
            ValueError: an image had another true pair in an earlier chunk.
        """
        known = images < len(self.target)
        images, target = images[known], target[known]
        changed = (self.target[images] != UNUSED) & (self.target[images] != target)
        if changed.any():
            i = int(changed.nonzero()[0])
            now, before = (tuple(pairs[column].tolist()) for column in (target[i], self.target[images[i]]))
            raise ValueError(f"image {int(images[i])} shows pair {now}, but showed {before} in an earlier chunk")

    def add(self, images: Tensor, chunk: SweepState) -> None:
        """Merge the state of a chunk of scores into this one.

        Args:
            images: ``[n]``, numbers of the images of ``chunk``.
            chunk: state of these images for columns that are new for them.
        """
        self.expect(images, chunk.target)
        self.best[images] = self.best[images].merge(chunk.best)
        self.at_bias_1000[images] = self.at_bias_1000[images].merge(chunk.at_bias_1000)
        self.true_score[images] = chunk.true_score.where(~chunk.true_score.isnan(), self.true_score[images])

    def expect(self, images: Tensor, target: Tensor) -> None:
        """Make room for images ``[n]`` whose true pairs are in the columns ``target`` ``[n]``."""
        self._reserve(int(images.max()) + 1)
        self.target[images] = target

    def footprint(self, images: int) -> int:
        """Return the largest number of bytes for ``images`` images, including the memory of :func:`reduce_chunk`."""
        groups, keep = self.best.score.shape[1:]
        ranking = 16 * (keep + self.at_bias_1000.score.shape[-1])  # score and column
        held = images * (groups * ranking + 16)
        enlarged = 3 * held  # room for twice as many images, while half as many are moved there
        return enlarged + 4 * 8 * SCORES_PER_BLOCK

    def _reserve(self, images: int) -> None:
        """Enlarge the state to ``images`` images; a state that is too small gets twice the size needed."""
        if (have := len(self.target)) >= images:
            return
        _, groups, keep = self.best.score.shape
        room = SweepState.empty(2 * images - have, groups, keep, self.at_bias_1000.score.shape[-1])
        self.target = torch.cat([self.target, room.target])
        self.true_score = torch.cat([self.true_score, room.true_score])
        self.best = self.best.append(room.best)
        self.at_bias_1000 = self.at_bias_1000.append(room.at_bias_1000)


class ChunkColumns:
    """The columns of a chunk of scores, in the order in which they are ranked; it serves any number of chunks.

    Args:
        candidates: the group of every column; unused columns are not read.
        columns: ``[w]``, column number of each score.
    """

    def __init__(self, candidates: ScoreColumns, columns: Tensor) -> None:
        group = candidates.group[columns]
        order = (group * len(candidates) + columns).argsort()  # by group, then by column number
        order = order[int((group == UNUSED).sum()) :]
        groups = UNSEEN + candidates.n_levels
        self.given, self.width = columns, len(columns)  # [w]
        self.group_ends: list[int] = group[order].bincount(minlength=groups).cumsum(0).tolist()
        self.columns = columns[order]  # [u], the used columns, by group
        self._ascending = self.columns.argsort()  # [u]
        self._devices = {torch.device("cpu"): (order, self.columns)}

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the positions of the used columns in ``w``, and their numbers, ``[u]`` each, on a device."""
        if device not in self._devices:
            order, columns = self._devices[torch.device("cpu")]
            self._devices[device] = sent(order, device), sent(columns, device)
        return self._devices[device]

    def positions(self, target: Tensor) -> Tensor:
        """Return the position in ``u`` of each column ``target`` ``[n]``, UNUSED for one that is not here, ``[n]``."""
        near = torch.searchsorted(self.columns[self._ascending], target).clamp(max=len(self.columns) - 1)
        position = self._ascending[near]
        return position.where(self.columns[position] == target, UNUSED)


def reduce_chunk(scores: Any, chunk: ChunkColumns, target: Tensor, keep: int, k: int) -> tuple[SweepState, Tensor]:
    """Return the state of a chunk of scores on their device, and which images have finite scores, ``[n]`` bool.

    The device is not waited for.

    Args:
        scores: ``[n, w]`` tensor or array of any float dtype, on any device.
        chunk: the column of each score; at least one is used.
        target: ``[n]``, column of each image's true pair, in this chunk or not.
        keep: number of best columns to keep in each group.
        k: number of best columns to keep in each group at ``LAST_BIAS``.

    Raises:
        ValueError: the scores are not floats.
    """
    n, ends = len(target), chunk.group_ends
    device = scores.device if isinstance(scores, Tensor) else torch.device("cpu")
    order, columns = chunk.on(device)
    first_unseen = ends[UNSEEN - 1]
    unseen_ends = [end - first_unseen for end in ends[UNSEEN:]]
    own = sent(chunk.positions(target), device)
    height = max(SCORES_PER_BLOCK // len(columns), 1)
    state, finite = None, []
    for rows in (slice(start, start + height) for start in range(0, n, height)):
        block = _float_block(scores[rows], order)
        if state is None:
            state = SweepState.empty(n, len(ends), keep, k, like=None if is_host(device) else block)
            state.target = target
        finite.append(block.amin(1).isfinite() & block.amax(1).isfinite())  # both are nan where a score is
        state.best[rows] = best_in_groups(block, columns, ends, keep)
        lifted = block[:, first_unseen:].float() + LAST_BIAS
        state.at_bias_1000[rows, UNSEEN:] = best_in_groups(lifted, columns[first_unseen:], unseen_ends, k)
        own_score = block.gather(1, own[rows].clamp(min=0)[:, None])[:, 0].masked_fill(own[rows] == UNUSED, torch.nan)
        state.true_score[rows] = own_score.to(state.true_score.dtype)
    assert state is not None
    return state, torch.cat(finite)


def _float_block(scores: Any, order: Tensor) -> Tensor:
    """Return some columns of a chunk of scores as float32 or float64, on the device of the scores.

    Args:
        scores: ``[n, w]`` tensor or array.
        order: positions in ``w``, in the order wanted.

    Raises:
        ValueError: the scores are not floats.
    """
    if not isinstance(scores, Tensor):
        scores = torch.from_numpy(np.array(scores, order="C"))  # a copy: the array may be read-only
    if not scores.is_floating_point():
        raise ValueError(f"scores must be of float dtype, got {scores.dtype}")
    scores = scores.detach().index_select(1, order)
    return scores if scores.dtype == torch.float64 else scores.float()
