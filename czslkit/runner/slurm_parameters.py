"""The parameters of Slurm jobs, under the names of submitit, checked before anything is submitted."""

from __future__ import annotations

import dataclasses
import shutil
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ConfigError
from ..options import option, parse
from ..torchrun import process_count

INSTALL = "pip install 'czslkit[slurm]'"
_OF_EXECUTOR = ("max_num_timeout", "python")  # arguments of submitit's executor, not of its jobs
_MAY_BE_ZERO = {"gpus_per_node", "max_num_timeout", "mem_gb", "signal_delay_s"}
_NOT_OFFERED = {"additional_parameters", "num_gpus", "use_srun"}


@dataclass(frozen=True)
class Parameters:
    """The parameters of an array of Slurm jobs.

    Attributes:
        executor: arguments of submitit's ``AutoExecutor``, apart from the folder.
        jobs: arguments of its ``update_parameters``.
        distributed: one training has all tasks of its job, which share its batches.
        tasks: processes of one training.
    """

    executor: Mapping[str, Any]
    jobs: Mapping[str, Any]
    distributed: bool
    tasks: int

    @property
    def minutes(self) -> int:
        """The time limit of a job, submitit's default if none is given."""
        return int(self.jobs.get("slurm_time") or self.jobs.get("timeout_min") or 5)


def slurm_parameters(slurm: Mapping[str, Any] | None, detach: bool, device: str) -> Parameters | None:
    """Return the checked parameters of Slurm jobs, None for a benchmark on this machine.

    Raises:
        ConfigError: a parameter is wrong, there is no device of this name, or ``detach`` was given without ``slurm``.
    """
    if slurm is None:
        if detach:
            raise ConfigError(["detach needs slurm, since only its jobs run without this process: add slurm"])
        return None
    if process_count() > 1:
        raise ConfigError(["slurm cannot be used under torchrun: start czslkit bench itself, with distributed=true"])
    try:
        torch.device("cpu" if device == "auto" else device)
    except RuntimeError as error:
        raise ConfigError([f"device {device!r} cannot be used: {str(error).splitlines()[0]}"]) from None
    return parse_parameters(slurm)


def parse_parameters(given: Mapping[str, Any]) -> Parameters:
    """Check the parameters of Slurm jobs.

    Args:
        given: values by submitit's names, those of ``AutoExecutor`` (``timeout_min``, ``mem_gb``) or of
            ``SlurmExecutor`` (``partition``, ``array_parallelism``), which may start with ``slurm_``; and
            ``distributed``.

    Raises:
        ConfigError: submitit is not installed, there is no Slurm, or there are unknown names or wrong values; the
            message lists all of them.
    """
    try:
        import submitit  # noqa: F401 (it is an extra)
    except ImportError as error:
        raise ConfigError([f"slurm needs submitit, which is not installed ({error}): {INSTALL}"]) from None
    named = {name.removeprefix("slurm_"): value for name, value in given.items()}
    more = named.pop("additional_parameters", None) or {}
    schema = _schema()
    if not isinstance(more, Mapping):
        raise ConfigError(
            [f"slurm: additional_parameters is {more!r}, expected options of sbatch such as {{reservation: NAME}}"]
        )
    parsed: Any = parse(schema, named, where="slurm")
    values = {name: getattr(parsed, name) for name in named if getattr(parsed, name) is not None}
    distributed = bool(values.pop("distributed", False))
    tasks_per_node = values.pop("ntasks_per_node", None) or values.pop("tasks_per_node", None)
    tasks_per_node = tasks_per_node or (distributed and values.get("gpus_per_node")) or 1
    tasks = int(tasks_per_node) * int(values.get("nodes", 1))
    if problem := _wrong_tasks(distributed, tasks):
        raise ConfigError([problem])
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ConfigError(["slurm: there is no sbatch on this machine; run the command on a login node of the cluster"])
    generic = {"name": "czslkit", "stderr_to_stdout": True, "tasks_per_node": tasks_per_node}
    of_slurm: dict[str, Any] = {"additional_parameters": more if "no-requeue" in more else {"requeue": True, **more}}
    if distributed:  # when a task fails, the others would wait for it
        of_slurm["srun_args"] = ["--kill-on-bad-exit=1", *values.pop("srun_args", ())]
    executor = {}
    for name, value in values.items():
        value = list(value) if isinstance(value, tuple) else value
        if name in _OF_EXECUTOR:
            executor[f"slurm_{name}"] = value
        elif name in _generic_names():
            generic[name] = value
        else:
            of_slurm[name] = value
    return Parameters(executor, generic | {f"slurm_{name}": of_slurm[name] for name in of_slurm}, distributed, tasks)


def _wrong_tasks(distributed: bool, tasks: int) -> str:
    """Return what is wrong with the number of processes of a training, an empty text if it is right."""
    if tasks > 1 and not distributed:
        return (
            f"slurm: nodes x tasks_per_node is {tasks}, but without distributed=true a training has 1 process: "
            "add distributed=true, or leave out nodes and tasks_per_node"
        )
    if distributed and tasks == 1:
        return (
            "slurm: distributed=true, but nodes x tasks_per_node is 1: give gpus_per_node, tasks_per_node or nodes, or "
            "leave out distributed"
        )
    return ""


def _generic_names() -> Mapping[str, type]:
    """Return the types of submitit's parameters that are no parameters of sbatch, by name."""
    from submitit import AutoExecutor

    return AutoExecutor._typed_parameters()


def _schema() -> type:
    """Return a class of options with all parameters, read from the signatures of submitit."""
    from submitit import SlurmExecutor
    from submitit.slurm.slurm import _make_sbatch_string

    hints = typing.get_type_hints(_make_sbatch_string)
    hints = {name: hints[name] for name in SlurmExecutor._valid_parameters() - _NOT_OFFERED}
    hints |= {**_generic_names(), "max_num_timeout": int, "python": str, "distributed": bool}
    fields = [
        (name, _option_hint(hint), option(None, "see submitit", minimum=int(name not in _MAY_BE_ZERO)))
        for name, hint in sorted(hints.items())
    ]
    return dataclasses.make_dataclass("SlurmParameters", fields, frozen=True)


def _option_hint(hint: Any) -> Any:
    """Return the type of an option for a type in a signature of submitit; words may be numbers, as partitions may.

    >>> _option_hint(str), _option_hint(list[str] | None)
    (str | int | None, tuple[str, ...] | None)
    """
    found: Any = None
    for part in typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,):
        if typing.get_origin(part) in (list, Iterable) or part in (list, Iterable):
            part = tuple[str, ...]
        elif part is str:
            part = str | int
        found = part if found is None else found | part
    return found | None
