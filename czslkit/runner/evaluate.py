"""The evaluation of a trained method on the test split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import distributed
from ..errors import DataError
from ..evaluation import details
from ..evaluation.evaluator import Evaluation, OpenWorld, searched_threshold
from ..evaluation.feasibility_source import method_feasibility
from ..evaluation.validation import best_bias
from ..metrics import predictions
from ..metrics.sweep import Sweep
from ..prediction import Calibration
from ..training.loop import Training
from ..types import Setting
from .job import Job
from .plan import Spec
from .prepare import Prepared, evaluation_feed, plan_test, world_failure
from .recipes import load_recipe, recipes
from .record import FeasibilityThreshold, Results, method_record, metrics_record, protocol_record, threshold_summary
from .staleness import needs_feasibility


@dataclass(frozen=True, eq=False)
class Measured:
    """The scores of a method in each world, reduced to what the metrics need."""

    sweeps: Mapping[str, Sweep]
    threshold: FeasibilityThreshold | None  # threshold of the open world; None without one
    failed: Results  # failures of the other worlds


def evaluate(job: Job, prepared: Prepared) -> Measured:
    """Score the test split in every world of ``prepared``; if the settings ask for it, search the threshold first.

    Raises:
        DataError: images cannot be read.
    """
    data, worlds, threshold = prepared.data, list(prepared.worlds), None
    sweeps: dict[str, Sweep] = {}
    failed: Results = {}
    if "open" in worlds:
        try:
            threshold = choose_threshold(job, prepared)
        except DataError:
            raise
        except Exception as error:  # the closed world does not need it
            failed["open"] = world_failure(job, "open", error)
            worlds.remove("open")
    infeasible = job.spec.evaluation.infeasible
    open_world = OpenWorld(threshold.scores.values, [threshold.value], infeasible) if threshold else None
    feed = evaluation_feed(job, prepared.method, data.test)
    groups = [worlds] if worlds else []
    for group in groups:
        try:
            sweeps |= plan_test(job, feed, data, group, open_world).run()
        except DataError:
            raise
        except Exception as error:
            if len(group) > 1:  # each world may fit into memory, or only one of them may fail
                distributed.agree(error)
                groups += [[world] for world in group]
            else:
                failed[group[0]] = world_failure(job, group[0], error)
    return Measured(sweeps, threshold, failed)


def choose_threshold(job: Job, prepared: Prepared) -> FeasibilityThreshold | None:
    """Return the threshold of the settings, or the best one on the validation split; None without feasibility.

    Raises:
        ConfigError: the feasibility of the trained method cannot be used.
    """
    evaluation, scores = job.spec.evaluation, prepared.feasibility
    if evaluation.feasibility == "method" and needs_feasibility(job.spec, "open"):
        scores = method_feasibility(prepared.method)
    if scores is None:
        return None
    if isinstance(evaluation.threshold, (int, float)):
        return FeasibilityThreshold(evaluation.threshold, "published" if _is_published(job.spec) else "given", scores)
    found = searched_threshold(
        prepared.method,
        prepared.data,
        scores.values,
        evaluation_feed(job, prepared.method, prepared.data.val),
        bins=evaluation.bins,
        infeasible=evaluation.infeasible,
        memory=job.machine.memory,
        stream_seed=evaluation.stream_seed,
    )
    return FeasibilityThreshold(found.value, "searched on validation", scores, found.bias)


def calibration(
    job: Job, prepared: Prepared, training: Training, threshold: FeasibilityThreshold | None
) -> Calibration:
    """Return what the validation split chose for predictions, as far as training and evaluation have computed it.

    If a method ranks pairs in another way in a test, a bias of its validation does not fit, and the validation images
    are scored again as in a test. One that ``streams`` keeps that of its validation: each of its passes has a state.
    """
    kept = training.history[training.best_epoch - 1] if training.best_epoch and training.history else {}
    biases: dict[str, Any] = {job.spec.train.select_world: kept.get("val_bias")}
    for world in kept and sorted({*biases, *prepared.worlds}):
        searched = world == "open" and threshold and threshold.bias is not None
        if not searched and not prepared.method.streams and not _is_ranked_alike(prepared, world):
            biases[world] = _bias_in_tests(job, prepared, world, threshold)
    feasible = None
    if threshold:
        biases |= {"open": threshold.bias} if threshold.bias is not None else {}
        feasible = threshold.scores.values >= torch.tensor(threshold.value)
        if job.spec.evaluation.infeasible == "original":  # predictions exclude these pairs, so the bias would not fit
            biases.pop("open", None)
    known = {world: bias for world, bias in biases.items() if bias is not None and math.isfinite(bias)}
    return Calibration(known, feasible)


@torch.no_grad()
def _is_ranked_alike(prepared: Prepared, world: str) -> bool:
    """Return whether a method has the same scores in validation and test, measured with random images and few pairs."""
    method, pairs = prepared.method.eval(), prepared.data.space.pairs
    side, generator = method.backbone.image_size, torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, side, side, generator=generator).to(method.device)
    text = method.text(pairs[: 64 if method.chunkable else None].to(method.device))
    columns = len(pairs if world == "closed" else prepared.data.space.open().pairs)
    scores = [method.rank(images, text, Setting(split, world, columns)) for split in ("val", "test")]
    return torch.equal(*scores)


def _bias_in_tests(job: Job, prepared: Prepared, world: str, threshold: FeasibilityThreshold | None) -> float | None:
    """Return the best bias on the validation split with the scores of a test; None if no harmonic mean exceeds 0."""
    method, data, settings = prepared.method, prepared.data, job.spec.evaluation
    rule = OpenWorld(threshold.scores.values, [threshold.value]) if threshold and world == "open" else None
    feed = evaluation_feed(job, method, data.val)
    plan = Evaluation.plan(
        method, data, "val", [world], feed, open_world=rule, memory=job.machine.memory, stream_seed=settings.stream_seed
    )
    task = plan.tasks[world]
    task = replace(task, setting=replace(task.setting, split="test"))
    return best_bias(replace(plan, tasks={world: task}).run()[world].compute_all(settings.bins)[0])


def measured_records(job: Job, prepared: Prepared, measured: Measured) -> tuple[Results, Results]:
    """Return metrics and protocol of each world, and the failures of worlds for which this is not possible.

    The attached files that tables and reports read are written.
    """
    found: Results = {}
    failed: Results = {}
    for world, sweep in measured.sweeps.items():
        try:
            found[world] = _measured_record(job, prepared, sweep, world, measured.threshold)
        except Exception as error:
            failed[world] = world_failure(job, world, error)
    return found, failed


def _measured_record(
    job: Job, prepared: Prepared, sweep: Sweep, world: str, threshold: FeasibilityThreshold | None
) -> dict[str, Any]:
    """Return metrics and protocol of a world, and write its attached files."""
    spec, space, bins = job.spec, prepared.data.space, job.spec.evaluation.bins
    digests = job.source.digests(spec.dataset)
    split_files = {name: digest for name, digest in digests.items() if name != "images"}
    protocol = {
        "split_files": split_files,
        **protocol_record(sweep, world, spec, prepared.data, threshold),
        **method_record(prepared.method, spec),
    }
    contents = details.detail_files(sweep, space, bins)
    contents[predictions.FILE] = details.predictions(sweep, prepared.data, bins).to_bytes()
    files = job.store.attach(spec.cell(world), contents)
    if world == "open" and threshold:
        job.log(threshold_summary(protocol))
    return {"metrics": metrics_record(sweep, bins), "protocol": protocol, "files": files}


def _is_published(spec: Spec) -> bool:
    """Return whether a recipe of the method for the dataset has this threshold, and the feasibility is published."""
    if spec.dataset == "demo" or spec.evaluation.feasibility != "file":
        return False
    found = (load_recipe(path)["eval"].get("threshold") for path in recipes(spec.dataset, spec.method))
    return spec.evaluation.threshold in found
