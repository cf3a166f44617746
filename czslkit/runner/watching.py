"""The loggers of a job: what they are told about it, and how their runs end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..loggers import LOGGERS, Run
from ..training.watch import Watch
from .job import Job
from .train import training_folder

LOGS_FOLDER = "logs"  # folder in that of the results, with a folder for each logger


@contextmanager
def watched(job: Job) -> Iterator[Watch]:
    """Give the ``with`` block what sends values to the loggers of a job, and end their runs with it."""
    watch = Watch({name: (LOGGERS[name], _run(job, name)) for name in job.loggers}, settings_of(job), job.log)
    try:
        yield watch
    except BaseException as error:
        watch.finish("failed" if isinstance(error, Exception) else "killed")
        raise
    watch.finish("done")


def settings_of(job: Job) -> dict[str, Any]:
    """Return the names of a job and its settings, each by the name that ``--set`` gives it."""
    spec = job.spec
    named: dict[str, Any] = {"method": spec.method, "dataset": spec.dataset, "seed": spec.seed}
    named |= {"label": spec.label} if spec.label else {}
    for section, values in spec.config.items():
        named |= {key if section == "options" else f"{section}.{key}": value for key, value in values.items()}
    return named


def _run(job: Job, logger: str) -> Run:
    cell = job.spec.cell("closed")
    return Run(
        cell["dataset"],
        cell["method"],
        cell["seed"],
        cell["config_id"],
        logger=logger,
        root=job.store.root / LOGS_FOLDER / logger,
        training=training_folder(job),
    )
