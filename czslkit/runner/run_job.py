"""The steps of a job: find finished results, prepare, train, evaluate, record."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..checkpoints.calibration import write_calibration
from ..checkpoints.trained import is_intact
from ..data.splits import Splits
from ..errors import CzslkitError, DataError, PluginError, TrainingError, without_middle
from ..evaluation.evaluator import Evaluation
from ..files import file_lock, remove_unfinished
from ..method import Method
from ..metrics.names import WORLDS
from ..provenance import distributions, environment
from ..result_store import REMEDY, unused_path
from ..sizes import counted
from ..torchrun import process_count
from ..training.loop import Training
from ..training.state import state_key
from ..training.watch import Watch
from . import forecast
from .evaluate import Measured, calibration, evaluate, measured_records
from .job import Job
from .prepare import (
    Prepared,
    build_method,
    evaluation_feed,
    find_feasibility,
    planned_evaluations,
    prepare,
    selection_candidates,
)
from .ranks import leading
from .record import Results, failure, now
from .staleness import (
    evaluation_changes,
    evaluation_dependencies,
    needs_feasibility,
    selection_needs_data,
    training_changes,
    training_dependencies,
    training_key,
)
from .train import classes_of, is_trained, stored_keys, train_method, training_folder
from .training_forecast import training
from .watching import watched

TRACEBACK_FILE = "error.txt"  # file of a failed result that has the traceback
_LONGEST_TEXT = 100_000  # characters of a message and of a traceback in a result


def run_job(job: Job) -> list[dict[str, Any]]:
    """Return the result of every world: the stored one if it is usable, otherwise a new one, which is stored.

    An error is stored as the result of each world that it stopped. What killed processes left unfinished in the folder
    of the job is removed.

    Raises:
        LockedError: another process runs the job.
        LockError: the folder of the job cannot be locked.
        DataError: the dataset cannot be read; no finished result has been replaced.
    """
    spec = job.spec
    folder = job.store.folder(spec.cell("closed"))
    with file_lock(folder / ".lock", job.log, wait=False):
        remove_unfinished(folder, locked=True)
        stored = usable_results(job)
        results = dict(stored.usable)
        for result in results.values():
            if result != job.store.get(result["cell"]):
                job.store.put(result)
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
            job.log("done before" + _repaired_training(job, results))
    return [results[world] for world in spec.worlds]


def _repaired_training(job: Job, results: Results) -> str:
    """Write a trained method that is lost or damaged again from its training state; return what to add to the log.

    Nothing is trained or evaluated. A trained method that belongs to stale results is not written again.
    """
    folder, spec = training_folder(job), job.spec
    if spec.checkpoint is not None or is_intact(folder):
        return ""
    key = next((result["training_key"] for result in results.values() if "stale" not in result), None)
    prepared = prepare(job, ())
    trains = prepared.method.trains and spec.train.epochs
    if key is None or (trains and state_key(folder, {key}, prepared.method) is None):
        return f", but its trained weights are gone: remove {folder.parent} to train the method again"
    train_method(job, prepared, key, {})
    return f", and its trained method is written again to {folder}"


@dataclass(frozen=True)
class Stored:
    """The stored results of a job, as far as they can be used."""

    usable: Results  # finished results that need not be made again
    same_trainings: Mapping[str, Any]  # records of the same training in other results, by its key in the result
    kept_training: Mapping[str, Any] | None  # with ``keep_stale``: a result whose training is stale but is used


def finished_results(job: Job) -> Results:
    """Return the stored results of both worlds that have numbers, stale or not."""
    found: Results = {}
    for world in WORLDS:
        try:
            result = job.store.get(job.spec.cell(world))
        except (CzslkitError, OSError) as error:  # not a result: it is renamed when the new result is stored
            job.log(_made_again(job, world, error) if world in job.spec.worlds else str(error))
            continue
        if result and result["status"] == "done":
            found[world] = result
    return found


def _made_again(job: Job, world: str, error: Exception) -> str:
    """Return the error of a file that is not a result, with what happens to it in place of what a user can do."""
    kept = unused_path(job.store.path(job.spec.cell(world)), ".stale").name
    return f"{str(error).removesuffix(REMEDY)} This result is made again, and the old file is kept as {kept}"


def usable_results(job: Job) -> Stored:
    """Find the finished results that can be used again, and the trainings on disk that can. Nothing is written.

    With ``keep_stale``, stale results are usable, too; their ``stale`` entry has the reason.
    """
    spec, finished = job.spec, finished_results(job)
    usable: Results = {}
    kept_training = None
    data = job.source.digests(spec.dataset)
    asked = [world for world in spec.worlds if world in finished]
    selects = any(selection_needs_data(result, spec) for result in job.store.of_all_settings(spec.cell("closed")))
    needs_splits = selects or any(needs_feasibility(spec, world) for world in asked)
    splits = job.source.load(spec.dataset) if needs_splits else None
    for world, result in finished.items():
        trained = training_changes(result, spec, data, splits)
        if trained and job.keep_stale and result["training_key"] in stored_keys(training_folder(job)):
            kept_training = {**result, "stale": trained}
        if world not in asked:
            continue
        damaged = ", ".join(
            f"{world}.{name} was changed after it was written" for name in job.store.changed_files(result)
        )
        reason = "; ".join(filter(None, (trained, evaluation_changes(result, spec, splits), damaged)))
        if reason and not job.keep_stale:
            job.log(f"{world} world stale because {reason}")
            continue
        if reason:
            job.log(f"{world} world kept although it is stale because {reason}")
        usable[world] = _refreshed(job, result, reason)
    return Stored(usable, same_trainings(job, data, splits), kept_training)


def same_trainings(job: Job, data: Mapping[str, str], splits: Splits | None) -> dict[str, Any]:
    """Return the records of trainings that are the same as the job's, by their keys in the results.

    A training can have several keys: the key depends on which dependencies a version of czslkit records.

    Args:
        data: digests of the dataset's files.
        splits: the dataset; needed only if :func:`selection_needs_data`.
    """
    same: dict[str, Any] = {}
    changed: set[str] = set()  # one result of a training may record more dependencies than another one
    for result in job.store.of_all_settings(job.spec.cell("closed")):
        if result["status"] == "done" and job.spec.training_settings(result["config"]) == job.spec.training_config:
            if training_changes(result, job.spec, data, splits):
                changed.add(result["training_key"])
            else:
                same[result["training_key"]] = result["training"]
    return {key: training for key, training in same.items() if key not in changed}


def make_results(job: Job, worlds: Sequence[str], stored: Stored) -> Results:
    """Train and evaluate; return the contents of the new results, which are not stored yet. Loggers receive the values.

    Args:
        worlds: the worlds that have no usable result.
        stored: the trainings on disk that can be used. The results of a stale training say that they are stale.
    """
    with watched(job) as watch:
        results = _watched_results(job, worlds, stored, watch)
        done = {world: result for world, result in results.items() if result["status"] == "done"}
        for world, result in done.items():
            watch.results(world, result["metrics"], result["training"]["steps"], job.machine.torch_device())
        if len(done) < len(results):
            watch.finish("failed")
    return results


def _watched_results(job: Job, worlds: Sequence[str], stored: Stored, watch: Watch) -> Results:
    """Return the contents of the new results; see :func:`make_results`."""
    with leading(job, worlds):
        prepared = prepare(job, worlds)
        if not prepared.worlds:
            return dict(prepared.failed)
        method, digests = prepared.method, job.source.digests(job.spec.dataset)
        dependencies = training_dependencies(job.spec, digests, classes_of(job, method), prepared.data)
        key, stale = training_key(job.spec, dependencies), {}
        if kept := stored.kept_training:
            dependencies, key, stale = kept["depends"]["training"], kept["training_key"], {"stale": kept["stale"]}
        training, key = train_method(job, prepared, key, stored.same_trainings, watch)
        start = time.monotonic()
        measured = evaluate(job, prepared)
    if job.spec.checkpoint is None:
        _record_calibration(job, prepared, training, measured)
    left_out = {one.split: {"images": one.images, "of": one.of} for one in prepared.data.left_out}
    set_aside = prepared.data.set_aside
    records, unrecorded = measured_records(job, prepared, measured)
    failed = {**prepared.failed, **measured.failed, **unrecorded}
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
        **({"left_out": left_out} if left_out else {}),
        **({"ranks": process_count()} if process_count() > 1 else {}),
        **({"set_aside": {"images": set_aside.images, "of": set_aside.of}} if set_aside else {}),
    }
    done: Results = {}
    for world, found in records.items():
        evaluation = evaluation_dependencies(job.spec, world, prepared.data)
        done[world] = {**common, "depends": {"training": dependencies, "evaluation": evaluation}, **found}
    return done | failed


def _record_calibration(job: Job, prepared: Prepared, training: Training, measured: Measured) -> None:
    """Write what the validation split chose for predictions next to the trained method.

    No result depends on it, so an error in the code of a method is only logged.
    """
    try:
        chosen = calibration(job, prepared, training, measured.threshold)
    except Exception as error:
        job.log(f"no bias is recorded for czslkit predict: {type(error).__name__}: {error}")
        return
    write_calibration(training_folder(job), chosen, prepared.data.space)


def store_results(job: Job, contents: Mapping[str, Mapping[str, Any]]) -> Results:
    """Store the results of some worlds and return them; a result that cannot be stored becomes a failure.

    The traceback of a failure is written to ``<world>.error.txt``. The result has no more than the start and the end
    of a long message and of a long traceback.
    """
    results: Results = {}
    for world, content in contents.items():
        identity = {"cell": job.spec.cell(world), "config": job.spec.config, "depends": {}}
        result = {**identity, **_recipe_info(job, world, content["status"]), **content}
        try:
            job.store.put(_shortened(result))
            _write_traceback(job, result)
        except OSError as error:
            results[world] = {**result, **failure(error)}
        else:
            results[world] = job.store.get(result["cell"]) or result
    return results


def _shortened(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a result in which long texts of the error lack their middle, so that it can be read again."""
    if not result["error"]:
        return result
    return {**result, "error": {name: without_middle(text, _LONGEST_TEXT) for name, text in result["error"].items()}}


def _write_traceback(job: Job, result: Mapping[str, Any]) -> None:
    """Write the traceback of a failed result to a file and log where it is; remove the file of a finished result."""
    cell = result["cell"]
    file = job.store.path(cell).with_suffix(f".{TRACEBACK_FILE}")
    if result["status"] != "failed":
        file.unlink(missing_ok=True)
        return
    text = result["error"]["traceback"]
    job.store.attach(cell, {TRACEBACK_FILE: text.encode(errors="backslashreplace")})
    job.log(text if job.verbose else f"the traceback of the {cell['world']} world is in {file}")


def record_failure(job: Job, error: Exception) -> list[dict[str, Any]]:
    """Keep the finished results of a job that cannot run, and store ``error`` for its other worlds.

    After an unexpected error it is not known whether finished results are stale. Their files stay as they are, and the
    error is returned for their worlds, too.
    """
    results = {world: result for world, result in finished_results(job).items() if world in job.spec.worlds}
    expected = isinstance(error, CzslkitError)
    message = f"{error}" if expected else f"failed: {type(error).__name__}: {error}"
    job.log(message + (f"\nfinished results are kept: {', '.join(results)}" if results else ""))
    if not expected:
        results = {world: {"cell": job.spec.cell(world), **failure(error)} for world in results}
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
    stored = usable_results(job)
    usable = stored.usable
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
    digests = job.source.digests(job.spec.dataset)
    dependencies = training_dependencies(job.spec, digests, classes_of(job, method), data)
    accepted = {training_key(job.spec, dependencies), *stored.same_trainings}
    trained = stored.kept_training or is_trained(job, accepted)
    if method.trains and options.epochs and not trained:
        feed = evaluation_feed(job, method, data.val)
        rule, memory = selection_candidates(job.spec, feasibility), job.machine.memory
        planned = Evaluation.plan(method, data, "val", [options.select_world], feed, open_world=rule, memory=memory)
        validation = forecast.evaluation(planned)
        _log_training(job, method, data, validation)


def _log_training(job: Job, method: Method, data: Splits, validation: forecast.Forecast) -> None:
    """Log the time and memory of a training, and whether it needs more memory than the machine has."""
    name = f"training of {counted(job.spec.train.epochs, 'epoch')}"
    name += " without validation" if validation.seconds is None else ""
    machine = job.machine
    try:
        found = training(method, data, job.spec.train, validation, machine.workers, machine.memory, job.log)
    except (PluginError, TrainingError) as error:
        job.log(f"{name}: {error}")
        return
    job.log(f"{name}, about: {found}")
    if found.too_large:
        job.log(found.too_large)


def _refreshed(job: Job, result: dict[str, Any], stale: str) -> dict[str, Any]:
    """Return a result with the recipe of this job.

    The recipe is no part of the configuration, so the same cell may have been run without it.

    Args:
        stale: why the result is stale; empty if it is not.
    """
    replaced = ("recipe", "preset", "published", "data_differences", "stale")
    kept = {key: value for key, value in result.items() if key not in replaced}
    info = _recipe_info(job, result["cell"]["world"], result["status"])
    return {**kept, **info} | ({"stale": stale} if stale else {})


def _recipe_info(job: Job, world: str, status: str) -> dict[str, Any]:
    """Return the recipe and the published numbers, and how the data of a finished result differ from published ones."""
    info = job.spec.recipe_info(world)
    known = "published" in info and status == "done"
    differences = job.source.differences_to_published(job.spec.dataset) if known else []
    return {**info, "data_differences": differences} if differences else info
