"""A benchmark: a grid of methods, datasets, worlds and seeds, and the table of its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import distributed
from ..data.dataset_folders import dataset
from ..errors import ConfigError
from ..files import remove_unfinished
from ..method import METHODS
from ..options import config_id
from ..registry import failures
from ..report.asked import Asked, Command, Row, remember
from ..report.frame import results_frame
from ..report.paper_names import PaperName, paper_name
from ..report.table import Table
from ..result_store import Store
from ..sizes import MEMORY
from ..terminal import log_to_stderr
from ..torchrun import process_count, process_rank
from .job import Job
from .job_processes import exit_if_imported_as_script, planned_here, run_several, trainings_at_a_time
from .plan import Spec
from .request import Request
from .run_job import estimate as estimate_job
from .run_job import failed_results
from .run_jobs import run_jobs
from .slurm_parameters import slurm_parameters
from .suite import Suite, read_suite
from .variant import Variant

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Benchmark:
    """The results of a grid of cells, one JSON-like dict each, and their table."""

    results: tuple[Mapping[str, Any], ...]
    store: Store | None = None  # the folder that holds the files attached to the results
    asked: Asked | None = None  # the order of the table, and the names in papers

    @property
    def failed(self) -> int:
        """The number of cells without numbers."""
        return sum(result["status"] != "done" for result in self.results)

    def table(self) -> Table:
        """Return the comparison table; its caption names the first results that were not measured alike."""
        return self._table

    @cached_property
    def _table(self) -> Table:
        return Table(self.results, mixed=True, asked=self.asked, **self._files)

    @property
    def _files(self) -> dict[str, Any]:
        return {"attached": self.store.attached, "folder": self.store.folder} if self.store else {}

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each cell; see :func:`czslkit.results`."""
        return results_frame(self.results, **self._files, given=self.asked.labels if self.asked else {})

    def to_markdown(self) -> str:
        """Return the table in Markdown."""
        return self.table().to_markdown()

    def to_csv(self) -> str:
        """Return the table as CSV, with a line for each row, dataset and world."""
        return self.table().to_csv()

    def to_latex(self, wide: bool = False) -> str:
        """Return the table in LaTeX; ``wide`` uses ``table*`` and puts more datasets side by side."""
        return self.table().to_latex(wide)

    def to_bibtex(self) -> str:
        """Return the BibTeX entries that the table in LaTeX cites."""
        return self.table().to_bibtex()

    def to_json(self) -> str:
        """Return the table as JSON, with the numbers of every seed."""
        return self.table().to_json()


def bench(
    methods: Sequence[str | Variant] | str | None = None,
    datasets: Sequence[str] | str | None = None,
    worlds: Sequence[str] | str | None = None,
    seeds: Sequence[int] | None = None,
    *,
    suite: str | Path | None = None,
    checkpoints: Sequence[str | Path] = (),
    recipes: Mapping[str, str | Path] | None = None,
    data: str | Path | None = None,
    runs: str | Path = "runs",
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    device: str = "auto",
    workers: int | str = "auto",
    cache: str | Path | None = None,
    cache_images: bool = False,
    memory: str | int = MEMORY,
    estimate: bool = False,
    jobs: int | str = 1,
    slurm: Mapping[str, Any] | None = None,
    detach: bool = False,
    keep_stale: bool = False,
    allow_missing: bool = False,
    verbose: bool = False,
    loggers: Sequence[str] | str = (),
    progress: bool = True,
    log: Callable[[str], None] = log_to_stderr,
) -> Benchmark:
    """Train and evaluate every method on every dataset; stored results that are not stale are used again.

    A cell that fails is recorded with its reason, and the other cells run. The same call resumes a benchmark that was
    killed. A job that another process runs is put off until after the other jobs, so the same call on several hosts
    with one folder of results shares the work. This function is longer than others because it documents every argument
    of the runner.

    Args:
        methods: registered names, as a sequence or separated by commas, or ``all``; a
            :class:`~czslkit.runner.variant.Variant` is a method with settings and a label of its own. If None, those of
            ``suite`` or of ``checkpoints``.
        datasets: names; ``all`` stands for MIT-States, UT-Zappos and C-GQA; if None, those of ``suite`` or ``demo``.
        worlds: ``closed``, ``open`` or both; if None, those of ``suite`` or both.
        seeds: seeds of the trainings; each method is trained once for each seed. If None, those of ``suite`` or 0.
        suite: a YAML file that holds a comparison; see docs/suites.md. Every other argument overrides it. Of
            ``methods``, those that it has keep their settings there.
        checkpoints: folders that ``czslkit convert`` or a training wrote, or ``hf:USER/NAME[@REVISION]``, repositories
            of ``czslkit push``. Their methods are evaluated without training; the other methods are trained.
        recipes: recipe files by method, such as ``{"csp": "my/csp.yaml"}``; each is used on every dataset.
        data: folder of the datasets; ``$CZSLKIT_DATA`` or ``./data`` if None.
        runs: folder of the results.
        settings: as in :func:`czslkit.runner.plan.plan`, such as ``{"train.epochs": 3}``; each value of a grid,
            ``{"train.lr": czslkit.Grid([1e-3, 5e-3])}``, is run with each value of the other grids.
        preset: ``demo`` or ``paper``; see :func:`czslkit.runner.plan.plan`.
        device: ``auto``, or a device name of torch such as ``cuda:1``.
        workers: number of processes that read images, 0 for none; ``auto`` is one for each core but one, at most 8, and
            0 on two cores or fewer.
        cache: folder for the features of frozen image encoders; ``runs/cache`` if None, ``off`` for no cache. No number
            depends on it.
        cache_images: also cache decoded images, about 150 KB each at 224 pixels.
        memory: bytes that an evaluation may take, and the estimate of a training, such as ``"4GB"``, without the
            weights of the method.
        jobs: trainings that run at the same time on this machine, each in a process of its own, and each on one of the
            GPUs that are visible; ``auto`` for one on each GPU. The script that calls this function must do so under
            ``if __name__ == "__main__":``, since the processes import it. No number depends on it, except for rounding
            if each training gets another number of threads; see docs/jobs.md.
        estimate: log the time and memory of every cell, and run none; the results are the cells that cannot be run.
        slurm: run each training as a job of a Slurm cluster, with these parameters: those of submitit's executors, such
            as ``{"partition": "gpu", "gpus_per_node": 1, "timeout_min": 600}``, and ``distributed``, with which all
            tasks of a job share its training. Jobs that the same call has submitted before are followed, not submitted
            again; see docs/cluster.md.
        detach: with ``slurm``, submit what is missing and return at once, with the results that are there.
        keep_stale: also use results that are stale because something that they depend on has changed; the table names
            them.
        allow_missing: also use a dataset of your own if more than 1 % of the images of a split have a pair that is in
            no list, and are therefore left out, or if more than 1 % of its pictures could not be read when it was
            imported.
        verbose: log the traceback of every error; without it, the log has the file of the traceback.
        loggers: names of loggers, such as ``tensorboard``, as a sequence or separated by commas. Each receives the
            values of every training; no result depends on it. See docs/tracking.md.
        progress: show progress: bars on a terminal and in a notebook, elsewhere a line at least every minute.
        log: called with a line for every step; prints to standard error by default.

    Raises:
        ConfigError: names, keys or values are unknown; no cell has been run.
        ProcessError: no process can import the script that calls this function.

    >>> import tempfile, czslkit
    >>> from czslkit.data.make.mini import write_mini
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_mini("ut-zappos", folder)
    ...     where = {"data": folder, "runs": f"{folder}/runs", "log": lambda line: None}
    ...     result = czslkit.bench("clip", "ut-zappos", "closed", settings={"backbone": "demo"}, **where)
    >>> result.failed, list(result.results[0]["metrics"])[:2]
    (0, ['auc', 'best_seen'])
    """
    if jobs != 1:
        exit_if_imported_as_script()
    of_file, problems = (Suite(), ()) if suite is None else read_suite(suite, data)
    request = Request(
        of_file.choose(methods),
        of_file.datasets if datasets is None else datasets,
        of_file.worlds if worlds is None else worlds,
        of_file.seeds if seeds is None else tuple(seeds),
        checkpoints=tuple(checkpoints),
        recipes=recipes,
        data=data,
        runs=runs,
        settings=settings,
        preset=of_file.preset if preset is None else preset,
        device=device,
        workers=workers,
        processes=trainings_at_a_time(jobs, device),
        cache=cache,
        cache_images=cache_images,
        memory=memory,
        estimate=estimate,
        keep_stale=keep_stale,
        allow_missing=allow_missing,
        verbose=verbose,
        loggers=loggers,
        progress=progress,
        problems=problems,
    ).with_local_checkpoints()
    parameters = slurm_parameters(slurm, detach, device)
    if request.processes > 1 and (parameters is not None or process_count() > 1):
        other = "slurm" if parameters is not None else "torchrun"
        raise ConfigError([f"jobs is {jobs}, expected 1 with {other}, which runs trainings in processes of its own"])
    if estimate and process_rank():
        return Benchmark((), request.store)
    if not estimate:
        distributed.connect()
    if process_rank():
        request, log = replace(request, progress=False), _drop
    with distributed.together(), distributed.agreed():
        planned = planned_here(request, log, elsewhere=parameters is not None)
    store, specs = request.store, [job.spec for job in planned]
    if process_rank():
        return Benchmark(tuple(run_jobs(planned)), store)
    for line in failures():
        log(f"set aside: {line}")
    if estimate:
        return Benchmark(tuple(result for job in planned for result in _estimate_or_failures(job)), store)
    remove_unfinished(store.root)
    asked = remember(store.root, _command(specs), _names(specs), log, _labels(specs))
    if parameters is None:
        return Benchmark(tuple(run_several(request, planned, log)), store, asked)
    from .slurm import run_on_slurm  # needs the extra with submitit

    return Benchmark(tuple(run_on_slurm(request, planned, parameters, detach, log)), store, asked)


def _drop(line: str) -> None:
    """Drop a line of the log, which the first process of torchrun writes."""


def _command(specs: Sequence[Spec]) -> Command:
    """Return the grid of cells that was asked for."""
    cells = [spec.cell("closed") for spec in specs]
    rows = dict.fromkeys((cell["dataset"], cell["method"], cell["config_id"]) for cell in cells)
    return Command(tuple(rows), tuple(dict.fromkeys(spec.seed for spec in specs)), specs[0].worlds)


def _labels(specs: Sequence[Spec]) -> dict[Row, str]:
    """Return the labels that the user gave to rows."""
    return {(spec.dataset, spec.method, config_id(spec.config)): spec.name for spec in specs if spec.label}


def _names(specs: Sequence[Spec]) -> dict[str, dict[str, PaperName]]:
    """Return the names in papers by ``"method"`` or ``"dataset"`` and registered name."""
    return {
        "method": {spec.method: paper_name(METHODS[spec.method], spec.method) for spec in specs},
        "dataset": {spec.dataset: paper_name(type(dataset(spec.dataset)), spec.dataset) for spec in specs},
    }


def _estimate_or_failures(job: Job) -> list[dict[str, Any]]:
    """Log the time and memory of a job; return a failed result for each world if the job cannot be run."""
    try:
        estimate_job(job)
    except Exception as error:
        return failed_results(job, error)
    return []
