"""The calibrated evaluation of compositional zero-shot learning, in one pass over the scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
from torch import Tensor

from ..deferred import is_host
from .coverage import Coverage
from .curves import Bins, measure
from .metrics import Accuracies, Curve, Metrics
from .score_columns import UNSEEN, UNUSED, Array, ScoreColumns, as_tensor
from .sweep_state import ChunkColumns, SweepState, reduce_chunk
from .top_scores import Infeasible, TopScores, descending_top_scores

#: Bytes of reduced scores on a device after which they are read.
BYTES_WAITING = 1 << 24

__all__ = ["Accuracies", "Bins", "Curve", "Infeasible", "Metrics", "Sweep", "evaluate"]


def evaluate(
    scores: Array,
    attr: Array,
    obj: Array,
    pairs: Array,
    seen: Array,
    candidates: Array | None = None,
    topk: int = 1,
    bins: Bins = "exact",
) -> Metrics:
    """Return the metrics of a whole matrix of scores; :class:`Sweep` takes the matrix in chunks.

    Args:
        scores: ``[N, K]`` of any float dtype; higher is better. Scores of seen pairs and of candidates must be finite.
        attr: ``[N]`` integer, true attribute of each image.
        obj: ``[N]`` integer, true object of each image.
        pairs: ``[K, 2]`` integer, attribute and object of each column; all different.
        seen: ``[K]`` bool, whether the pair was trained on. The bias is added to the scores of unseen pairs.
        candidates: ``[K]`` bool, which pairs may be predicted; all of them if None. An image whose true pair is no
            candidate is always wrong.
        topk: an image is right if its true pair is among this many best candidates.
        bins: ``"exact"`` follows every bias from -inf to inf; ``"original"`` uses about 20 biases, as published numbers
            do, in the float32 arithmetic of the original evaluator.

    Returns:
        Metrics with accuracies in [0, 1]. Of two columns with equal scores, the lower one wins.

    Raises:
        ValueError: shapes, dtypes or labels do not fit together, or a score is not finite.

    >>> import torch
    >>> pairs, seen = torch.tensor([[0, 0], [1, 1], [0, 1]]), torch.tensor([True, True, False])
    >>> scores = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.0], [3.0, 2.0, 1.0]])
    >>> metrics = evaluate(scores, torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1]), pairs, seen)
    >>> metrics.auc, metrics.best_seen, metrics.best_unseen
    (0.75, 1.0, 1.0)
    """
    sweep = Sweep(pairs, seen, candidates, topk=topk, bins=bins)
    sweep.update(scores, attr, obj)
    return sweep.compute_all()[0]


class Sweep:
    """The evaluation of scores in chunks, for one or many sets of candidates; it keeps a few numbers per image.

    Args:
        pairs: ``[K, 2]`` integer, attribute and object of each column; all different.
        seen: ``[K]`` bool, whether the pair was trained on.
        candidates: ``[K]`` bool, which pairs may be predicted; all of them if None.
        feasibility: ``[K]`` float, how plausible each unseen pair is; compared in float32. Seen pairs count as 0.
        thresholds: feasibility thresholds. The candidates of a threshold are the seen pairs and the unseen pairs whose
            feasibility is at least as high.
        topk: an image is right if its true pair is among this many best candidates.
        keep: number of best columns to keep for each image, for :meth:`top_scores`; no metric depends on it.
        bins: ``"exact"`` or ``"original"``, see :func:`evaluate`; :meth:`compute` can also return the other one.
        infeasible: ``"exclude"`` never predicts unseen pairs below the threshold; ``"original"`` multiplies scores as
            the original evaluator does: infeasible pairs get score 0, and scores of seen pairs count twice at
            thresholds <= 0.

    Raises:
        ValueError: the arguments do not describe one set of pairs.

    >>> import torch
    >>> sweep = Sweep(torch.tensor([[0, 0], [1, 1], [0, 1]]), torch.tensor([True, True, False]))
    >>> sweep.update(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]), torch.tensor([0]))
    >>> sweep.update(torch.tensor([[3.0, 2.0, 2.5]]), torch.tensor([0]), torch.tensor([1]))
    >>> sweep.compute().auc, sweep.compute(bins="original").auc
    (1.0, 0.5)
    """

    def __init__(
        self,
        pairs: Array,
        seen: Array,
        candidates: Array | None = None,
        feasibility: Array | None = None,
        thresholds: Sequence[float] | None = None,
        *,
        topk: int = 1,
        keep: int = 1,
        bins: Bins = "exact",
        infeasible: Infeasible = "exclude",
    ) -> None:
        if topk < 1:
            raise ValueError(f"topk must be at least 1, got {topk}")
        self.topk, self.keep = topk, max(keep, topk)
        self.bins: Bins = _checked_choice("bins", bins, Bins)
        self.infeasible: Infeasible = _checked_choice("infeasible", infeasible, Infeasible)
        self.candidates = ScoreColumns(pairs, seen, candidates, feasibility, thresholds)
        self._coverage = Coverage(len(self.candidates))
        self._state = SweepState.empty(0, UNSEEN + self.candidates.n_levels, self.keep, topk)
        self._waiting: list[tuple[Tensor, SweepState, Tensor]] = []  # image numbers, scores on a device, finite or not

    def update(
        self,
        scores: Array,
        attr: Array,
        obj: Array,
        *,
        columns: Array | slice | ChunkColumns | None = None,
        images: Array | None = None,
    ) -> None:
        """Add the scores of some images for some pairs; chunks may be given in any order.

        Scores on a GPU are reduced there, without waiting for it. Its numbers are read after many chunks, or when they
        are needed.

        Args:
            scores: ``[n, k]`` of any float dtype, on any device.
            attr: ``[n]`` integer, true attribute of each image.
            obj: ``[n]`` integer, true object of each image.
            columns: ``[k]`` integer or a slice, the rows of ``pairs`` that the scores belong to; all of them if None;
                or a :class:`ChunkColumns` of them. Pairs that are neither seen nor candidates need no scores.
            images: ``[n]`` integer, numbers of the images: any numbers from 0 to about the number of images. If None,
                images are appended: every column must then get the images in the same order.

        Raises:
            ValueError: shapes, dtypes or labels do not fit, or a score is not finite or has been given before. That a
                score on a GPU is not finite is found when its numbers are read.
        """
        chunk = columns
        if not isinstance(chunk, ChunkColumns):
            chunk = ChunkColumns(self.candidates, self.candidates.column_numbers(columns))
        attr, obj = (as_tensor(name, v, "integer").long() for name, v in (("attr", attr), ("obj", obj)))
        scores = scores if isinstance(scores, Tensor) else np.asarray(scores)
        if attr.ndim != 1 or attr.shape != obj.shape or tuple(scores.shape) != (len(attr), chunk.width):
            raise ValueError(
                f"scores {list(scores.shape)}, attr {list(attr.shape)} and obj {list(obj.shape)} do not fit "
                f"{chunk.width} columns: expected [n, {chunk.width}], [n] and [n]"
            )
        target = self.candidates.find(attr, obj)
        numbers = self._coverage.image_numbers(images, chunk.columns, len(attr))
        if not len(numbers) or not len(chunk.columns):
            return
        self._state.check_targets(numbers, target, self.candidates.pairs)
        reduced, finite = reduce_chunk(scores, chunk, target, self.keep, self.topk)
        if is_host(finite.device):
            _check_finite(numbers, finite)
        self._coverage.add(numbers, chunk.columns, numbered=images is not None)
        if is_host(finite.device):
            self._state.add(numbers, reduced)
            return
        self._state.expect(numbers, target)
        self._waiting.append((numbers, reduced, finite))
        if sum(state.nbytes for _, state, _ in self._waiting) > BYTES_WAITING:
            self._receive()

    def _receive(self) -> None:
        """Add the numbers that are still on the device of their scores, which is waited for.

        Raises:
            ValueError: a score is not finite.
        """
        waiting, self._waiting = self._waiting, []
        for numbers, reduced, finite in waiting:
            _check_finite(numbers, finite.cpu())
            self._state.add(numbers, reduced.received())

    def __getstate__(self) -> dict[str, Any]:
        self._receive()
        return vars(self)

    def footprint(self, images: int, chunks: int = 1) -> int:
        """Return the largest number of bytes for ``images`` images whose pairs are given in ``chunks`` chunks."""
        candidate_bytes = 96 * len(self.candidates)
        return self._state.footprint(images) + self._coverage.footprint(images, chunks) + candidate_bytes

    def merge(self, other: Sweep) -> None:
        """Add all scores that the sweep of another process has received.

        Images keep the numbers that they were given; images without numbers are appended to the images here.

        Raises:
            ValueError: the sweeps differ in pairs or options, a score was given to both, or an image that is to be
                appended lacks scores.
        """
        same_options = (self.topk, self.keep) == (other.topk, other.keep)
        if not same_options or not self.candidates.same_as(other.candidates):
            raise ValueError("the sweeps differ in pairs, candidates, thresholds, topk or keep")
        if not other._coverage.n_images:
            return
        offset = 0
        if not other._coverage.numbered:
            if self._coverage.numbered:
                raise ValueError("the images of this sweep have numbers, the images of the other sweep have none")
            other._complete_images()
            offset = len(self._complete_images()) if self._coverage.n_images else 0
        elif self._coverage.numbered is False:
            raise ValueError("the images of the other sweep have numbers, the images of this sweep have none")
        other._receive()
        images = other._state.image_numbers()
        received = other._state[images]
        self._state.check_targets(images + offset, received.target, self.candidates.pairs)
        self._coverage.merge(other._coverage, offset)
        self._state.add(images + offset, received)

    def compute(self, bins: Bins | None = None) -> Metrics | tuple[Metrics, ...]:
        """Return the metrics; with ``thresholds``, a tuple of the metrics of each threshold in the order given.

        :meth:`compute_all` returns a tuple in both cases.

        Raises:
            ValueError: there are no images, or some lack scores.
        """
        found = self.compute_all(bins)
        return found[0] if self.candidates.thresholds is None else found

    def compute_all(self, bins: Bins | None = None) -> tuple[Metrics, ...]:
        """Return the metrics of each threshold in the order given; without thresholds, of the single set of candidates.

        Args:
            bins: ``"exact"`` or ``"original"``; the ``bins`` of this sweep if None.

        Raises:
            ValueError: there are no images, or some lack scores.
        """
        chosen: Bins = self.bins if bins is None else _checked_choice("bins", bins, Bins)
        found = [measure(scores, self.candidates.pairs, chosen) for scores in self._descending_top_scores()]
        return self.candidates.in_threshold_order(found[::-1])

    def top_scores(self) -> tuple[TopScores, ...]:
        """Return the best candidates of each image, for each threshold as in :meth:`compute_all`.

        Raises:
            ValueError: there are no images, or some lack scores.
        """
        return self.candidates.in_threshold_order(list(self._descending_top_scores())[::-1])

    def _descending_top_scores(self) -> Iterator[TopScores]:
        """Return the top scores of each threshold, one at a time, the highest threshold first."""
        state = self._state[self._complete_images()]
        return descending_top_scores(state, self.candidates, self.topk, self.infeasible)

    def _complete_images(self) -> Tensor:
        """Return the numbers of the images, ``[N]``, or raise ValueError if there are none or some lack scores."""
        self._receive()
        images = self._state.image_numbers()
        if not len(images):
            raise ValueError("no images have been given")
        self._coverage.check_complete(images, self.candidates.group != UNUSED)
        return images


def _check_finite(images: Tensor, finite: Tensor) -> None:
    """Raise ValueError if not all scores of ``images`` ``[n]`` are ``finite`` ``[n]``."""
    if not finite.all():
        raise ValueError(f"image {int(images[~finite][0])} has a score that is not finite")


def _checked_choice(name: str, value: Any, choices: Any) -> Any:
    """Return ``value`` if it is one of the ``choices`` of a Literal, or raise ValueError."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")
    return value
