"""The training of a job: resumed, copied from a cell with other evaluation settings, or started anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from ..checkpoints.trained import METADATA_FILE, save
from ..data.dataset_folders import dataset
from ..evaluation.validation import plan_validation
from ..options import as_dict
from ..result_store import unused_path
from ..training.loop import Training, train
from ..training.state import STATE_FILE, TrainingState, state_key
from .job import Job
from .prepare import Prepared, evaluation_feed, selection_candidates


def classes_of(job: Job, prepared: Prepared) -> list[type]:
    """Return every class whose code takes part in a training: of the dataset, the method and its components."""
    return [type(dataset(job.spec.dataset)), *(type(module) for module in prepared.method.modules())]


def train_method(job: Job, prepared: Prepared, key: str, same_keys: Collection[str]) -> Training:
    """Train the method of a job, unless a training with the same key is already on disk.

    A training with another key is renamed, never overwritten.

    Args:
        key: names the training; see :func:`czslkit.runner.staleness.training_key`.
        same_keys: other keys of the same training, such as keys of an older format.

    Raises:
        TrainingError: a loss is not finite.
        ConfigError: the machine's memory is too little for the validation.
    """
    spec, machine, method, data = job.spec, job.machine, prepared.method, prepared.data
    folder, accepted = training_folder(job), {key, *same_keys}
    _rename_stale(job, folder, accepted)
    state = TrainingState(folder, key, accepted)
    _copy_same_training(job, state)
    trains = method.trains and spec.train.epochs
    validation = evaluation_feed(job, method, data.val)
    training = train(
        method,
        machine.feed(method, data.train, spec.train.batch_size, augment=spec.train.augment, seed=spec.seed),
        spec.train,
        plan_validation(
            method,
            data,
            validation,
            spec.train,
            bins=spec.evaluation.bins,
            memory=machine.memory,
            open_world=selection_candidates(spec, prepared.feasibility),
            stream_seed=spec.evaluation.stream_seed,
        )
        if trains
        else dict,
        state,
        data=data.training_data(),
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
    """Return the key in the metadata file of a trained method, None if there is none."""
    try:
        key: str | None = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8")).get("training_key")
    except (OSError, ValueError):
        return None
    return key


def _rename_stale(job: Job, folder: Path, accepted: Collection[str]) -> None:
    """Rename a training with a key that is not accepted to ``training.stale``, ``training.stale-2``, ..."""
    exists = any((folder / name).exists() for name in (STATE_FILE, METADATA_FILE))
    if exists and stored_key(folder) not in accepted:
        renamed = unused_path(folder, ".stale")
        folder.rename(renamed)
        job.log(f"the weights of a training with other settings, data or code are kept in {renamed}")


def _copy_same_training(job: Job, state: TrainingState) -> None:
    """Copy the state of the same training from a cell with other evaluation settings, if there is one."""
    if state.file.exists():
        return
    cell = job.store.folder(job.spec.cell("closed"))
    for folder in sorted(cell.parent.glob(f"seed{job.spec.seed}-*/training")):
        if state_key(folder) in state.accepted:
            unfinished = state.file.with_name(f".{STATE_FILE}.tmp")
            shutil.copyfile(folder / STATE_FILE, unfinished)
            unfinished.replace(state.file)
            job.log(f"the training in {folder} has the same settings, data and code, and is used here")
            return
