"""The evaluation of a trained method on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..evaluation import details
from ..evaluation.evaluator import OpenWorld, searched_threshold
from ..evaluation.feasibility_source import method_feasibility
from ..metrics.sweep import Sweep
from .job import Job
from .plan import Spec
from .prepare import Prepared, evaluation_feed, plan_test
from .recipes import load_recipe, recipes
from .record import FeasibilityThreshold, method_record, metrics_record, protocol_record, threshold_summary
from .staleness import needs_feasibility


@dataclass(frozen=True, eq=False)
class Measured:
    """The scores of a method in each world, reduced to what the metrics need."""

    sweeps: Mapping[str, Sweep]
    threshold: FeasibilityThreshold | None  # threshold of the open world; None without one


def evaluate(job: Job, prepared: Prepared) -> Measured:
    """Score the test split in every world of ``prepared``; if the settings ask for it, search the threshold first."""
    method, data, worlds = prepared.method, prepared.data, prepared.worlds
    threshold = choose_threshold(job, prepared) if "open" in worlds else None
    infeasible = job.spec.evaluation.infeasible
    open_world = OpenWorld(threshold.scores.values, [threshold.value], infeasible) if threshold else None
    try:
        sweeps = plan_test(job, method, data, worlds, open_world).run()
    except ConfigError:  # the worlds fit into memory one by one, not together
        sweeps = {world: plan_test(job, method, data, [world], open_world).run()[world] for world in worlds}
    return Measured(sweeps, threshold)


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
    threshold = searched_threshold(
        prepared.method,
        prepared.data,
        scores.values,
        evaluation_feed(job, prepared.method, prepared.data.val),
        bins=evaluation.bins,
        infeasible=evaluation.infeasible,
        memory=job.machine.memory,
        stream_seed=evaluation.stream_seed,
    )
    return FeasibilityThreshold(threshold, "searched on validation", scores)


def measured_records(job: Job, prepared: Prepared, measured: Measured) -> dict[str, dict[str, Any]]:
    """Return metrics and protocol of each world, and write the attached files that tables and reports read."""
    spec, space, bins = job.spec, prepared.data.space, job.spec.evaluation.bins
    digests = job.source.digests(spec.dataset)
    split_files = {name: digest for name, digest in digests.items() if name != "images"}
    found: dict[str, dict[str, Any]] = {}
    for world, sweep in measured.sweeps.items():
        protocol = {
            "split_files": split_files,
            **protocol_record(sweep, world, spec, space, measured.threshold),
            **method_record(prepared.method, spec),
        }
        files = job.store.attach(spec.cell(world), details.detail_files(sweep, space, bins))
        found[world] = {"metrics": metrics_record(sweep, bins), "protocol": protocol, "files": files}
        if world == "open" and measured.threshold:
            job.log(threshold_summary(protocol))
    return found


def _is_published(spec: Spec) -> bool:
    """Return whether a recipe of the method for the dataset has this threshold, and the feasibility is published."""
    if spec.dataset == "demo" or spec.evaluation.feasibility != "file":
        return False
    found = (load_recipe(path)["eval"].get("threshold") for path in recipes(spec.dataset, spec.method))
    return spec.evaluation.threshold in found
