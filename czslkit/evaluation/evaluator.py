"""A method's scores on a split, streamed through the bias sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..data.batches import Feed
from ..data.splits import Splits
from ..errors import did_you_mean
from ..method import Method
from ..metrics.candidates import UNUSED
from ..metrics.feasibility import best_threshold, threshold_grid
from ..metrics.sweep import Bins, Infeasible, Sweep
from ..options import option
from ..sizes import MEMORY
from ..types import Setting
from .budget import Costs, fit_chunks
from .feasibility_source import NAMED_SOURCES

Phase = Literal["val", "test"]


@dataclass(frozen=True)
class EvalOptions:
    """How scores become numbers."""

    bins: Literal["original", "exact"] = option("original", "the curve behind the AUC that is printed and selected by")
    threshold: float | Literal["search"] | None = option(
        None,
        "feasibility that an unseen pair needs to be a candidate in the open world; search takes the best of 50 on "
        "the validation split, null makes every pair one",
        minimum=-1,
        maximum=1,
    )
    feasibility: str = option(
        "file",
        "of pairs: file is the published feasibility_DATASET.pt, .npy or .safetensors, in the dataset's folder or "
        "beside it; clip asks the backbone's text tower; or the path of such a file, or of word vectors",
    )
    infeasible: Literal["exclude", "original"] = option(
        "exclude", "pairs below the threshold: never predicted, or with score 0 as in the original evaluator"
    )

    batch_size: int | None = option(None, "images scored at a time; as many as in training if null", minimum=1)

    def __post_init__(self) -> None:
        if self.feasibility not in NAMED_SOURCES and not Path(self.feasibility).expanduser().is_file():
            raise ValueError(
                f"feasibility is {self.feasibility!r}, expected {', '.join(NAMED_SOURCES)} "
                "or the path of a file that is there."
                f"{did_you_mean(self.feasibility, NAMED_SOURCES)}"
            )


@dataclass(frozen=True, eq=False)
class Task:
    """The pairs that are to be scored on a split, in each world.

    The closed world has the pairs of all three splits as columns, of which those trained on and
    those of this split may be predicted; the open world has every combination, and those may be predicted
    that are feasible enough. Pairs that no number depends on are not scored, unless the method's scores
    depend on which pairs there are.
    """

    sweeps: dict[str, Sweep]
    """Still without scores, by world."""
    columns: dict[str, Tensor]
    """Those to be scored, ``[k]`` each."""
    settings: dict[str, Setting]

    @staticmethod
    def of(
        method: Method,
        data: Splits,
        phase: Phase,
        worlds: Sequence[str],
        *,
        feasibility: Tensor | None = None,
        thresholds: Sequence[float] | None = None,
        infeasible: Infeasible = "exclude",
        keep: int = 1,
    ) -> Task:
        """Arguments and errors are those of :func:`sweeps`."""
        task = Task({}, {}, {})
        for world in worlds:
            if world == "open":
                space = data.space.open()
                sweep = Sweep(space.pairs, space.seen, None, feasibility, thresholds, keep=keep, infeasible=infeasible)
            else:
                space = data.space
                sweep = Sweep(space.pairs, space.seen, data.candidates(phase), keep=keep)
            # A threshold is searched with the scores that it is then applied to, as in the authors' test programs.
            scored_as: Phase = "test" if world == "open" and thresholds is not None else phase
            used = sweep.candidates.group != UNUSED
            task.sweeps[world] = sweep
            task.columns[world] = (used if method.chunkable else torch.ones_like(used)).nonzero()[:, 0]
            task.settings[world] = Setting(scored_as, world, len(space.pairs))
        return task

    def pairs(self, world: str, columns: Tensor) -> Tensor:
        """The pairs of some columns, ``[k, 2]``."""
        return self.sweeps[world].candidates.pairs[columns]

    def costs(self, method: Method, feed: Feed) -> Costs:
        """What scoring them takes; ``method`` is left in evaluation mode."""
        pairs = {world: self.pairs(world, columns) for world, columns in self.columns.items()}
        return Costs(method.eval(), feed, pairs, next(iter(self.settings.values())), self.sweeps)


@torch.no_grad()
def sweeps(
    method: Method,
    data: Splits,
    phase: Phase,
    worlds: Sequence[str],
    feed: Feed,
    *,
    feasibility: Tensor | None = None,
    thresholds: Sequence[float] | None = None,
    infeasible: Infeasible = "exclude",
    keep: int = 1,
    memory: int = MEMORY,
) -> dict[str, Sweep]:
    """Score the images of a split against the candidates of each world; no matrix of scores is kept.

    Args:
        method: left in evaluation mode.
        phase: ``"val"`` or ``"test"``.
        worlds: ``"closed"``, ``"open"`` or both, scored in one pass over the images.
        feed: of the same method and split.
        feasibility: ``[A * O]`` of every combination, for the open world; together with ``thresholds``.
        thresholds: a set of candidates of the open world each; see :class:`Sweep`.
        infeasible: what becomes of the pairs below a threshold.
        keep: how many best pairs to remember of each image; no metric depends on it.
        memory: bytes that this may take, the method's own weights aside.

    Returns:
        A filled sweep for each world.

    Raises:
        ConfigError: ``memory`` is too little.
        ValueError: one of ``feasibility`` and ``thresholds`` without the other, or not one number for each pair.
    """
    task = Task.of(
        *(method, data, phase, worlds),
        feasibility=feasibility,
        thresholds=thresholds,
        infeasible=infeasible,
        keep=keep,
    )
    chunks = fit_chunks(task.costs(method, feed), memory)
    for part in _parts(task.columns, chunks.kept, whole=not method.chunkable):
        texts = {world: method.text(task.pairs(world, columns).to(method.device)) for world, columns in part.items()}
        for batch in feed.batches(size=chunks.images):
            image = batch.images if not isinstance(batch.images, Tensor) else method.encode(batch.images)
            labels = batch.attr.cpu(), batch.obj.cpu()
            for world, columns in part.items():
                for start in range(0, len(columns), chunks.pairs):
                    rows = slice(start, start + chunks.pairs)
                    scores = method.rank(image, texts[world].rows(rows), task.settings[world])
                    task.sweeps[world].update(scores.float().cpu(), *labels, columns=columns[rows])
                    del scores
            del batch, image  # before there are others
        del texts
    return task.sweeps


def _parts(wanted: Mapping[str, Tensor], most: int, *, whole: bool) -> list[dict[str, Tensor]]:
    """The columns of all worlds, in parts of at most so many; those of a ``whole`` world stay together.

    >>> _parts({"closed": torch.arange(2), "open": torch.arange(3)}, 4, whole=False)
    [{'closed': tensor([0, 1]), 'open': tensor([0, 1])}, {'open': tensor([2])}]
    """
    parts: list[dict[str, Tensor]] = [{}]
    room = most
    for world, columns in wanted.items():
        while len(columns):
            if room < (len(columns) if whole and parts[-1] else 1):
                parts.append({})
                room = most
            parts[-1][world], columns = columns[:room], columns[room:]
            room -= len(parts[-1][world])
    return parts


def searched_threshold(
    method: Method,
    data: Splits,
    feasibility: Tensor,
    feed: Feed,
    *,
    bins: Bins,
    infeasible: Infeasible = "exclude",
    memory: int = MEMORY,
) -> float:
    """The threshold of 50 with the highest AUC on the validation split, in one pass over it.

    Args:
        method: left in evaluation mode.
        feasibility: ``[A * O]`` of every combination.
        feed: of the same method and the validation split.
        bins: the curve whose area is compared.
        infeasible: what becomes of the pairs below a threshold.
        memory: bytes that this may take.

    Returns:
        The first of equally good ones; -10, which excludes nothing, if every AUC is 0.

    Raises:
        ValueError: not one number for each pair, or there is no unseen pair.
    """
    grid = threshold_grid(feasibility, data.space.open().seen)
    filled = sweeps(
        method,
        data,
        "val",
        ["open"],
        feed,
        feasibility=feasibility,
        thresholds=grid,
        infeasible=infeasible,
        memory=memory,
    )
    return best_threshold(grid, filled["open"].compute_all(bins))
