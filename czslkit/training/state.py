"""The file from which a training resumes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .. import distributed
from ..foreign_files import check_regular
from ..learned_state import learned_state, load_learned
from ..method import Method
from ..training_files import STATE_FILE
from ..weights import read_safetensors, state_dict_mismatches, write_tensors

_OTHER_SECTIONS = ("method.", "best.", "hooks.")  # starts of the names of tensors that are no optimiser's
_OF_THE_DEVICE = ("foreach", "fused")  # settings of a group that do not change what a step means
_OPTIMIZER_TENSOR = re.compile(r"optimizer\d*\.\d+\..+")


@dataclass(frozen=True)
class Progress:
    """The history, the kept weights and the time of a training so far."""

    history: list[dict[str, float]]  # one row for each finished epoch
    best: Mapping[str, Tensor]  # the weights of the epoch to keep
    seconds: float  # over all sessions of the training
    steps: int = 0  # optimiser steps so far; 0 in files of earlier versions


class TrainingState:
    """The file from which a training resumes after its last finished epoch; it is written whole or not at all.

    Args:
        folder: the folder of the file.
        key: identifies the training; it is written into the file.
        accepted: other keys of the same training.
    """

    def __init__(self, folder: Path, key: str, accepted: Collection[str] = ()) -> None:
        self.key, self.accepted, self.file = key, {key, *accepted}, folder / STATE_FILE

    def save(self, method: Method, optimizers: Sequence[torch.optim.Optimizer], progress: Progress) -> None:
        """Write the weights, the optimisers, the history, the weights of the epoch to keep, time and steps so far."""
        tensors = {f"method.{name}": value for name, value in learned_state(method).items()}
        tensors |= {f"best.{name}": value for name, value in progress.best.items()}
        tensors |= {f"hooks.{name}": torch.as_tensor(value) for name, value in method.training_state().items()}
        for section, optimizer in _optimizer_sections(optimizers).items():
            for i, values in optimizer.state_dict()["state"].items():
                tensors |= {f"{section}.{i}.{n}": value for n, value in values.items() if isinstance(value, Tensor)}
        metadata = {
            "key": self.key,
            "history": json.dumps(progress.history),
            "seconds": str(progress.seconds),
            "steps": str(progress.steps),
            "trainable": json.dumps([name for name, p in method.named_parameters() if p.requires_grad]),
            "optimizers": json.dumps([_plain_values(optimizer) for optimizer in optimizers]),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(tensors, self.file, metadata)

    def restore(self, method: Method, optimizers: Sequence[torch.optim.Optimizer]) -> Progress:
        """Load the method and the optimisers as they were after the last epoch in the file, which one rank reads.

        Returns:
            The progress in the file; an empty one if there is no file, if it is damaged, or if its key is not accepted.
        """
        tensors, metadata = distributed.first(self._accepted_content)
        if not metadata:
            return Progress([], {}, 0.0)
        sections: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, value in tensors.items():
            section, _, rest = name.partition(".")
            sections[section][rest] = value
        load_learned(method, sections["method"])
        if "trainable" in metadata:
            trainable = set(json.loads(metadata["trainable"]))
            for name, parameter in method.named_parameters():
                parameter.requires_grad_(name in trainable)
        if sections["hooks"]:
            method.load_training_state(sections["hooks"])
        plain = json.loads(metadata.get("optimizers", "[]")) or [{"state": {}, "groups": []}] * len(optimizers)
        for (section, optimizer), values in zip(_optimizer_sections(optimizers).items(), plain, strict=True):
            moments: dict[int, dict[str, Any]] = defaultdict(dict)
            for i, found in values["state"].items():
                moments[int(i)].update(found)
            for name, value in sections[section].items():
                i, _, moment = name.partition(".")
                moments[int(i)][moment] = value
            content = optimizer.state_dict()
            for group, found in zip(content["param_groups"], values["groups"], strict=False):
                group.update({key: value for key, value in found.items() if key not in _OF_THE_DEVICE})
            optimizer.load_state_dict({**content, "state": dict(moments)})
        seconds, steps = float(metadata["seconds"]), int(metadata.get("steps", 0))
        return Progress(json.loads(metadata["history"]), sections["best"], seconds, steps)

    def _accepted_content(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the tensors and the metadata of the file, nothing if it is not of this training."""
        tensors, metadata = _read(self.file)
        return (tensors, metadata) if metadata.get("key") in self.accepted else ({}, {})


def _plain_values(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the numbers, flags and texts in the state and the groups of an optimiser, which are no tensors."""

    def plain(values: Mapping[Any, Any]) -> dict[Any, Any]:
        return {name: value for name, value in values.items() if isinstance(value, (int, float, str)) or value is None}

    content = optimizer.state_dict()
    return {
        "state": {i: plain(values) for i, values in content["state"].items()},
        "groups": [plain(group) for group in content["param_groups"]],
    }


def _optimizer_sections(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.optim.Optimizer]:
    """Return the optimisers by the names of their sections in the file: optimizer, optimizer2, ..."""
    return {"optimizer" + (str(i) if i > 1 else ""): optimizer for i, optimizer in enumerate(optimizers, 1)}


def state_key(folder: Path, accepted: Container[str] | None = None, method: Method | None = None) -> str | None:
    """Return the key of the training state in a folder, None if there is none, or if it is damaged.

    Args:
        accepted: keys to look for. For a state with another key, None is returned, and its tensors are not read.
        method: a method to resume. A state that this method cannot resume from counts as damaged.
    """
    file = folder / STATE_FILE
    if accepted is not None:
        try:
            check_regular(file)
            with safe_open(file, "pt") as content:
                key = (content.metadata() or {}).get("key")
        except (SafetensorError, OSError):
            return None
        if key not in accepted:
            return None
    tensors, metadata = _read(file)
    return None if metadata and method and not _is_whole(tensors, metadata, method) else metadata.get("key")


def _is_whole(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], method: Method) -> bool:
    """Return whether a state has all that ``restore`` reads; states of earlier versions hold no digest."""
    try:
        history, plain = json.loads(metadata["history"]), json.loads(metadata.get("optimizers", "[]"))
        json.loads(metadata.get("trainable", "[]"))
        float(metadata["seconds"]), int(metadata.get("steps", 0))
        whole = bool([row["loss"] for row in history])
        whole = whole and all({"state", "groups"} <= values.keys() for values in plain)
    except (KeyError, ValueError, TypeError, AttributeError):
        return False
    names = (_OPTIMIZER_TENSOR.fullmatch(name) for name in tensors if not name.startswith(_OTHER_SECTIONS))
    return whole and all(names) and all(_fits(method, _section(tensors, name)) for name in ("method", "best"))


def _fits(method: Method, values: Mapping[str, Tensor]) -> bool:
    """Return whether tensors are the learned tensors of a method, and perhaps others of its tensors."""
    expected = {name: value for name, value in method.state_dict().items() if name in values}
    return learned_state(method).keys() <= values.keys() and not state_dict_mismatches(expected, values)


def _section(tensors: Mapping[str, Tensor], section: str) -> dict[str, Tensor]:
    """Return the tensors of a section of the file by their names in the section."""
    prefix = f"{section}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a state, nothing if there is no file or if it is damaged."""
    try:
        check_regular(file)
        return read_safetensors(file)
    except (SafetensorError, OSError, ValueError):
        return {}, {}
