"""Names for new photos: the best pairs of each, with the scores of the evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
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
from .prediction import PredictedPair, Prediction, Predictor
from .sizes import MEMORY
from .types import PairSpace, Setting

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
    if type(workers) is not int or workers < 0:
        raise ConfigError([f"workers is {workers!r}, expected a whole number from 0"])
    bias, _ = bias_of(method, world, bias)
    if not isinstance(bias, Real) or not math.isfinite(bias):
        raise ConfigError([f"bias is {bias!r}, expected a finite number"])
    photos = as_photos(images)
    method, space, candidates = method_for(method, pairs, world)
    setting = Setting("test", world, len(space.pairs))
    if method.chunkable:  # the score of a pair is independent of the other pairs
        space = restricted(space, candidates.nonzero()[:, 0])
        candidates = torch.ones(len(space.pairs), dtype=torch.bool)
    top = min(top, int(candidates.sum()))  # memory is planned for as many
    reading = {"batch_size": batch_size, "workers": workers, "progress": progress}
    task = _Task(method, photos, space, candidates, setting, top, bias, reading, memory)
    found = task.predictions(range(len(photos)))
    return [found[index] for index in range(len(photos))]


@dataclass(frozen=True, eq=False)
class _Task:
    """The prediction of some photos."""

    method: Method
    photos: Sequence[Photo]
    space: PairSpace  # of the pairs to score
    candidates: Tensor  # [K] bool, which of them may be predicted
    setting: Setting
    top: int
    bias: float
    reading: Mapping[str, Any]  # arguments of PhotoFeed
    memory: int

    def predictions(self, indices: Sequence[int]) -> dict[int, Prediction]:
        """Return the predictions of some photos, by their index."""
        if not indices:
            return {}
        method, space, world = self.method, self.space, self.setting.world
        photos = [self.photos[index] for index in indices]
        feed = PhotoFeed(method, photos, space.pairs[self.candidates][0], **self.reading)
        scale = method.head.score_scale()
        sweep = partial(PredictionSweep, space, self.candidates, len(photos), top=self.top, bias=self.bias, scale=scale)
        task = WorldTask(sweep, torch.arange(len(space.pairs)), space.pairs, self.setting)
        evaluation = Evaluation.of_tasks(method, {world: task}, feed, streams=method.streams, memory=self.memory)
        filled = evaluation.run()[world]
        assert isinstance(filled, PredictionSweep)
        names = [photo_name(photo, index) for photo, index in zip(photos, indices, strict=True)]
        rows = dict(zip(indices, _predictions(filled, space, names), strict=True))
        unreadable = {indices[row]: error for row, error in feed.errors.items()}
        for index, error in unreadable.items():
            attrs, objs = (torch.full_like(shares, torch.nan) for shares in (rows[index].attrs, rows[index].objs))
            rows[index] = replace(rows[index], pairs=(), attrs=attrs, objs=objs, error=error)
        if unreadable and (method.streams or not method.independent):  # black images have changed the other scores
            rows |= self.predictions([index for index in indices if index not in unreadable])
        return rows


def bias_of(method: Method, world: str, given: float | None = None) -> tuple[float, str]:
    """Return the bias that predictions use, and where it is from, in words.

    Args:
        given: the bias that the user gave; None for the one that was best on the validation split. If only that of the
            other world is known, this is used; if none is known, 0.
    """
    known = method.calibration.bias
    if given is not None:
        return given, "as given"
    if world in known:
        return known[world], f"which was best on the validation split of the {world} world"
    for other, bias in known.items():
        return (
            bias,
            f"which was best on the validation split of the {other} world; that of the {world} world is not known",
        )
    return 0.0, "because the trained method records no best one: --bias NUMBER (bias=) sets another"


def method_for(method: Method, pairs: Any, world: str) -> tuple[Method, PairSpace, Tensor]:
    """Return a method that scores the pairs of a world, with their label space and the candidates, ``[K]`` bool.

    Named pairs that the label space lacks are added to it. If their words are new, too, the method is another one.

    Raises:
        ConfigError: ``pairs`` name words or pairs that are not known.
    """
    space = method.space if world == "closed" else method.space.open()
    if pairs is not None:
        space, named = named_candidates(pairs, space, new_words=type(method).with_words is not Predictor.with_words)
        if len(space.attrs) + len(space.objs) > len(method.space.attrs) + len(method.space.objs):
            method = _with_words(method, space)
        return method, space, named
    feasible = method.calibration.feasible
    if world == "open" and feasible is not None:
        return method, space, space.seen | feasible
    return method, space, torch.ones(len(space.pairs), dtype=torch.bool)


def _with_words(method: Method, space: PairSpace) -> Method:
    """Return a method for a label space with more words, on the same device."""
    device = method.device
    other = method.cpu().with_words(space)
    method.to(device)
    assert isinstance(other, Method)
    other.calibration = method.calibration
    return other.to(device)


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
