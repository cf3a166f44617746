"""The preparation of a job: its method, its data, and the worlds that can be evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .. import distributed
from ..data.batches import Feed
from ..data.splits import Split, Splits
from ..errors import ConfigError, CzslkitError, PluginError
from ..evaluation import details
from ..evaluation.evaluator import Evaluation, OpenWorld, plan_search
from ..evaluation.feasibility_source import FeasibilityScores, load_feasibility
from ..feasibility_files import published_files
from ..learned_state import frozen_fingerprint
from ..method import Method, build
from ..options import as_dict
from ..provenance import backbone_digest
from . import forecast
from .job import Job
from .plan import Spec
from .record import Results, failure
from .staleness import needs_feasibility


@dataclass(frozen=True, eq=False)
class Prepared:
    """A method before its training, its data, and the worlds in which it will be evaluated."""

    method: Method  # as it is before training, on the machine's device
    data: Splits
    worlds: tuple[str, ...]  # the worlds that can be evaluated
    feasibility: FeasibilityScores | None  # scores for the open world; None without, or if the trained method has them
    failed: Results  # failures of the other worlds


def prepare(job: Job, worlds: Sequence[str]) -> Prepared:
    """Build the method, check every image, and select the worlds whose evaluation fits into the memory.

    Raises:
        DataError: images cannot be read, or the backbone's weight file is missing.
        CzslkitError: the method cannot be built.
    """
    if job.spec.backbone:
        backbone_digest(job.spec.backbone)  # raises an error if the weight file is missing
    data = job.source.load(job.spec.dataset)
    for missing in (*data.left_out, data.set_aside):
        if missing:
            job.log(str(missing))
    method = build_method(job, data)
    _log_undefined(job, method, data)
    distributed.first(lambda: job.source.check_images(job.spec.dataset, method.backbone.preprocessing))
    failed: Results = {}
    feasibility = None
    selects = job.spec.selection_threshold is not None
    if selects or any(needs_feasibility(job.spec, world) for world in worlds):
        try:
            feasibility = find_feasibility(job, method, data)
        except Exception as error:  # the closed world does not need it, unless it selects the epoch
            if selects:
                raise
            failed["open"] = world_failure(job, "open", error)
    for world in worlds:
        if world not in failed:
            try:
                _check_memory(job, method, data, world, feasibility, show="open" in worlds)
            except Exception as error:
                failed[world] = world_failure(job, world, error)
    return Prepared(method, data, tuple(world for world in worlds if world not in failed), feasibility, failed)


def _log_undefined(job: Job, method: Method, data: Splits) -> None:
    """Log which numbers are undefined because a split has no images of seen, or of unseen, pairs."""
    if method.trains and (reason := job.spec.undefined_criterion(data)):
        job.log(
            f"{reason}, so the validation AUC is undefined: the epoch with the highest validation accuracy is kept. "
            "Set train.select to loss or last for another criterion"
        )
    if reason := data.undefined_auc("test"):
        share = "all" if "unseen" in reason and job.spec.evaluation.bins == "original" else "some"
        job.log(f"{reason}: {share} of S, U, H and AUC are undefined, and the table has a dash for them")


def world_failure(job: Job, world: str, error: Exception) -> dict[str, Any]:
    """Log that a world cannot be evaluated, which all processes find; return the content of its failed result."""
    distributed.agree(error)
    kind = "" if isinstance(error, CzslkitError) else f"{type(error).__name__}: "
    job.log(f"{world} world failed: {kind}{error}")
    return failure(error)


def build_method(job: Job, data: Splits) -> Method:
    """Build the method of a job as it is before training, on the machine's device."""
    spec = job.spec
    torch.manual_seed(spec.seed)
    method = build(spec.method, data.space, **as_dict(spec.options))
    if spec.checkpoint is None:
        before = frozen_fingerprint(method)
        method.prepare(data.training_data())
        if changed := [name for name, value in frozen_fingerprint(method).items() if before.get(name) != value]:
            raise PluginError(
                f"{spec.method}: prepare changed frozen parameters, but they are not saved: {', '.join(changed)}. "
                "Register such tensors as buffers, or list them in parameter_groups()"
            )
    else:
        spec.checkpoint.load_into(method)
    return method.to(job.machine.torch_device())


def evaluation_feed(job: Job, method: Method, split: Split) -> Feed:
    """Return the batches of a split for evaluation."""
    evaluation = job.spec.evaluation
    batch_size = evaluation.batch_size or job.spec.train.batch_size
    return job.machine.feed(method, split, batch_size, precision=evaluation.precision)


def find_feasibility(job: Job, method: Method, data: Splits) -> FeasibilityScores | None:
    """Return the feasibility scores of the open world that are known before the training.

    If the published file is missing, log this and return None.

    Raises:
        DataError: a file cannot be used.
        ConfigError: the backbone or the method does not have the feasibility that the settings ask for, or the
            threshold cannot be searched on the validation split.
    """
    evaluation = job.spec.evaluation
    if evaluation.threshold == "search" and (reason := data.undefined_auc("val")):
        raise ConfigError(
            [
                f"eval.threshold is 'search', but {reason}, so the validation AUC that selects the threshold is "
                "undefined: set eval.threshold to a number, or to null for no threshold"
            ]
        )
    if evaluation.feasibility == "method":
        if type(method).feasibility is Method.feasibility:
            method.feasibility()  # raises its error now, not after the training
        return None
    found = load_feasibility(evaluation.feasibility, data, method.backbone)
    if found is None:
        files = published_files(data.name, data.root)
        names, folders = dict.fromkeys(f.name for f in files), dict.fromkeys(str(f.parent) for f in files)
        job.log(
            f"NO FEASIBILITY THRESHOLD in the open world, though threshold is {evaluation.threshold}: there is no "
            f"{' or '.join(names)} in {' or '.join(folders)}. Put the published file there, or set "
            "eval.feasibility to clip or to the path of feasibility scores or of word vectors"
        )
    return found


def planned_evaluations(
    job: Job, method: Method, data: Splits, world: str, feasibility: FeasibilityScores | None
) -> Iterator[tuple[str, Evaluation]]:
    """Yield each evaluation of a world with its name for log lines.

    If the threshold or the feasibility is known only after the training, the test is planned with every pair as a
    candidate.

    Raises:
        ConfigError: the machine's memory is too little.
    """
    evaluation, memory = job.spec.evaluation, job.machine.memory
    threshold, infeasible = evaluation.threshold, evaluation.infeasible
    purpose, open_world = f"test, {world} world", None
    values = feasibility.values if feasibility else None
    if later := needs_feasibility(job.spec, world) and evaluation.feasibility == "method":
        values = torch.linspace(-1, 1, len(data.space.attrs) * len(data.space.objs))
    if world == "open" and values is not None and threshold == "search":
        feed = evaluation_feed(job, method, data.val)
        yield "threshold search", plan_search(method, data, values, feed, infeasible=infeasible, memory=memory)
        later = True
    elif world == "open" and feasibility and isinstance(threshold, (int, float)):
        open_world = OpenWorld(feasibility.values, [threshold], infeasible)
    feed = evaluation_feed(job, method, data.test)
    yield purpose + (", at most" if later else ""), plan_test(job, feed, data, [world], open_world)


def plan_test(job: Job, feed: Feed, data: Splits, worlds: Sequence[str], open_world: OpenWorld | None) -> Evaluation:
    """Plan the evaluation of a job on the test split, whose batches are ``feed``; see :meth:`Evaluation.plan`."""
    keep = max(details.TOP_K)
    return Evaluation.plan(
        feed.method,
        data,
        "test",
        worlds,
        feed,
        open_world=open_world,
        keep=keep,
        memory=job.machine.memory,
        stream_seed=job.spec.evaluation.stream_seed,
    )


def selection_candidates(spec: Spec, feasibility: FeasibilityScores | None) -> OpenWorld | None:
    """Return the rule for candidates in the open world that selects the epoch; None if every pair is a candidate."""
    threshold = spec.selection_threshold
    if threshold is None or feasibility is None:
        return None
    return OpenWorld(feasibility.values, [threshold], spec.evaluation.infeasible)


def _check_memory(
    job: Job, method: Method, data: Splits, world: str, feasibility: FeasibilityScores | None, *, show: bool
) -> None:
    """Check that the evaluations of a world fit into memory; with ``show``, log their time and memory.

    Raises:
        ConfigError: they do not fit.
    """
    for purpose, evaluation in planned_evaluations(job, method, data, world, feasibility):
        if show:
            job.log(f"{purpose}, about: {distributed.first(partial(forecast.evaluation, evaluation))}")
