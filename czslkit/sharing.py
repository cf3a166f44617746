"""Trained methods that are shared on the Hugging Face hub, each with a model card."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .checkpoints.hub import MAIN, SCHEME, HubName, upload
from .checkpoints.trained import TrainedMethod, read_description
from .data.dataset_folders import dataset
from .errors import CzslkitError
from .json_digest import with_digest
from .method import METHODS
from .metrics.names import WORLDS
from .report.model_card import ModelCard
from .report.paper_names import PaperName, paper_name
from .report.table import Table
from .result_store import Result, Store
from .terminal import log_to_stderr
from .training_files import BACKBONE_FILE, CALIBRATION_FILE, METADATA_FILE, TRAINING_FOLDER, WEIGHTS_FILE

CARD_FILE = "README.md"


def push(
    folder: str | Path,
    repository: str,
    *,
    revision: str | None = None,
    private: bool = False,
    message: str | None = None,
    license: str = "unknown",
    log: Callable[[str], None] = log_to_stderr,
) -> str:
    """Write a trained method to a repository of the Hugging Face hub, with a model card.

    The learned tensors, their description, the bias for predictions and, after ``czslkit convert``, the backbone are
    uploaded. Folders of this machine in the names of files are left out of the description.

    Args:
        folder: the folder of a run, whose results are put into the card, or a folder that ``czslkit convert`` wrote.
        repository: ``USER/NAME``; it is made if there is none.
        revision: branch to write to, made if there is none; the main branch if None.
        private: only its owners may read the repository.
        message: the message of the commit; by default the names of method and dataset.
        license: the licence of the weights, as the hub names it, such as ``mit`` or ``cc-by-nc-4.0``.
        log: called with a line for everything that is left out.

    Returns:
        ``hf:USER/NAME@COMMIT``, which ``--checkpoint`` and :func:`czslkit.load` take.

    Raises:
        ConfigError: the folder holds no trained method, or the hub refuses the upload or cannot be reached.
    """
    name = HubName(repository.removeprefix(SCHEME), revision or MAIN)
    trained = TrainedMethod.read(folder)
    description = read_description(trained.folder)
    results, table = _results(trained, description, log)
    shared = {k: v if k in ("space", "digests") else _without_folders(v) for k, v in description.items()}
    changed = {k: v for k, v in shared["options"].items() if v != description["options"][k]}
    for option, value in changed.items():
        log(f"not uploaded: {value}, a file of this machine; its users give theirs with --set {option}=FILE")
    data = str(description.get("dataset") or "")
    card = ModelCard(
        str(name),
        trained.method,
        paper_name(METHODS[trained.method], trained.method),
        data,
        _dataset_paper(data),
        _recipe(shared, results),
        results,
        table,
        license,
        changed,
    )
    message = message or f"{trained.method}{f' on {data}' if data else ''}, by czslkit push"
    return str(upload(_files(trained.folder, card, shared, description), name, private=private, message=message))


def _files(
    folder: Path, card: ModelCard, shared: Mapping[str, Any], description: Mapping[str, Any]
) -> dict[str, Path | bytes]:
    """Return what is uploaded, by its name in the repository.

    Args:
        folder: the folder of the trained method.
        card: the model card.
        shared: the description without folders of this machine.
        description: the description as it is in the folder.
    """
    files: dict[str, Path | bytes] = {CARD_FILE: card.text().encode(), METADATA_FILE: folder / METADATA_FILE}
    if shared != description:
        files[METADATA_FILE] = with_digest(shared).encode()
    return files | {
        file: path for file in (WEIGHTS_FILE, BACKBONE_FILE, CALIBRATION_FILE) if (path := folder / file).is_file()
    }


def _results(
    trained: TrainedMethod, description: Mapping[str, Any], log: Callable[[str], None]
) -> tuple[list[Result], Table | None]:
    """Return the finished results of the run that a training belongs to, and their table; none for other folders.

    Args:
        log: called with a line for each result that cannot be shown.
    """
    run = trained.folder.absolute().parent
    if trained.folder.name != TRAINING_FOLDER or len(run.parents) < 3:
        return [], None
    store, key = Store(run.parents[2]), description.get("training_key")
    found: list[Result] = []
    for path in (run / f"{world}.json" for world in WORLDS):
        try:
            result = store.read(path) if path.is_file() else None
        except CzslkitError as error:
            log(f"left out of the card: {error}")
            continue
        if result is None:
            log(f"left out of the card: there is no {path}")
        elif result["status"] != "done":
            log(f"left out of the card: {path}, which has failed")
        elif key and result["training_key"] != key:
            log(f"left out of the card: {path}, which is the result of another training")
        else:
            found.append(result)
    return found, Table(found, attached=store.attached, folder=store.folder, intervals=True) if found else None


def _recipe(description: Mapping[str, Any], results: list[Result]) -> dict[str, Any]:
    """Return the settings of a training as a recipe; only those of the method if the run is not known."""
    config = results[0]["config"] if results else {}
    sections = {key: _without_folders(config[key]) for key in ("train", "eval") if key in config}
    return {"method": description["method"], "options": dict(description["options"]), **sections}


def _dataset_paper(name: str) -> PaperName:
    """Return how papers write a dataset; its registered name if it is not registered here."""
    try:
        return paper_name(type(dataset(name)), name)
    except CzslkitError:
        return PaperName(name)


def _without_folders(value: Any) -> Any:
    """Return nested values in which absolute paths are names of files, which tell nothing of this machine.

    >>> _without_folders(["/home/ann/clip.pt", "ViT-B-32/openai//home/ann/w.safetensors", "ViT-B-32/openai", 4])
    ['clip.pt', 'ViT-B-32/openai/w.safetensors', 'ViT-B-32/openai', 4]
    """
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return (
        re.sub(r"(^|[:/=])(/|[A-Za-z]:\\)(?:[^/\\]+[/\\])*(?=[^/\\])", r"\1", value)
        if isinstance(value, str)
        else value
    )
