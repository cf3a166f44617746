"""A method's scores on a split, streamed through the bias sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..data.datasets import Splits
from ..feed import Feed
from ..method import Method
from ..options import option
from .sweep import Sweep

#: Candidate pairs that are encoded and scored at a time.
PAIRS = 1024
Phase = Literal["val", "test"]


@dataclass(frozen=True)
class EvalOptions:
    """How scores become numbers."""

    bins: Literal["original", "exact"] = option("original", "the curve behind the AUC that is printed and selected by")


@torch.no_grad()
def sweeps(method: Method, data: Splits, phase: Phase, worlds: Sequence[str], feed: Feed) -> dict[str, Sweep]:
    """Score the images of a split against the candidates of each world; no matrix of scores is kept.

    The closed world has the pairs of all three splits as columns, of which those trained on and
    those of this split may be predicted; the open world has every combination.

    Args:
        method: left in evaluation mode.
        phase: ``"val"`` or ``"test"``.
        worlds: ``"closed"``, ``"open"`` or both, scored in one pass over the images.
        feed: of the same method and split.

    Returns:
        A filled sweep for each world.
    """
    method.eval()
    texts, filled = {}, {}
    for world in worlds:
        space = data.space.open() if world == "open" else data.space
        candidates = None if world == "open" else data.candidates(phase)
        filled[world] = Sweep(space.pairs, space.seen, candidates)
        chunks = space.pairs.split(PAIRS) if method.chunkable else (space.pairs,)
        texts[world] = [method.text(chunk.to(method.device)) for chunk in chunks]
    for batch in feed.batches():
        image = batch.images if not isinstance(batch.images, torch.Tensor) else method.encode(batch.images)
        for world, sweep in filled.items():
            scores = torch.cat([method.rank(image, text).float().cpu() for text in texts[world]], 1)
            sweep.update(scores, batch.attr.cpu(), batch.obj.cpu())
    return filled
