"""A sweep that also sums how probable every attribute and every object is, for the prediction of new photos."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..metrics.ranking import Ranked
from ..metrics.score_columns import Array
from ..metrics.sweep import Sweep
from ..metrics.sweep_state import ChunkColumns
from ..types import PairSpace


class PredictionSweep(Sweep):
    """The best pairs of each image at one bias, and the probability of every attribute and object.

    The probability of a pair is its share in a softmax, over all candidates, of ``scale`` times the score at the bias.
    That of an attribute or object is the sum over the candidates that have it.

    Args:
        space: label space of the scored pairs.
        candidates: ``[K]`` bool, the pairs that may be predicted.
        images: number of images.
        top: number of pairs to keep for each image.
        bias: added to the scores of unseen pairs.
        scale: factor that turns scores into logits.
    """

    def __init__(
        self, space: PairSpace, candidates: Tensor, images: int, *, top: int, bias: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__(space.pairs, space.seen, candidates, topk=top)
        self._mask, self._bias, self._scale = candidates, bias, scale
        self._offset = torch.where(space.seen, 0.0, bias)  # [K]
        self._highest = torch.full((images,), -torch.inf)  # highest logit of each image so far, [N]
        self._sums = [torch.zeros(images, len(words)) for words in (space.attrs, space.objs)]  # relative to it
        self._given: dict[ChunkColumns, int] = {}  # number of images that a chunk of columns has scores for

    def update(
        self,
        scores: Array,
        attr: Array,
        obj: Array,
        *,
        columns: Array | slice | ChunkColumns | None = None,
        images: Array | None = None,
    ) -> None:
        assert isinstance(columns, ChunkColumns) and isinstance(scores, Tensor)
        super().update(scores, attr, obj, columns=columns, images=images)
        if images is None:
            start = self._given.get(columns, 0)
            self._given[columns] = start + len(scores)
            images = torch.arange(start, start + len(scores))
        used = self._mask[columns.given].nonzero()[:, 0]
        if not len(used):
            return
        numbers = columns.given[used]
        logits = self._scale * (scores.float().cpu()[:, used] + self._offset[numbers])
        before = self._highest[images]
        highest = torch.maximum(before, logits.max(1).values)
        shares = (logits - highest[:, None]).exp()
        for sums, words in zip(self._sums, self.candidates.pairs[numbers].T, strict=True):
            sums[images] = (sums[images] * (before - highest).exp()[:, None]).index_add_(1, words, shares)
        self._highest[images] = highest

    def footprint(self, images: int, chunks: int = 1) -> int:
        return super().footprint(images, chunks) + sum(sums.nbytes for sums in self._sums)

    def best(self) -> Ranked:
        """Return the best candidates of each image at the bias, ``[N, top]``; scores of unseen pairs include it."""
        found = self.top_scores()[0]
        return found.seen.merge(Ranked(found.unseen.score + self._bias, found.unseen.column))

    def probabilities(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the probabilities of pairs, attributes and objects, ``[N, top]``, ``[N, A]`` and ``[N, O]``.

        Args:
            scores: scores of some pairs of each image at the bias, as :meth:`best` returns them.
        """
        attrs, objs = self._sums
        total = attrs.sum(1, keepdim=True)
        shares = (self._scale * scores - self._highest[:, None]).exp()
        return shares / total, attrs / total, objs / total


def restricted(space: PairSpace, rows: Sequence[int] | Tensor) -> PairSpace:
    """Return a label space with some pairs of another one, in their order."""
    rows = torch.as_tensor(rows)
    return PairSpace(space.attrs, space.objs, space.pairs[rows], space.seen[rows])
