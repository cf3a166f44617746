"""The calibrated evaluation of compositional zero-shot learning, in one pass over the scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .candidates import SEEN, SEEN_MASKED, UNSEEN, UNUSED, Array, Candidates, as_tensor
from .coverage import Arrivals
from .curves import LIFT, Bins, Standings, measure
from .metrics import Accuracies, Curve, Metrics
from .ranking import Ranked, best_columns, best_in_groups

__all__ = ["Accuracies", "Bins", "Curve", "Infeasible", "Metrics", "Sweep", "evaluate"]

Infeasible = Literal["exclude", "original"]
BLOCK = 1_000_000  # scores handled at a time: few enough to stay in a cache


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
    """Metrics of a whole matrix of scores; :class:`Sweep` takes them in chunks.

    Args:
        scores: ``[N, K]`` of any float dtype; higher is better. Finite wherever a column is seen or a candidate.
        attr: ``[N]`` integer, true attribute of each image.
        obj: ``[N]`` integer, true object.
        pairs: ``[K, 2]`` integer, attribute and object of each column; all different.
        seen: ``[K]`` bool, whether the pair was trained on. The bias goes to the others.
        candidates: ``[K]`` bool, what may be predicted; everything if None. An image whose pair may not be is wrong.
        topk: an image is right if its pair is among so many best ones.
        bins: ``"exact"`` follows every bias from -inf to inf; ``"original"`` takes the about 20 of published numbers,
            in the original evaluator's float32 arithmetic.

    Returns:
        Accuracies in [0, 1]. Between equal scores the lower column wins.

    Raises:
        ValueError: shapes, dtypes or labels that do not fit together, or a score that is not finite.

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
    """Metrics of scores that come in chunks, for one or many sets of candidates at once.

    It keeps a few numbers per image and threshold, never a row of scores.

    Args:
        pairs: ``[K, 2]`` integer, attribute and object of each column; all different.
        seen: ``[K]`` bool, whether the pair was trained on.
        candidates: ``[K]`` bool, what may be predicted; everything if None.
        feasibility: ``[K]`` float, how plausible each unseen pair is; compared in float32. Seen pairs count as 0.
        thresholds: a set of candidates each: the seen pairs and the unseen ones at least so feasible.
        topk: an image is right if its pair is among so many best ones.
        keep: how many best columns to remember of each image, for :meth:`standings`; no metric depends on it.
        bins: ``"exact"`` or ``"original"``, see :func:`evaluate`; either can also be asked of :meth:`compute`.
        infeasible: ``"exclude"`` never predicts them; ``"original"`` does as the original evaluator, which multiplies
            scores: infeasible pairs get score 0, and seen pairs twice theirs at thresholds <= 0.

    Raises:
        ValueError: the arguments do not describe one set of pairs.

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
        self.topk, self.bins, self.infeasible = topk, _choice("bins", bins, Bins), infeasible
        self.keep = max(keep, topk)
        _choice("infeasible", infeasible, Infeasible)
        self.candidates = Candidates(pairs, seen, candidates, feasibility, thresholds)
        self._arrivals = Arrivals(len(self.candidates))
        groups = UNSEEN + self.candidates.levels
        self._best = Ranked.empty(0, groups, self.keep)  # [N, G, keep]
        self._lifted = Ranked.empty(0, groups, topk)  # [N, G, k], with LIFT added in float32
        self._true = torch.empty(0, dtype=torch.float64)  # [N], score of the true pair; nan until it comes
        self._target = torch.empty(0, dtype=torch.long)  # [N], true column; UNUSED where no image has that number

    def update(
        self,
        scores: Array,
        attr: Array,
        obj: Array,
        *,
        columns: Array | slice | None = None,
        images: Array | None = None,
    ) -> None:
        """Take in the scores of some images for some pairs, in any order.

        Args:
            scores: ``[n, k]`` of any float dtype, on any device.
            attr: ``[n]`` integer, true attribute of each image.
            obj: ``[n]`` integer, true object.
            columns: which pairs these are: ``[k]`` rows of ``pairs`` or a slice of them; all if None. Pairs that are
                neither seen nor ever candidates need no scores.
            images: ``[n]`` integer, which images these are: numbers of the caller's choice, from 0 to about as many as
                there are. If None, images are appended: each column then gets the images in one and the same order.

        Raises:
            ValueError: shapes, dtypes or labels that do not fit, or a score that is not finite or has come before.
        """
        chosen = self.candidates.select(columns)
        attr, obj = (as_tensor(name, v, "integer").long() for name, v in (("attr", attr), ("obj", obj)))
        scores = scores if isinstance(scores, Tensor) else np.asarray(scores)
        if attr.ndim != 1 or attr.shape != obj.shape or tuple(scores.shape) != (len(attr), len(chosen)):
            raise ValueError(
                f"scores {list(scores.shape)}, attr {list(attr.shape)} and obj {list(obj.shape)} do not fit "
                f"{len(chosen)} columns: expected [n, {len(chosen)}], [n] and [n]"
            )
        target = self.candidates.find(attr, obj)
        used = chosen[self.candidates.group[chosen] != UNUSED]
        numbers = self._arrivals.number(images, used, len(attr))
        if not len(numbers) or not len(used):
            return
        self._check_labels(numbers, target)
        found = self._reduce(scores, chosen, target, numbers)
        self._arrivals.record(numbers, used, numbered=images is not None)
        self._fold(numbers, target, *found)

    def footprint(self, images: int, chunks: int = 1) -> int:
        """Bytes that it takes for so many images whose pairs come in so many chunks, at the most."""
        of_group = 16 * (self.keep + self.topk)  # of a ranking: score and column
        state = images * (self._best.score.shape[1] * of_group + 16)
        arrived = 4 * images * chunks  # a byte for every image and chunk, with room for twice as many of each
        moved = 3 * state  # room for twice as many images, while half as many are moved there
        return moved + arrived + 96 * len(self.candidates) + 4 * 8 * BLOCK

    def _reduce(self, scores: Any, columns: Tensor, target: Tensor, numbers: Tensor) -> tuple[Ranked, Ranked, Tensor]:
        """Rankings of these images within each group of columns, and the scores of their true pairs."""
        n, groups = len(target), self._best.score.shape[1]
        group = self.candidates.group[columns]
        order = (group * len(self.candidates) + columns).argsort()
        order = order[int((group == UNUSED).sum()) :]  # the used columns, by group and then by number
        columns, ends = columns[order], group[order].bincount(minlength=groups).cumsum(0).tolist()
        first = ends[UNSEEN - 1]  # unseen columns
        by_number = columns.argsort()
        place = by_number[torch.searchsorted(columns[by_number], target).clamp(max=len(columns) - 1)]
        place = place.where(columns[place] == target, UNUSED)  # [n], where in the block the true pair is
        best, lifted = (Ranked.empty(n, groups, k) for k in (self.keep, self.topk))
        true = torch.full((n,), torch.nan, dtype=torch.float64)
        height = max(BLOCK // len(columns), 1)
        for rows in (slice(start, start + height) for start in range(0, n, height)):
            block = _block(scores[rows], order)
            finite = block.amin(1).isfinite() & block.amax(1).isfinite()  # both are nan where a score is
            if not finite.all():
                raise ValueError(f"image {int(numbers[rows][~finite.cpu()][0])} has a score that is not finite")
            best[rows] = best_in_groups(block, columns, ends, self.keep)
            high, rest = block[:, first:].float() + LIFT, [end - first for end in ends[UNSEEN:]]
            lifted[rows, UNSEEN:] = best_in_groups(high, columns[first:], rest, self.topk)
            here = place[rows].to(block.device)
            own = block.gather(1, here.clamp(min=0)[:, None])[:, 0].masked_fill(here == UNUSED, torch.nan)
            true[rows] = own.cpu().double()
        return best, lifted, true

    def _grow(self) -> None:
        """Make room for the images that have come, twice as much as needed."""
        if (have := len(self._target)) < self._arrivals.images:
            room = 2 * self._arrivals.images - have
            self._best, self._lifted = (
                of.append(Ranked.empty(room, *of.score.shape[1:])) for of in (self._best, self._lifted)
            )
            self._true = torch.cat([self._true, self._true.new_full((room,), torch.nan)])
            self._target = torch.cat([self._target, self._target.new_full((room,), UNUSED)])

    def _check_labels(self, numbers: Tensor, target: Tensor) -> None:
        """Raise if an image has been given another label before."""
        inside = numbers < len(self._target)
        numbers, target = numbers[inside], target[inside]
        changed = (self._target[numbers] != UNUSED) & (self._target[numbers] != target)
        if changed.any():
            i = int(changed.nonzero()[0])
            now, before = (tuple(self.candidates.pairs[c].tolist()) for c in (target[i], self._target[numbers[i]]))
            raise ValueError(f"image {int(numbers[i])} shows pair {now}, but showed {before} in an earlier chunk")

    def _fold(self, numbers: Tensor, target: Tensor, best: Ranked, lifted: Ranked, true: Tensor) -> None:
        """Take the rankings of these images together with what is known of them."""
        self._grow()
        self._best[numbers] = self._best[numbers].merge(best)
        self._lifted[numbers] = self._lifted[numbers].merge(lifted)
        self._true[numbers] = true.where(~true.isnan(), self._true[numbers])
        self._target[numbers] = target

    def merge(self, other: Sweep) -> None:
        """Take in what another process has seen. Images that it did not number are appended to those here.

        Raises:
            ValueError: it is about other candidates, has scores that came here before, or lacks some of an image.
        """
        alike = (self.topk, self.keep) == (other.topk, other.keep)
        if not alike or not self.candidates.same_as(other.candidates):
            raise ValueError("the other sweep has other pairs, candidates, thresholds, topk or keep")
        if not other._arrivals.images:
            return
        offset = 0
        if not other._arrivals.numbered:
            if self._arrivals.numbered:
                raise ValueError("the images of the other sweep have no numbers, those here have")
            other._complete()
            offset = len(self._complete()) if self._arrivals.images else 0
        elif self._arrivals.numbered is False:
            raise ValueError("the images of the other sweep have numbers, those here have none")
        images = (other._target != UNUSED).nonzero()[:, 0]
        target = other._target[images]
        self._check_labels(images + offset, target)
        self._arrivals.absorb(other._arrivals, offset)
        self._fold(images + offset, target, other._best[images], other._lifted[images], other._true[images])

    def compute(self, bins: Bins | None = None) -> Metrics | tuple[Metrics, ...]:
        """The metrics; with ``thresholds`` a tuple of them, one per threshold in the order given.

        :meth:`compute_all` returns a tuple in both cases.

        Raises:
            ValueError: no images, or images without all their scores.
        """
        found = self.compute_all(bins)
        return found[0] if self.candidates.thresholds is None else found

    def compute_all(self, bins: Bins | None = None) -> tuple[Metrics, ...]:
        """The metrics of each threshold in the order given; of the one set of candidates where there are none.

        Args:
            bins: ``"exact"`` or ``"original"``; as the sweep was made if None.

        Raises:
            ValueError: no images, or images without all their scores.
        """
        bins = self.bins if bins is None else _choice("bins", bins, Bins)
        found = [measure(standings, self.candidates.pairs, bins) for standings in self._standings()]
        return tuple(found[~level] for level in self.candidates.order())

    def standings(self) -> tuple[Standings, ...]:
        """How the columns stand for each image, by threshold as in :meth:`compute_all`: what all numbers come from.

        Raises:
            ValueError: no images, or images without all their scores.
        """
        found = list(self._standings())
        return tuple(found[~level] for level in self.candidates.order())

    def _standings(self) -> Iterator[Standings]:
        """The standings at each level, the highest first."""
        images, k = self._complete(), self.topk
        target, best, lifted = self._target[images], self._best[images], self._lifted[images]
        seen, bar = best[:, SEEN], best[:, SEEN].merge(best[:, SEEN_MASKED]).score[:, k - 1]
        unseen, high = Ranked.empty(len(images), self.keep), Ranked.empty(len(images), k)
        for level in reversed(range(self.candidates.levels)):  # each set of candidates holds those of higher levels
            unseen, high = unseen.merge(best[:, UNSEEN + level]), high.merge(lifted[:, UNSEEN + level])
            is_seen, true = self.candidates.seen[target], self._true[images]
            standings = Standings(target, is_seen, true, bar, seen, unseen, high, seen)
            if self.infeasible == "original":
                standings = self._multiply(standings, level)
            top = standings.seen.merge(standings.unseen)
            yield replace(standings, seen=standings.seen.cut(k), unseen=standings.unseen.cut(k), top=top)

    def _multiply(self, standings: Standings, level: int) -> Standings:
        """The standings once scores are multiplied by (whether the pair is feasible) + (whether it is seen)."""
        infeasible = self.candidates.infeasible(level)
        columns = infeasible.nonzero()[:, 0]
        zero = best_columns(torch.zeros(1, len(columns)), columns, self.keep).expand(len(standings.target))
        lifted = Ranked(zero.score + LIFT, zero.column).cut(self.topk)
        factor = self.candidates.factor(level)
        return replace(
            standings,
            true=standings.true.masked_fill(infeasible.index_select(0, standings.target), 0),
            bar=standings.bar * factor,
            seen=Ranked(standings.seen.score * factor, standings.seen.column),
            unseen=standings.unseen.merge(zero),
            lifted=standings.lifted.merge(lifted),
        )

    def _complete(self) -> Tensor:
        """Numbers of the images, ``[N]``, all of which have all their scores."""
        images = (self._target != UNUSED).nonzero()[:, 0]
        if not len(images):
            raise ValueError("no images have been given")
        self._arrivals.check_complete(images, self.candidates.group != UNUSED)
        return images


def _block(scores: Any, order: Tensor) -> Tensor:
    """Those columns of a chunk of scores, as float32 or float64 on its device."""
    if not isinstance(scores, Tensor):
        scores = torch.from_numpy(np.array(scores, order="C"))  # a copy: the array may be read-only
    if not scores.is_floating_point():
        raise ValueError(f"scores must be of float dtype, got {scores.dtype}")
    scores = scores.detach().index_select(1, order.to(scores.device))
    return scores if scores.dtype == torch.float64 else scores.float()


def _choice(name: str, value: Any, choices: Any) -> Any:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")
    return value
