"""The training of a job: resumed, copied from a cell with other evaluation settings, or started anew."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .. import distributed
from ..checkpoints.trained import TrainedMethod, is_intact, read_description, save
from ..data.dataset_folders import dataset
from ..errors import ConfigError
from ..evaluation.validation import plan_validation
from ..files import unfinished
from ..method import Method
from ..options import as_dict
from ..provenance import held_classes
from ..result_store import unused_path
from ..training.loop import Training, train
from ..training.split import equal_weights
from ..training.state import TrainingState, state_key
from ..training.watch import Watch
from ..training_files import METADATA_FILE, STATE_FILE, TRAINING_FOLDER, WEIGHTS_FILE
from .job import Job
from .prepare import Prepared, evaluation_feed, selection_candidates


def classes_of(job: Job, method: Method) -> list[Any]:
    """Return the classes whose code takes part in a training: of the dataset, the method and its components.

    Objects that a component holds count as well if they are from other projects, and so do functions. The class of the
    options does not count: their values are part of the configuration.
    """
    modules = list(method.modules())
    held = set().union(*map(held_classes, modules)) - {type(method).Options}
    return [type(dataset(job.spec.dataset)), *map(type, modules), *held]


def train_method(
    job: Job, prepared: Prepared, key: str, same: Mapping[str, Any], watch: Watch | None = None
) -> tuple[Training, str]:
    """Train the method of a job, unless the same training is already on disk.

    A training with another key is renamed, never overwritten. If only the weights of the same training are on disk,
    they are used.

    Args:
        key: names the training; see :func:`czslkit.runner.staleness.training_key`.
        same: other keys of the same training, such as keys of an older format, with its record in a result.
        watch: receives the values of the training.

    Returns:
        The record of the training, and its key on disk.

    Raises:
        TrainingError: a loss is not finite.
        ConfigError: the machine's memory is too little for the validation.
    """
    spec, method, folder = job.spec, prepared.method, training_folder(job)
    found = distributed.first(lambda: _stored_training(job, folder, {key, *same}, method))
    keys = [*found.keys, key]  # every key in the folder names the same training
    state = TrainingState(folder, keys[0], {*keys, *same})
    trains = bool(method.trains and spec.train.epochs)
    record = next((same[key] for key in keys if key in same), None)
    training = None
    if trains and found.recorded and not found.state:
        training = distributed.first(lambda: _load_trained(job, method, folder, record))
        equal_weights(method)
    training = training or _train(job, prepared, state, trains, watch)
    if spec.checkpoint is None:
        distributed.first(lambda: _save(job, method, folder, found, keys[0]))
    return training, keys[0]


def _save(job: Job, method: Method, folder: Path, found: StoredTraining, key: str) -> None:
    """Save a trained method, unless its file is there and intact."""
    if not (found.recorded and is_intact(folder)):
        spec, options = job.spec, as_dict(job.spec.options, absolute=True)
        save(folder, spec.method, method, options, dataset=spec.dataset, seed=spec.seed, training_key=key)


def is_trained(job: Job, accepted: Collection[str]) -> bool:
    """Return whether a finished training with one of the keys is on disk, for this cell or for a cell like it."""
    return any(_recorded_key(folder) in accepted for folder in _folders(job))


def training_folder(job: Job) -> Path:
    """Return the folder of a job's trained method."""
    return job.store.folder(job.spec.cell("closed")) / TRAINING_FOLDER


@dataclass(frozen=True)
class StoredTraining:
    """The keys of the training in a folder; None for a file that is missing or damaged."""

    recorded: str | None  # in the description of the trained method
    state: str | None  # in the state to resume from

    @property
    def keys(self) -> list[str]:
        """The different keys."""
        return list(dict.fromkeys(key for key in (self.recorded, self.state) if key))


def stored_keys(folder: Path) -> list[str]:
    """Return the different keys of the training in a folder: of its trained method, and of its state."""
    return StoredTraining(_recorded_key(folder), state_key(folder)).keys


def _train(job: Job, prepared: Prepared, state: TrainingState, trains: bool, watch: Watch | None) -> Training:
    """Train the method of a job from its last state."""
    spec, machine, method, data = job.spec, job.machine, prepared.method, prepared.data
    validation = evaluation_feed(job, method, data.val)
    return train(
        method,
        machine.training_feed(method, data.train, spec.train, spec.seed),
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
        log=job.log,
        watch=watch,
    )


def _load_trained(job: Job, method: Method, folder: Path, record: Mapping[str, Any] | None) -> Training | None:
    """Load the weights of a finished training without a state to resume from; return None if they cannot be used.

    Args:
        record: the record of the training in a result; without it, the history and the kept epoch are not known.
    """
    file = folder / STATE_FILE
    found = f"{file} is damaged" if file.exists() else f"there is no {file}"
    try:
        TrainedMethod.read(folder).load_into(method)
    except ConfigError as error:
        job.log(f"{found}, and the trained weights beside it cannot be used, so the training starts anew: {error}")
        (folder / METADATA_FILE).unlink()
        return None
    job.log(f"{found}: the trained weights beside it are used")
    if record is None:
        count = sum(p.numel() for p in method.parameters() if p.requires_grad)
        return Training(job.spec.train.epochs, None, count, ())
    known = {field.name: record[field.name] for field in fields(Training) if field.name in record}
    return Training(**{**known, "history": tuple(known["history"])})


def _recorded_key(folder: Path) -> str | None:
    """Return the key in the description of a trained method, None if there is none, or if it is damaged."""
    try:
        key = read_description(folder).get("training_key")
    except ConfigError:
        return None
    return key if isinstance(key, str) else None


def _stored_training(job: Job, folder: Path, accepted: Collection[str], method: Method) -> StoredTraining:
    """Return the training in a folder that has an accepted key, or copy one from a cell with other evaluation settings.

    A training with other keys is renamed to ``training.stale``, ``training.stale-2``, ... and so is a damaged one.
    """
    recorded = _recorded_key(folder)
    found = StoredTraining(recorded, state_key(folder, None if recorded in accepted else accepted, method))
    if {*accepted}.intersection(found.keys):
        return found
    files = [file for file in (folder / STATE_FILE, folder / METADATA_FILE) if file.exists()]
    if files:
        renamed, others = unused_path(folder, ".stale"), {*stored_keys(folder)}.difference(accepted)
        folder.rename(renamed)
        if others:
            job.log(f"the weights of a training with other settings, data or code are kept in {renamed}")
        else:
            job.log(f"{files[0]} is damaged: it is kept in {renamed}, and the training starts anew")
    for other in _folders(job):
        found = StoredTraining(_recorded_key(other), state_key(other, accepted, method))
        if {*accepted}.intersection(found.keys):
            _copy_training(other, folder)
            job.log(f"the training in {other} has the same settings, data and code, and is used here")
            return found
    return StoredTraining(None, None)


def _copy_training(source: Path, folder: Path) -> None:
    """Copy the files of a training; the description, which makes it a finished one, comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (STATE_FILE, WEIGHTS_FILE, METADATA_FILE):
        if (source / name).exists():
            with unfinished(folder / name) as made:
                shutil.copyfile(source / name, made)


def _folders(job: Job) -> list[Path]:
    """Return the folders of trained methods of all cells with the job's method, dataset and seed."""
    cell = job.store.folder(job.spec.cell("closed"))
    return sorted(cell.parent.glob(f"seed{job.spec.seed}-*/training"))
