"""The checks of a method in the evaluator: both splits and worlds, in chunks of images and of pairs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from ..evaluation.evaluator import Evaluation
from ..evaluation.memory_budget import Chunks
from ..method import Method, finite_scores
from ..metrics.names import WORLDS
from ..metrics.sweep import Sweep
from ..metrics.sweep_state import ChunkColumns
from ..sizes import MEMORY
from .method_checks import a_training_runs, the_method_can_be_built
from .report import Check, CheckSkipped, check
from .scores import (
    a_second_pass_gives_the_same_scores,
    chunks_of_pairs_agree,
    equal_or_fail,
    tokens_are_declared,
)
from .trial import BATCH_SIZE, MethodTrial

SPLITS: tuple[Literal["val", "test"], ...] = ("val", "test")
#: Checks whose failure has the same cause as a failure in the evaluator.
_NEEDED = (tokens_are_declared, a_second_pass_gives_the_same_scores, chunks_of_pairs_agree)
_REMEDY = "The evaluator calls begin, text, encode and rank; correct the line above."


@dataclass
class Recorder:
    """A sweep that also keeps the matrix of scores."""

    sweep: Sweep
    columns: dict[int, list[Tensor]] = field(default_factory=dict)  # scores of every pass over a column

    def update(self, scores: Tensor, *labels: Tensor, columns: ChunkColumns, **rest: Any) -> None:
        """Keep the scores and pass them to the sweep; the arguments are those of ``Sweep.update``."""
        for position, column in enumerate(columns.given.tolist()):
            self.columns.setdefault(column, []).append(scores[:, position])
        self.sweep.update(scores, *labels, columns=columns, **rest)

    def scores(self) -> Tensor:
        """Return the scores of every image and every scored pair, ``[N, k]``, in the order of the pairs."""
        return torch.stack([torch.cat(self.columns[column]) for column in sorted(self.columns)], 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sweep, name)


def evaluated(
    trial: MethodTrial,
    method: Method,
    split: Literal["val", "test"],
    *,
    chunks: Chunks | None = None,
    memory: int = MEMORY,
) -> tuple[Evaluation, dict[str, Tensor]]:
    """Evaluate a method on a split in both worlds.

    Args:
        chunks: the numbers of images and pairs at a time; as many as fit into ``memory`` if None.

    Returns:
        The evaluation, and for each world the scores of every image and every scored pair, ``[N, k]``.

    Raises:
        ConfigError: ``memory`` is too little.
    """
    feed = trial.job("built").machine.feed(method, getattr(trial.data, split), BATCH_SIZE)
    evaluation = Evaluation.plan(method, trial.data, split, WORLDS, feed, memory=memory)
    tasks = {
        world: replace(task, sweep=lambda task=task: cast(Sweep, Recorder(task.sweep())))  # type: ignore[misc]
        for world, task in evaluation.tasks.items()
    }
    evaluation = replace(evaluation, tasks=tasks, chunks=chunks or evaluation.chunks)
    sweeps = evaluation.run()
    for sweep in sweeps.values():
        sweep.compute_all("original")
    return evaluation, {world: cast(Recorder, sweep).scores() for world, sweep in sweeps.items()}


@check(_REMEDY, the_method_can_be_built, *_NEEDED)
def the_evaluator_gives_the_scores_of_the_images(trial: MethodTrial) -> str:
    """Before the training, the evaluator has the scores that ``rank`` gives, in both splits and worlds."""
    for split in SPLITS:
        _check_split(trial, trial.perturbed, split, "before the training")
    return f"{' and '.join(SPLITS)}, {' and '.join(WORLDS)} world, with pairs that no list names"


@check(_REMEDY, a_training_runs)
def the_evaluator_gives_the_scores_of_the_trained_method(trial: MethodTrial) -> str:
    """After the training, the evaluator has the scores that ``rank`` gives, in both splits and worlds."""
    for split in SPLITS:
        _check_split(trial, trial.trained.method, split, "after the training")
    return f"{' and '.join(SPLITS)}, {' and '.join(WORLDS)} world"


@check(
    "The evaluator scores pairs in chunks: return every field of the text features that has a row for each pair in "
    "by_pair, or set chunkable = False.",
    the_evaluator_gives_the_scores_of_the_images,
)
def the_evaluator_may_choose_its_chunks(trial: MethodTrial) -> str:
    """The scores do not depend on the memory, the number of images and the number of pairs at a time."""
    method = trial.perturbed
    if method.streams:
        raise CheckSkipped("the method declares streams = True, and gets one image after the other")
    _, wide = evaluated(trial, method, "test")
    images = 2 if method.independent else BATCH_SIZE
    pairs, texts = (3, 5) if method.chunkable else (10**6, 10**6)
    _, narrow = evaluated(trial, method, "test", chunks=Chunks(images, pairs, texts))
    _, tight = _tight(trial, method)
    for world in WORLDS:
        for scores in (narrow[world], tight[world]):
            equal_or_fail(
                scores,
                wide[world],
                f"scores in the {world} world do not depend on chunks",
                "Compute the score of an image and a pair from these two alone, or set chunkable = False or "
                "self.independent = False",
            )
    return f"{images} images and {pairs if method.chunkable else 'all'} pairs at a time, and a tight memory"


@check(_REMEDY, the_method_can_be_built, *_NEEDED)
def a_second_evaluation_is_equal(trial: MethodTrial) -> str:
    """A second evaluation of the same method gives the same scores."""
    _, first = evaluated(trial, trial.perturbed, "test")
    _, second = evaluated(trial, trial.perturbed, "test")
    for world in WORLDS:
        equal_or_fail(
            second[world],
            first[world],
            f"a second evaluation in the {world} world is equal",
            "Use randomness only if self.training is true. A method with streams = True forgets in begin everything "
            "that it learned from images, and keeps nothing in its class or module",
        )
    return "2 passes over the test split"


def _check_split(trial: MethodTrial, method: Method, split: Literal["val", "test"], when: str) -> None:
    """Check that the evaluator has the scores that ``rank`` gives for the images of a split."""
    if method.streams:
        raise CheckSkipped("the method declares streams = True")
    evaluation, found = evaluated(trial, method, split)
    feed = trial.job("built").machine.feed(method, getattr(trial.data, split), BATCH_SIZE)
    size = evaluation.chunks.images
    images = feed.sample(len(feed.split)).images
    assert isinstance(images, Tensor)
    for world, task in evaluation.tasks.items():
        with torch.no_grad():
            text = method.text_in(task.setting.world, task.pairs)
            parts = [method.rank(part, text, task.setting) for part in images.split(size)]
        equal_or_fail(
            found[world],
            finite_scores(method, torch.cat(parts)),
            f"{when}, the evaluator has the scores of the images on {split} in the {world} world",
            "Cached features differ from encoded images: compute everything of an image in encode from its pixels and "
            "from parameters, use no state that training changes, or set caches_features = False",
        )


def _tight(trial: MethodTrial, method: Method) -> tuple[Evaluation, dict[str, Tensor]]:
    """Return the evaluation on the test split in the smallest power of two of bytes that it fits into."""
    memory = 2**26
    found = evaluated(trial, method, "test", memory=memory)
    while True:
        memory //= 4
        try:
            found = evaluated(trial, method, "test", memory=memory)
        except ConfigError:
            return found


EVALUATION_CHECKS: tuple[Check[MethodTrial], ...] = (
    the_evaluator_gives_the_scores_of_the_images,
    the_evaluator_may_choose_its_chunks,
    a_second_evaluation_is_equal,
)
