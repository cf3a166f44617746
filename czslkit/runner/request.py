"""What a benchmark was asked for, as data that another process can turn into the same jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checkpoints.hub import local_folder
from ..checkpoints.trained import TrainedMethod
from ..data.cache import Cache
from ..data.dataset_folders import canonical, find_folder
from ..data.published import BENCHMARKS
from ..errors import ConfigError, CzslkitError
from ..files import checked_filename
from ..loggers import missing_packages
from ..method import METHODS
from ..metrics.names import WORLDS
from ..options import user_path
from ..registry import load_unpackaged, unpackaged
from ..result_store import Store
from ..sizes import MEMORY, parse_bytes
from .data_source import DataSource
from .job import Job
from .machine import Machine
from .plan import Spec, plan
from .staleness import read_code
from .variant import Variant


@dataclass(frozen=True)
class Request:
    """The arguments of :func:`czslkit.bench` that its jobs depend on. It can be pickled and sent to another process."""

    methods: Sequence[str | Variant] | str | None = None
    datasets: Sequence[str] | str = "demo"
    worlds: Sequence[str] | str = WORLDS
    seeds: Sequence[int] = (0,)
    checkpoints: Sequence[str | Path] = ()
    recipes: Mapping[str, str | Path] | None = None
    data: str | Path | None = None
    runs: str | Path = "runs"
    settings: Mapping[str, Any] | None = None
    preset: str | None = None
    device: str = "auto"
    workers: int | str = "auto"
    processes: int = 1  # trainings that run at the same time on this machine
    cache: str | Path | None = None
    cache_images: bool = False
    memory: str | int = MEMORY
    estimate: bool = False
    keep_stale: bool = False
    allow_missing: bool = False
    verbose: bool = False
    loggers: Sequence[str] | str = ()
    progress: bool = True
    problems: tuple[str, ...] = ()  # what is wrong with the file that it was read from
    plugins: tuple[str, ...] = field(default_factory=unpackaged)  # code of the first process that is not installed

    @property
    def store(self) -> Store:
        """The folder of the results."""
        return Store(self.runs)

    def with_local_checkpoints(self) -> Request:
        """Return the request with a folder for every checkpoint, so that all processes use the same commit of the hub.

        Raises:
            ConfigError: a checkpoint of the hub cannot be downloaded.
        """
        methods = self.methods
        if methods is not None and not isinstance(methods, str):
            methods = [
                replace(one, checkpoint=local_folder(one.checkpoint))
                if isinstance(one, Variant) and one.checkpoint is not None
                else one
                for one in methods
            ]
        return replace(self, methods=methods, checkpoints=[local_folder(one) for one in self.checkpoints])

    def jobs(self, log: Callable[[str], None]) -> list[Job]:
        """Plan every training of the grid; the same request gives the same jobs in every process.

        Args:
            log: called with a line for every step; the lines of a job start with its number and its names.

        Raises:
            ConfigError: names, keys or values are unknown; the message lists every problem.
        """
        for plugin in [name for name in self.plugins if name not in unpackaged()]:
            load_unpackaged(plugin)
        dataset_names = [canonical(name) for name in _split_names(self.datasets, {"all": BENCHMARKS})]
        trained = [TrainedMethod.read(folder) for folder in self.checkpoints]
        own = [checkpoint.method for checkpoint in trained]
        methods: Sequence[str | Variant] = own if self.methods is None else _methods(self.methods)
        worlds, seeds = _split_names(self.worlds), list(self.seeds)
        specs, found = _plan_or_problems(
            methods, dataset_names, worlds, seeds, self.settings, self.preset, trained, self.recipes
        )
        problems = [*self.problems, *found, *_folder_problems(dataset_names, self.data)]
        machine, machine_problems = self._machine(log)
        problems += machine_problems
        loggers, logger_problems = self._loggers()
        problems += logger_problems
        if self.cache == "off" and self.cache_images:
            problems.append("cache is off, but cache_images asks to keep images in it: leave out one of the two")
        if problems:
            raise ConfigError(problems)
        read_code(specs)
        source = DataSource(
            self.data,
            self.store.root / "checked",
            machine.cache,
            allow_missing=self.allow_missing,
            progress=self.progress,
            log=log,
        )
        return [
            Job(
                spec,
                self.store,
                source,
                machine,
                self.verbose,
                self.keep_stale,
                _prefixed(log, name),
                name,
                loggers,
            )
            for spec, name in zip(specs, _job_names(specs), strict=True)
        ]

    def _loggers(self) -> tuple[tuple[str, ...], list[str]]:
        """Return the names of the loggers, each once, and the problems with them."""
        names = tuple(dict.fromkeys(name for name in _split_names(self.loggers) if name))
        problems: list[str] = []
        for name in names:
            try:
                problems += filter(None, [missing_packages(name)])
            except CzslkitError as error:
                problems.append(str(error))
        return names, problems

    def _machine(self, log: Callable[[str], None]) -> tuple[Machine, list[str]]:
        """Return the machine with its actual device and memory in bytes, and the problems with its settings."""
        folder = self.store.root / "cache" if self.cache is None else user_path(self.cache)
        cache = None if self.cache == "off" or self.estimate else Cache(folder, self.cache_images, log)
        machine = Machine(self.device, jobs=self.processes, progress=self.progress, cache=cache)
        problems: list[str] = []
        try:
            machine = replace(machine, device=str(machine.torch_device()))
        except ConfigError as error:
            problems += error.problems
        try:
            machine = replace(machine, memory=parse_bytes(self.memory))
        except ValueError as error:
            problems.append(f"memory: {error}")
        workers = machine.automatic_workers() if self.workers == "auto" else self.workers
        if not isinstance(workers, int) or workers < 0:
            return machine, [*problems, f"workers is {workers!r}, expected auto or a whole number, 0 or more"]
        return replace(machine, workers=workers), problems


def _plan_or_problems(*grid: Any) -> tuple[list[Spec], list[str]]:
    """Return the trainings of a grid, and the problems that :func:`czslkit.runner.plan.plan` raised."""
    try:
        return plan(*grid), []
    except ConfigError as error:
        return [], list(error.problems)


def _folder_problems(datasets: Sequence[str], data: str | Path | None) -> Iterator[str]:
    """Yield a message for each wrong dataset name. A missing dataset is no problem here; its cells fail later."""
    for name in datasets:
        try:
            find_folder(name, data)
            checked_filename(name)
        except CzslkitError as error:
            yield str(error)


def _job_names(specs: Sequence[Spec]) -> list[str]:
    """Return the number and the names of each training, such as ``[2/9] csp on demo, seed 0``."""
    return [f"[{n}/{len(specs)}] {spec.name} on {spec.dataset}, seed {spec.seed}" for n, spec in enumerate(specs, 1)]


def _prefixed(log: Callable[[str], None], name: str) -> Callable[[str], None]:
    """Return a log function that puts the name of a job before every line."""
    return lambda line: log(f"{name}: {line}")


def _methods(asked: Sequence[str | Variant] | str) -> list[str | Variant]:
    """Return the methods of a list, or of one text with commas; ``all`` is replaced by every name."""
    items = asked.split(",") if isinstance(asked, str) else asked
    parted = ([item] if isinstance(item, Variant) else _split_names([item], {"all": METHODS}) for item in items)
    return [method for methods in parted for method in methods]


def _split_names(names: Sequence[str] | str, groups: Mapping[str, Iterable[str]] | None = None) -> list[str]:
    """Return names from a list, or from one text with commas; a name in ``groups`` is replaced by its members."""
    items = names.split(",") if isinstance(names, str) else names
    return [name for item in items for name in (groups or {}).get(item.strip(), [item.strip()])]
