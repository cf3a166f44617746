"""Names for new photos: the best pairs of each, with the scores of the evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .data.photos import Photo, PhotoFeed, as_photos, photo_name
from .errors import ConfigError
from .evaluation.evaluator import Evaluation
from .evaluation.memory_budget import WorldTask
from .evaluation.probabilities import PredictionSweep, restricted
from .method import Method
from .metrics.names import WORLDS
from .metrics.ranking import NO_COLUMN
from .named_pairs import named_candidates
from .sizes import MEMORY
from .types import PairSpace, PredictedPair, Prediction, Setting

#: Photos that are read and scored at a time by default.
BATCH_SIZE = 64
#: Scores of pairs that a method never predicts are below this one.
_NEVER = -1e30


def predict_images(
    method: Method,
    images: Any,
    pairs: Any = None,
    top: int = 5,
    *,
    world: str = "closed",
    bias: float | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int = 0,
    progress: bool = False,
    memory: int = MEMORY,
) -> list[Prediction]:
    """Return the best pairs of images, one :class:`Prediction` for each in their order; see ``Method.predict``.

    The scores are those of the evaluation on a test split whose images these are. A method that adapts to the test
    images adapts to all of them, in the order of the evaluation.

    Args:
        method: left in evaluation mode; the images are computed on its device.
        images: paths, PIL images or uint8 arrays ``[H, W]`` or ``[H, W, 3]``; or a single one of them. One that cannot
            be read gets a prediction without pairs, whose ``error`` has the reason.
        pairs: the candidates: names such as ``"wet dog"``, attributes or objects, in a list or with commas between
            them, or ``[K, 2]`` long; by default all pairs of the world.
        top: number of pairs to return for an image.
        world: ``"closed"``, the pairs of the label space; or ``"open"``, every combination, without the unseen pairs
            that the feasibility threshold of the training's evaluation excludes. The score fusion of some methods
            depends on it.
        bias: added to the scores of unseen pairs; by default the one that was best on the validation split, 0 if it is
            not known.
        batch_size: number of photos that are read and scored at a time.
        workers: processes that read photos; 0 reads them in this process.
        progress: show the progress.
        memory: bytes that the scoring may take.

    Raises:
        ConfigError: an argument cannot be used, or ``memory`` is too little.
    """
    if world not in WORLDS:
        raise ConfigError([f"world is {world!r}, expected {' or '.join(WORLDS)}"])
    for name, number in (("top", top), ("batch_size", batch_size)):
        if type(number) is not int or number < 1:
            raise ConfigError([f"{name} is {number!r}, expected a whole number from 1"])
    bias = known_bias(method, world) or 0.0 if bias is None else bias
    if not math.isfinite(bias):
        raise ConfigError([f"bias is {bias!r}, expected a finite number"])
    photos = as_photos(images)
    space, candidates = candidates_of(method, pairs, world)
    columns = len(space.pairs)
    if method.chunkable:  # the score of a pair is independent of the other pairs
        space = restricted(space, candidates.nonzero()[:, 0])
        candidates = torch.ones(len(space.pairs), dtype=torch.bool)

    def run(indices: Sequence[int]) -> dict[int, Prediction]:
        """Return the predictions of some photos, by their index."""
        if not indices:
            return {}
        first = space.pairs[candidates][0]
        some = [photos[index] for index in indices]
        feed = PhotoFeed(method, some, first, batch_size, workers=workers, progress=progress)
        scale = method.head.score_scale()
        sweep = partial(PredictionSweep, space, candidates, len(some), top=top, bias=bias, scale=scale)
        task = WorldTask(sweep, torch.arange(len(space.pairs)), space.pairs, Setting("test", world, columns))
        evaluation = Evaluation.of_tasks(method, {world: task}, feed, streams=method.streams, memory=memory)
        filled = evaluation.run()[world]
        assert isinstance(filled, PredictionSweep)
        errors = {indices[row]: error for row, error in feed.errors.items()}
        found = {i: _unreadable(photos[i], i, error, space) for i, error in errors.items()}
        readable = [index for index in indices if index not in errors]
        if errors and (method.streams or not method.independent):  # black images have changed the other scores
            return found | run(readable)
        rows = _predictions(filled, space, [photo_name(photos[i], i) for i in indices])
        return found | {index: row for index, row in zip(indices, rows, strict=True) if index not in errors}

    predictions = run(range(len(photos)))
    return [predictions[index] for index in range(len(photos))]


def known_bias(method: Method, world: str) -> float | None:
    """Return the bias that was best on the validation split, None if it is not known.

    The bias of the other world is used if only that one is known.
    """
    known = method.calibration.bias
    return known.get(world, next(iter(known.values()), None))


def candidates_of(method: Method, pairs: Any, world: str) -> tuple[PairSpace, Tensor]:
    """Return the label space of a world, with named pairs that it lacks, and its candidates, ``[K]`` bool.

    Raises:
        ConfigError: ``pairs`` name words or pairs that are not known.
    """
    space = method.space if world == "closed" else method.space.open()
    if pairs is not None:
        return named_candidates(pairs, space)
    feasible = method.calibration.feasible
    if world == "open" and feasible is not None:
        return space, space.seen | feasible
    return space, torch.ones(len(space.pairs), dtype=torch.bool)


def _predictions(sweep: PredictionSweep, space: PairSpace, names: Sequence[str]) -> list[Prediction]:
    """Return the predictions of all images of a sweep."""
    best = sweep.best()
    of_pair, attrs, objs = sweep.probabilities(best.score)
    predictions = []
    for row, name in enumerate(names):
        pairs = []
        for place, (column, score) in enumerate(zip(best.column[row].tolist(), best.score[row].tolist(), strict=True)):
            if column == NO_COLUMN or score < _NEVER:
                break
            attr, obj = space.pairs[column].tolist()
            shares = float(of_pair[row, place]), float(attrs[row, attr]), float(objs[row, obj])
            pairs.append(PredictedPair(space.attrs[attr], space.objs[obj], score, *shares, bool(space.seen[column])))
        predictions.append(Prediction(name, tuple(pairs), attrs[row], objs[row]))
    return predictions


def _unreadable(photo: Photo, index: int, error: str, space: PairSpace) -> Prediction:
    """Return the prediction of a photo that cannot be read."""
    attrs, objs = (torch.full((len(words),), torch.nan) for words in (space.attrs, space.objs))
    return Prediction(photo_name(photo, index), (), attrs, objs, error)
