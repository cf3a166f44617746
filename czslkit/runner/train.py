"""The training of a job: resumed where it was, taken over from another evaluation setting, or started anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.trained import METADATA_FILE, save
from ..data.dataset_folders import dataset
from ..evaluation.validation import plan_validation
from ..options import as_dict
from ..result_store import unused_path
from ..training.loop import Training, train
from ..training.state import STATE_FILE, TrainingState, state_key
from .job import Job
from .prepare import Prepared, evaluation_feed
from .staleness import training_dependencies, training_key


def dependencies_of(job: Job, prepared: Prepared) -> dict[str, Any]:
    """Return everything that the trained weights depend on, apart from the settings."""
    classes = [type(dataset(job.spec.dataset)), *(type(module) for module in prepared.method.modules())]
    return training_dependencies(job.spec, job.source.digests(job.spec.dataset), classes)


def train_method(job: Job, prepared: Prepared, dependencies: Mapping[str, Any], same_keys: Collection[str]) -> Training:
    """Train the method of a job, unless a training with the same key is on disk already.

    The weights of a training with another key are moved aside, never overwritten.

    Args:
        dependencies: as :func:`dependencies_of` returns them.
        same_keys: other keys of trainings that mean the same, such as keys of an older format.

    Raises:
        TrainingError: a loss is no longer finite.
        ConfigError: the machine's memory is too little to validate.
    """
    spec, machine, method, data = job.spec, job.machine, prepared.method, prepared.data
    folder, key = training_folder(job), training_key(spec, dependencies)
    accepted = {key, *same_keys}
    if job.keep_stale and (found := stored_key(folder)):
        accepted.add(found)
    _set_aside(job, folder, accepted)
    state = TrainingState(folder, key, accepted)
    _take_over(job, state)
    trains = method.trains and spec.train.epochs
    validation = evaluation_feed(job, method, data.val)
    training = train(
        method,
        machine.feed(method, data.train, spec.train.batch_size, augment=spec.train.augment, seed=spec.seed),
        spec.train,
        plan_validation(method, data, validation, spec.train, bins=spec.evaluation.bins, memory=machine.memory)
        if trains
        else dict,
        state,
        seed=spec.seed,
        progress=machine.progress,
        log=job.log,
    )
    if spec.checkpoint is None and _recorded_key(folder) != key:
        options = as_dict(spec.options)
        save(folder, spec.method, method, options, dataset=spec.dataset, seed=spec.seed, training_key=key)
    return training


def training_folder(job: Job) -> Path:
    """Return the folder of a job's trained method."""
    return job.store.folder(job.spec.cell("closed")) / "training"


def stored_key(folder: Path) -> str | None:
    """Return the key of the training in a folder, None if there is none or it has no key."""
    return state_key(folder) or _recorded_key(folder)


def _recorded_key(folder: Path) -> str | None:
    """Return the key that the description of a trained method holds."""
    try:
        key: str | None = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8")).get("training_key")
    except (OSError, ValueError):
        return None
    return key


def _set_aside(job: Job, folder: Path, accepted: Collection[str]) -> None:
    """Move a training with a key that is not accepted to ``training.stale``, ``training.stale-2``, ..."""
    there = any((folder / name).exists() for name in (STATE_FILE, METADATA_FILE))
    if there and stored_key(folder) not in accepted:
        kept = unused_path(folder, ".stale")
        folder.rename(kept)
        job.log(f"the weights of a training with other settings, data or code are kept in {kept}")


def _take_over(job: Job, state: TrainingState) -> None:
    """Copy the state of the same training from a cell that differs in its evaluation alone, if there is one."""
    if state.file.exists():
        return
    cell = job.store.folder(job.spec.cell("closed"))
    for other in sorted(cell.parent.glob(f"seed{job.spec.seed}-*/training")):
        if state_key(other) in state.accepted:
            unfinished = state.file.with_name(f".{STATE_FILE}.tmp")
            shutil.copyfile(other / STATE_FILE, unfinished)
            unfinished.replace(state.file)
            job.log(f"the training in {other} has the same settings, data and code, and is used here")
            return
