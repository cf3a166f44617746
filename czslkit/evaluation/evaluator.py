"""The evaluation of a method on a split: its scores are passed to a bias sweep in chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .. import distributed
from ..data.batches import Feed
from ..data.splits import Splits
from ..deferred import deferred_checks
from ..errors import did_you_mean
from ..method import Method, finite_scores, ranked
from ..metrics.feasibility import best_threshold, threshold_grid
from ..metrics.score_columns import UNUSED
from ..metrics.sweep import Bins, Infeasible, Sweep
from ..metrics.sweep_state import ChunkColumns
from ..options import option, user_path
from ..precision import Precision, computing_in
from ..seeds import LARGEST_SEED
from ..sizes import MEMORY
from ..terminal import Progress
from ..types import Setting
from .feasibility_source import NAMED_SOURCES
from .memory_budget import Chunks, Costs, WorldTask, fit_chunks
from .stream import encoded_images, stream_pass

SplitName = Literal["val", "test"]


@dataclass(frozen=True)
class EvalOptions:
    """The settings of an evaluation."""

    bins: Literal["original", "exact"] = option(
        "original", "the curve of the AUC that is printed in tables and that selects the epoch to keep"
    )
    threshold: float | Literal["search"] | None = option(
        None,
        "feasibility, from -1 to 1, that an unseen pair needs to be a candidate in the open world; search takes the "
        "best of 50 thresholds on the validation split, null makes every pair a candidate",
        minimum=-1,
        maximum=1,
    )
    feasibility: str = option(
        "file",
        "the source of feasibility: file is the published feasibility_DATASET.pt, .npy or .safetensors, in the "
        "folder of the dataset or next to it; clip computes it with the backbone's text tower; method asks the trained "
        "method; or the path of such a file or of word vectors",
    )
    infeasible: Literal["exclude", "original"] = option(
        "exclude",
        "the treatment of pairs below the threshold: exclude never predicts them, original gives them score 0 as the "
        "authors' evaluator does",
    )
    batch_size: int | None = option(
        None, "number of images that are scored at a time; null takes the batch size of training", minimum=1
    )
    stream_seed: int = option(
        0,
        "seed of the order in which a method that adapts to the test images gets them; no other method depends on it",
        minimum=0,
        maximum=LARGEST_SEED,
        added_later=True,
    )

    precision: Precision = option(
        "fp32",
        "number format in which images are encoded and pairs are scored, also in the validation of a training: fp32; "
        "tf32, faster matrix products on GPUs that have them, and fp32 on other devices; bf16, bfloat16",
        added_later=True,
    )

    def __post_init__(self) -> None:
        named = self.feasibility in NAMED_SOURCES
        if not named and not (self.feasibility.strip() and user_path(self.feasibility).is_file()):
            raise ValueError(
                f"feasibility is {self.feasibility!r}, expected {', '.join(NAMED_SOURCES)} "
                "or the path of an existing file."
                f"{did_you_mean(self.feasibility, NAMED_SOURCES)}"
            )


@dataclass(frozen=True, eq=False)
class OpenWorld:
    """The rule for candidates in the open world: all seen pairs, and the unseen pairs that reach a threshold."""

    feasibility: Tensor  # [A * O] in [-1, 1], in product(attrs, objs) order
    thresholds: Sequence[float]  # feasibility thresholds; there is a set of candidates for each
    infeasible: Infeasible = "exclude"  # the treatment of pairs below a threshold


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scoring of one split in one or both worlds, planned to fit into memory; it can be run several times.

    A method that ``streams`` in this split has a pass of its own for each world, with all pairs and one image at a
    time. It is not measured, since scoring changes it.

    In the closed world the columns are the pairs of all three splits, and the candidates are the pairs of training
    and of this split. In the open world every combination is a column, and a candidate if it is feasible enough. Pairs
    that no number depends on are not scored, unless the method is not ``chunkable``.
    """

    method: Method
    feed: Feed
    tasks: Mapping[str, WorldTask]  # by world
    chunks: Chunks
    streams: bool  # whether scoring an image changes the method
    stream_seed: int = 0

    @staticmethod
    def plan(
        method: Method,
        data: Splits,
        split: SplitName,
        worlds: Sequence[str],
        feed: Feed,
        *,
        open_world: OpenWorld | None = None,
        keep: int = 1,
        memory: int = MEMORY,
        stream_seed: int = 0,
    ) -> Evaluation:
        """Choose the pairs to score and the sizes of chunks; a few images and pairs are scored to measure memory.

        Args:
            method: left in evaluation mode.
            worlds: ``"closed"``, ``"open"`` or both; both are scored in one pass over the images.
            feed: batches of the same method and split; its ``precision`` is that of the evaluation.
            open_world: the candidates of the open world; every pair is a candidate if None.
            keep: number of best pairs to remember for each image; no metric depends on it.
            memory: bytes that the evaluation may take, without the weights of the method; no limit if it ``streams``.
            stream_seed: seed of the order of the images for a method that ``streams``.

        Raises:
            ConfigError: ``memory`` is too little.
            ValueError: the feasibility does not have one number for each pair.
        """
        tasks = {world: _task(method, data, split, world, open_world, keep) for world in worlds}
        streams = method.streams and (split == "test" or method.streams_in_validation)
        return Evaluation.of_tasks(method, tasks, feed, streams=streams, memory=memory, stream_seed=stream_seed)

    @staticmethod
    def of_tasks(
        method: Method, tasks: Mapping[str, WorldTask], feed: Feed, *, streams: bool, memory: int, stream_seed: int = 0
    ) -> Evaluation:
        """Plan the scoring of given pairs of each world; for arguments and errors see :meth:`plan`."""
        method.eval()
        if streams:
            largest = max(len(task.pairs) for task in tasks.values())
            return Evaluation(method, feed, tasks, Chunks(1, largest, largest), True, stream_seed)
        _ = feed.caches_features  # all ranks measure this together, and the first one the memory alone
        with computing_in(feed.precision, method.device):
            chunks = distributed.first(lambda: fit_chunks(Costs(method, feed, tasks), memory))
        return Evaluation(method, feed, tasks, chunks, False, stream_seed)

    @torch.no_grad()
    def run(self) -> dict[str, Sweep]:
        """Score every image of the split against the pairs of each world; no matrix of scores is kept.

        Several ranks score a share of the images each, unless the method ``streams``; texts are divided into parts that
        fit into memory, and each rank encodes all of them.

        Returns:
            A filled sweep for each world. The method is left in evaluation mode.

        Raises:
            ConfigError: a method that ``streams`` cannot be copied, or changes features that are cached.
            PluginError: ``rank`` does not return a number for each image and pair.
        """
        method, chunks = self.method.eval(), self.chunks
        if self.streams:
            features = encoded_images(method, self.feed)
            return {
                world: stream_pass(method, self.feed, task, self.stream_seed, features)
                for world, task in self.tasks.items()
            }
        sweeps = {world: task.sweep() for world, task in self.tasks.items()}
        parts = _parts(self.tasks, chunks.texts, whole=not method.chunkable)
        name, total = f"{self.feed.split.name} images scored", len(self.feed.split) * len(parts)
        with Progress(name, total, show=self.feed.progress) as progress, deferred_checks(method.device):
            for part in parts:
                with computing_in(self.feed.precision, method.device):
                    self._score(part, sweeps, progress)
        return {world: _merged(sweep, self.tasks[world]) for world, sweep in sweeps.items()}

    def _score(self, part: Mapping[str, slice], sweeps: Mapping[str, Sweep], progress: Progress) -> None:
        """Score this rank's images against some rows of each world, and add the scores to the sweeps."""
        method, chunks, split = self.method, self.chunks, self.feed.split
        texts = {
            world: method.text_in(world, self.tasks[world].pairs[rows].to(method.device))
            for world, rows in part.items()
        }
        columns = {
            world: [
                (chunk, ChunkColumns(sweeps[world].candidates, self.tasks[world].columns[rows][chunk]))
                for chunk in _chunks(rows, chunks)
            ]
            for world, rows in part.items()
        }
        order = self._own_images()
        numbers_of_images = order.split(chunks.images) if len(order) else ()
        for index, batch in zip(numbers_of_images, self.feed.batches(order, size=chunks.images), strict=True):
            image = batch.images if not isinstance(batch.images, Tensor) else method.encode(batch.images)
            labels = split.attr[index], split.obj[index]  # on the host, as those of the batch are not
            for world in part:
                for chunk, numbers in columns[world]:
                    scores = ranked(method, image, texts[world].rows(chunk), self.tasks[world].setting)
                    sweeps[world].update(finite_scores(method, scores), *labels, columns=numbers)
                    del scores
            progress.update(len(index))
            del batch, image  # frees their memory before the next batch is read

    def _own_images(self) -> Tensor:
        """Return the images that this rank scores, in listed order; whole batches if scores depend on the batch."""
        images = torch.arange(len(self.feed.split))
        if self.method.independent:
            return images[distributed.share(len(images))]
        return whole_batches(len(images), self.chunks.images)


def whole_batches(images: int, size: int) -> Tensor:
    """Return this rank's share of ``images`` images, in whole batches of ``size`` images.

    >>> whole_batches(3, 2).tolist()
    [0, 1, 2]
    """
    share = distributed.share(-(-images // size))
    return torch.arange(images)[share.start * size : share.stop * size]


def _merged(sweep: Sweep, task: WorldTask) -> Sweep:
    """Return the sweep of the images of all ranks, in listed order; it is the same on all ranks."""
    if distributed.size() == 1:
        return sweep
    whole = task.sweep()
    for other in distributed.gather(sweep):
        whole.merge(other)
    return whole


@dataclass(frozen=True)
class SearchedThreshold:
    """A feasibility threshold that was searched on the validation split."""

    value: float
    bias: float | None  # at which its harmonic mean is best; None if this is always 0


def searched_threshold(
    method: Method,
    data: Splits,
    feasibility: Tensor,
    feed: Feed,
    *,
    bins: Bins,
    infeasible: Infeasible = "exclude",
    memory: int = MEMORY,
    stream_seed: int = 0,
) -> SearchedThreshold:
    """Return the one of 50 thresholds with the highest AUC on the validation split, found in one pass over the images.

    Args:
        method: left in evaluation mode.
        feasibility: ``[A * O]``, feasibility of every combination of attribute and object.
        feed: batches of the same method and the validation split.
        bins: the curve whose area is compared.
        infeasible: the treatment of pairs below a threshold.
        memory, stream_seed: as for ``Evaluation.plan``.

    Returns:
        The first of equally good thresholds; -10, which excludes nothing and has no bias, if every AUC is 0.

    Raises:
        ValueError: there is not one number for each pair, or there is no unseen pair.
    """
    evaluation = plan_search(
        method, data, feasibility, feed, infeasible=infeasible, memory=memory, stream_seed=stream_seed
    )
    grid = threshold_grid(feasibility, data.space.open().seen)
    metrics = evaluation.run()["open"].compute_all(bins)
    value = best_threshold(grid, metrics)
    best = metrics[grid.index(value)] if value in grid else None
    return SearchedThreshold(value, best.hm_bias if best and best.best_hm else None)


def plan_search(
    method: Method,
    data: Splits,
    feasibility: Tensor,
    feed: Feed,
    *,
    infeasible: Infeasible = "exclude",
    memory: int = MEMORY,
    stream_seed: int = 0,
) -> Evaluation:
    """Plan the evaluation of :func:`searched_threshold`; the arguments and errors are the same."""
    open_world = OpenWorld(feasibility, threshold_grid(feasibility, data.space.open().seen), infeasible)
    return Evaluation.plan(
        method, data, "val", ["open"], feed, open_world=open_world, memory=memory, stream_seed=stream_seed
    )


def _chunks(rows: slice, chunks: Chunks) -> list[slice]:
    """Return the rows of a part of a world in chunks, counted from the start of the part.

    >>> _chunks(slice(3, 8), Chunks(images=1, pairs=4, texts=9))
    [slice(0, 4, None), slice(4, 8, None)]
    """
    return [slice(start, start + chunks.pairs) for start in range(0, rows.stop - rows.start, chunks.pairs)]


def _task(
    method: Method, data: Splits, split: SplitName, world: str, open_world: OpenWorld | None, keep: int
) -> WorldTask:
    """Return the task of scoring a split in one world; the arguments are those of ``Evaluation.plan``."""
    if world == "open":
        space, candidates, rule = data.space.open(), None, open_world
    else:
        space, candidates, rule = data.space, data.candidates(split), None
    sweep = partial(
        Sweep,
        space.pairs,
        space.seen,
        candidates,
        rule.feasibility if rule else None,
        rule.thresholds if rule else None,
        keep=keep,
        infeasible=rule.infeasible if rule else "exclude",
    )
    used = sweep().candidates.group != UNUSED
    columns = (used if method.chunkable else torch.ones_like(used)).nonzero()[:, 0]
    # The authors' test programs search the threshold on validation images with the scores of the test setting.
    scored_as: SplitName = "test" if rule else split
    return WorldTask(sweep, columns, space.pairs[columns], Setting(scored_as, world, len(space.pairs)))


def _parts(tasks: Mapping[str, WorldTask], most: int, *, whole: bool) -> list[dict[str, slice]]:
    """Divide the rows of all worlds into parts of at most ``most`` rows; with ``whole``, no world is divided.

    >>> from types import SimpleNamespace
    >>> tasks = {"closed": SimpleNamespace(columns=range(2)), "open": SimpleNamespace(columns=range(3))}
    >>> _parts(tasks, 4, whole=False)
    [{'closed': slice(0, 2, None), 'open': slice(0, 2, None)}, {'open': slice(2, 3, None)}]
    """
    parts: list[dict[str, slice]] = [{}]
    room = most
    for world, task in tasks.items():
        start, count = 0, len(task.columns)
        while start < count:
            if room < (count - start if whole and parts[-1] else 1):
                parts.append({})
                room = most
            stop = min(start + room, count)
            parts[-1][world] = slice(start, stop)
            room -= stop - start
            start = stop
    return parts
