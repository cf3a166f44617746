"""The benchmark runner: methods x datasets x worlds x seeds into one table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from ..checkpoints.trained import TrainedMethod
from ..data.cache import Cache
from ..data.fingerprint import fingerprint_parts
from ..data.folders import canonical, dataset, ensure_folder, find_folder
from ..data.image_cache import decoded_images
from ..data.image_check import check_images
from ..data.loading import load_dataset
from ..data.published import BENCHMARKS
from ..data.splits import Splits
from ..errors import ConfigError, CzslkitError
from ..files import checked_filename
from ..registry import failures, load_plugins
from ..report.table import Table
from ..sizes import MEMORY, parse_bytes
from ..store import Store
from .job import Job
from .machine import Machine
from .plan import WORLDS, Spec, plan

T = TypeVar("T")


@dataclass(frozen=True)
class Benchmark:
    """The results of a grid of cells, one JSON-like dict each, and their table."""

    results: tuple[Mapping[str, Any], ...]
    store: Store | None = None  # where what lies beside them is

    @property
    def failed(self) -> int:
        """Number of cells without numbers."""
        return sum(result["status"] != "done" for result in self.results)

    def table(self) -> Table:
        """All of it side by side; what was not measured alike is named in the caption."""
        return self._table

    @cached_property
    def _table(self) -> Table:
        return Table(self.results, mixed=True, attached=self.store.attached if self.store else None)

    def to_markdown(self) -> str:
        return self.table().to_markdown()

    def to_csv(self) -> str:
        return self.table().to_csv()

    def to_latex(self) -> str:
        return self.table().to_latex()

    def to_json(self) -> str:
        return self.table().to_json()


def bench(
    methods: Sequence[str] | str | None = None,
    datasets: Sequence[str] | str = "demo",
    worlds: Sequence[str] | str = WORLDS,
    seeds: Sequence[int] = (0,),
    *,
    checkpoints: Sequence[str | Path] = (),
    data: str | Path | None = None,
    runs: str | Path = "runs",
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    device: str = "auto",
    workers: int = 0,
    cache: str | Path | None = None,
    cache_images: bool = False,
    memory: str | int = MEMORY,
    estimate: bool = False,
    progress: bool = True,
    log: Callable[[str], None] | None = None,
) -> Benchmark:
    """Train and evaluate every method on every dataset, skipping what is done.

    A cell that fails is recorded with its reason and the others run. Killed and called
    again, it goes on where it was.

    Args:
        methods: registered names, or one text with commas; those of the checkpoints if None.
        datasets: names; ``all`` for MIT-States, UT-Zappos and C-GQA.
        worlds: ``closed``, ``open`` or both.
        seeds: one training each.
        checkpoints: folders that ``czslkit convert`` or a training wrote; their methods are evaluated as they
            are, the others trained.
        data: folder of the datasets; ``$CZSLKIT_DATA`` or ``./data`` if None.
        runs: folder of the results.
        settings: as in :func:`czslkit.runner.plan.plan`, such as ``{"train.epochs": 3}``.
        preset: ``demo`` or ``paper``; see :func:`czslkit.runner.plan.plan`.
        device: ``auto``, or as torch names it.
        workers: processes that read images.
        cache: folder of the features of frozen image encoders, which no number depends on; ``runs/cache`` if None,
            and ``off`` for none.
        cache_images: keep decoded images there, too, about 150 KB each at 224 pixels.
        memory: that an evaluation may take, such as ``"4GB"``, the method's own weights aside.
        estimate: say what every cell would take, in time and memory, and run none; the results are those cells that
            cannot be run.
        progress: show bars on a terminal.
        log: called with a line for every step; standard error if None.

    Raises:
        ConfigError: unknown names, keys or values; nothing has been run.

    >>> import tempfile, czslkit
    >>> from czslkit.data.make.mini import write_mini
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_mini("ut-zappos", folder)
    ...     where = {"data": folder, "runs": f"{folder}/runs", "log": lambda line: None}
    ...     result = czslkit.bench("clip", "ut-zappos", "closed", settings={"backbone": "demo"}, **where)
    >>> result.failed, list(result.results[0]["metrics"])[:2]
    (0, ['auc', 'best_seen'])
    """
    log = log or (lambda line: print(line, file=sys.stderr, flush=True))
    names = [canonical(name) for name in _names(datasets, {"all": BENCHMARKS})]
    load_plugins()
    for line in failures():
        log(f"set aside: {line}")
    saved = [TrainedMethod.read(folder) for folder in checkpoints]
    asked = [found.method for found in saved] if methods is None else _names(methods)
    grid = partial(plan, asked, names, _names(worlds), list(seeds), settings, preset, saved)
    kept = None if cache == "off" or estimate else Cache(Path(cache or Path(runs) / "cache"), cache_images, log)
    specs, machine = _planned(grid, names, data, Machine(device, workers, progress, kept), memory)
    if cache == "off" and cache_images:
        raise ConfigError(["cache is off, but images are to be kept in it: leave out one of the two"])
    store = Store(Path(runs))

    def digests(name: str) -> dict[str, str]:
        folder = ensure_folder(name, data)
        return fingerprint_parts(folder, dataset(name).files(folder))

    digests_of = _remembered(digests)
    load = _remembered(lambda name: load_dataset(name, data))
    check = _remembered(lambda name, size: _check(load(name), size, machine.cache, Path(runs) / "checked"))
    results: list[Mapping[str, Any]] = []
    for number, spec in enumerate(specs, 1):
        tell = partial(_tell, log, f"[{number}/{len(specs)}] {spec.method} on {spec.dataset}, seed {spec.seed}")
        job = Job(spec, store, machine)
        try:
            name = spec.dataset
            if estimate:
                job.estimate(digests_of(name), partial(load, name), tell)
            else:
                results += job.run(digests_of(name), partial(load, name), partial(check, name), tell)
        except Exception as error:  # data or weights that cannot be had, a plugin that cannot be read
            results += job.refuse(error, tell) if estimate else job.keep(error, tell)
    return Benchmark(tuple(results), store)


def _planned(
    grid: Callable[[], list[Spec]],
    datasets: Sequence[str],
    data: str | Path | None,
    machine: Machine,
    memory: str | int,
) -> tuple[list[Spec], Machine]:
    """What is to be run and where, the device found; every mistake in what was asked, at once.

    Raises:
        ConfigError: names, settings, device, workers or cache that cannot be used.
    """
    problems: list[str] = []
    specs: list[Spec] = []
    try:
        specs = grid()
    except ConfigError as error:
        problems += error.problems
    for name in datasets:
        try:
            find_folder(name, data)
            checked_filename(name)
        except CzslkitError as error:
            problems.append(str(error))
    try:
        machine = replace(machine, device=str(machine.torch_device()), memory=parse_bytes(memory))
    except ConfigError as error:
        problems += error.problems
    except ValueError as error:
        problems.append(f"memory: {error}")
    if machine.workers < 0:
        problems.append(f"workers is {machine.workers}, expected 0 or more")
    if problems:
        raise ConfigError(problems)
    return specs, machine


def _remembered(function: Callable[..., T]) -> Callable[..., T]:
    """A function that is called once for the same arguments; an error is raised again, too."""

    @cache
    def outcome(*args: Any) -> T | CzslkitError:
        try:
            return function(*args)
        except CzslkitError as error:
            return error

    def remembered(*args: Any) -> T:
        found = outcome(*args)
        if isinstance(found, CzslkitError):
            raise found
        return found

    return remembered


def _check(splits: Splits, size: int, cache: Cache | None, stamps: Path) -> None:
    """Decode every image once: into the cache, if images are kept there.

    Raises:
        DataError: images that cannot be read.
    """
    phases = (splits.train, splits.val, splits.test)
    if not (cache and cache.images) or None in [decoded_images(cache, split, size) for split in phases]:
        check_images(splits, cache=stamps)


def _tell(log: Callable[[str], None], about: str, line: str) -> None:
    log(f"{about}: {line}")


def _names(asked: Sequence[str] | str, groups: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """A list from a list or from one text with commas, groups spelled out."""
    items = asked.split(",") if isinstance(asked, str) else asked
    return [name for item in items for name in (groups or {}).get(item.strip(), [item.strip()])]
