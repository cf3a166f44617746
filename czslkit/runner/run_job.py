"""The steps of a job: find finished results, prepare, train, evaluate, record."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import CzslkitError, DataError
from ..evaluation.evaluator import Evaluation
from ..files import file_lock
from ..metrics.names import WORLDS
from ..provenance import distributions, environment
from ..sizes import format_duration
from . import forecast
from .evaluate import evaluate, measured_records
from .job import Job
from .prepare import (
    build_method,
    evaluation_feed,
    find_feasibility,
    planned_evaluations,
    prepare,
    selection_candidates,
)
from .record import failure, now
from .staleness import (
    evaluation_changes,
    evaluation_dependencies,
    needs_feasibility,
    training_changes,
    training_dependencies,
    training_key,
)
from .train import classes_of, stored_key, train_method, training_folder

TRACEBACK_FILE = "error.txt"  # file of a failed result that has the traceback
Results = dict[str, dict[str, Any]]  # by world


def run_job(job: Job) -> list[dict[str, Any]]:
    """Return the result of every world: the stored one if it is usable, otherwise a new one, which is stored.

    An error is stored as the result of each world that it stopped.

    Raises:
        DataError: the dataset cannot be read; no finished result has been replaced.
    """
    spec = job.spec
    folder = job.store.folder(spec.cell("closed"))
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / ".lock", job.log):
        stored = usable_results(job)
        results = dict(stored.usable)
        missing = [world for world in spec.worlds if world not in results]
        if missing:
            job.log("running")
            try:
                new = make_results(job, missing, stored)
            except DataError:
                raise
            except Exception as error:
                job.log(f"failed: {type(error).__name__}: {error}")
                new = {world: failure(error) for world in missing}
            results |= store_results(job, new)
        else:
            job.log("done before")
    return [results[world] for world in spec.worlds]


@dataclass(frozen=True)
class Stored:
    """The stored results of a job, as far as they can be used."""

    usable: Results  # finished results that need not be made again
    same_keys: frozenset[str]  # keys of trainings on disk that are not stale
    kept_training: Mapping[str, Any] | None  # with ``keep_stale``: a result whose training is stale but is used


def finished_results(job: Job) -> Results:
    """Return the stored results of both worlds that have numbers, stale or not."""
    found: Results = {}
    for world in WORLDS:
        try:
            result = job.store.get(job.spec.cell(world))
        except (CzslkitError, OSError) as error:  # not a result: it is renamed when the new result is stored
            job.log(str(error))
            continue
        if result and result["status"] == "done":
            found[world] = result
    return found


def usable_results(job: Job) -> Stored:
    """Find the finished results that can be used again, and the trainings on disk that can.

    With ``keep_stale``, stale results are usable, too; their ``stale`` entry has the reason.
    """
    spec, finished = job.spec, finished_results(job)
    usable: Results = {}
    same_keys, kept_training = set(), None
    data = job.source.digests(spec.dataset)
    asked = [world for world in spec.worlds if world in finished]
    selects = spec.selection_threshold is not None
    needs_splits = selects or any(needs_feasibility(spec, world) for world in asked)
    splits = job.source.load(spec.dataset) if finished and needs_splits else None
    for world, result in finished.items():
        trained = training_changes(result, spec, data, splits)
        if not trained:
            same_keys.add(result["training_key"])
        elif job.keep_stale and stored_key(training_folder(job)) == result["training_key"]:
            kept_training = {**result, "stale": trained}
        if world not in asked:
            continue
        reason = "; ".join(filter(None, (trained, evaluation_changes(result, spec, splits))))
        if reason and not job.keep_stale:
            job.log(f"{world} world stale because {reason}")
            continue
        if reason:
            job.log(f"{world} world kept although it is stale because {reason}")
        usable[world] = _refreshed(job, result, reason)
    return Stored(usable, frozenset(same_keys), kept_training)


def make_results(job: Job, worlds: Sequence[str], stored: Stored) -> Results:
    """Train and evaluate; return the contents of the new results, which are not stored yet.

    Args:
        worlds: the worlds that have no usable result.
        stored: the trainings on disk that can be used. The results of a stale training say that they are stale.
    """
    prepared = prepare(job, worlds)
    failed = {world: dict(result) for world, result in prepared.failed.items()}
    if not prepared.worlds:
        return failed
    dependencies = training_dependencies(
        job.spec, job.source.digests(job.spec.dataset), classes_of(job, prepared), prepared.data
    )
    key, stale = training_key(job.spec, dependencies), {}
    if kept := stored.kept_training:
        dependencies, key, stale = kept["depends"]["training"], kept["training_key"], {"stale": kept["stale"]}
    training = train_method(job, prepared, key, stored.same_keys)
    start = time.monotonic()
    measured = measured_records(job, prepared, evaluate(job, prepared))
    method = prepared.method
    common = {
        "status": "done",
        "error": None,
        "training": asdict(training),
        "training_key": key,
        "timing": {"train_s": training.seconds, "eval_s": time.monotonic() - start},
        "versions": environment(str(method.device)),
        "components": distributions(type(module) for module in method.modules()),
        "finished": now(),
        **stale,
    }
    done: Results = {}
    for world, found in measured.items():
        evaluation = evaluation_dependencies(job.spec, world, prepared.data)
        done[world] = {**common, "depends": {"training": dependencies, "evaluation": evaluation}, **found}
    return done | failed


def store_results(job: Job, contents: Mapping[str, Mapping[str, Any]]) -> Results:
    """Store the results of some worlds and return them; a result that cannot be stored becomes a failure.

    The traceback of a failure is written to ``<world>.error.txt``.
    """
    results: Results = {}
    for world, content in contents.items():
        identity = {"cell": job.spec.cell(world), "config": job.spec.config, "depends": {}}
        result = {**identity, **job.spec.recipe_info(world), **content}
        try:
            job.store.put(result)
            _write_traceback(job, result)
        except OSError as error:
            results[world] = {**result, **failure(error)}
        else:
            results[world] = job.store.get(result["cell"]) or result
    return results


def _write_traceback(job: Job, result: Mapping[str, Any]) -> None:
    """Write the traceback of a failed result to a file and log where it is; remove the file of a finished result."""
    cell = result["cell"]
    file = job.store.path(cell).with_suffix(f".{TRACEBACK_FILE}")
    if result["status"] != "failed":
        file.unlink(missing_ok=True)
        return
    text = result["error"]["traceback"]
    job.store.attach(cell, {TRACEBACK_FILE: text.encode()})
    job.log(text if job.verbose else f"the traceback of the {cell['world']} world is in {file}")


def record_failure(job: Job, error: Exception) -> list[dict[str, Any]]:
    """Keep the finished results of a job that cannot run, and store ``error`` for its other worlds."""
    results = {world: result for world, result in finished_results(job).items() if world in job.spec.worlds}
    job.log(f"{error}" + (f"\nfinished results are kept: {', '.join(results)}" if results else ""))
    results |= store_results(job, {world: failure(error) for world in job.spec.worlds if world not in results})
    return [results[world] for world in job.spec.worlds]


def failed_results(job: Job, error: Exception) -> list[dict[str, Any]]:
    """Return a failed result with ``error`` for every world, without storing it."""
    failed = failure(error)
    job.log(failed["error"]["traceback"] if job.verbose else str(error))
    return [{"cell": job.spec.cell(world), **failed} for world in job.spec.worlds]


def estimate(job: Job) -> None:
    """Log the time and memory that ``run`` would take; nothing is trained or evaluated.

    Raises:
        CzslkitError: the dataset cannot be read, or an evaluation does not fit into memory.
    """
    usable = usable_results(job).usable
    worlds = [world for world in job.spec.worlds if world not in usable]
    if not worlds:
        job.log("done before")
        return
    data, options = job.source.load(job.spec.dataset), job.spec.train
    method = build_method(job, data)
    feasibility = None
    if job.spec.selection_threshold is not None or any(needs_feasibility(job.spec, world) for world in worlds):
        feasibility = find_feasibility(job, method, data)
    for world in worlds:
        for purpose, evaluation in planned_evaluations(job, method, data, world, feasibility):
            job.log(f"{purpose}, about: {forecast.evaluation(evaluation)}")
    if method.trains and options.epochs:
        feed = evaluation_feed(job, method, data.val)
        rule, memory = selection_candidates(job.spec, feasibility), job.machine.memory
        planned = Evaluation.plan(method, data, "val", [options.select_world], feed, open_world=rule, memory=memory)
        validation = forecast.evaluation(planned)
        seconds = forecast.training(method, data, options, validation, job.machine.workers)
        unmeasured = " without validation" if validation.seconds is None else ""
        job.log(f"training of {options.epochs} epochs{unmeasured}, about: {format_duration(seconds)}")


def _refreshed(job: Job, result: dict[str, Any], stale: str) -> dict[str, Any]:
    """Return a result with the recipe of this job, and store it if the recipe has changed.

    The recipe is no part of the configuration, so the same cell may have been run without it.

    Args:
        stale: why the result is stale; empty if it is not.
    """
    kept = {key: value for key, value in result.items() if key not in ("recipe", "published", "stale")}
    refreshed = {**kept, **job.spec.recipe_info(result["cell"]["world"])} | ({"stale": stale} if stale else {})
    if refreshed != result:
        job.store.put(refreshed)
    return refreshed
