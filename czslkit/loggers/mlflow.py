"""Values of a training in MLflow."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..files import file_lock
from . import LOGGERS, Logger, Run

EXPERIMENT = "czslkit"
_STATUS = {"done": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
#: Variables that are set unless the user has set them: no reports on the use of MLflow, and no long wait for a server.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


@LOGGERS.register("mlflow")
class Mlflow(Logger):
    """MLflow: the server of $MLFLOW_TRACKING_URI, or an SQLite file below the folder of results."""

    requires = ("mlflow", "sqlalchemy", "alembic")

    def start(self, run: Run, settings: Mapping[str, Any]) -> str:
        """Begin a run in ``$MLFLOW_EXPERIMENT_NAME``, or go on with the one that has the kept id."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)  # it says how it makes its tables
        own = f"sqlite:///{run.root.absolute() / 'mlflow.db'}"
        address = os.environ.get("MLFLOW_TRACKING_URI") or own
        run.root.mkdir(parents=True, exist_ok=True)
        with file_lock(run.root / ".lock", lambda line: None):  # trainings of one benchmark start at the same time
            self.client = MlflowClient(tracking_uri=address)
            artifacts = (run.root.absolute() / "artifacts").as_uri() if address == own else None
            experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT, artifacts)
        self.logged: dict[str, int] = {}  # the last step of each value that the run holds
        self.id = self._resumed(run.kept_id()) or self._new(experiment, run)
        run.keep_id(self.id)
        known = self.client.get_run(self.id).data.params  # which no other value can take the place of
        params = [Param(_name(name), str(value)) for name, value in settings.items() if _name(name) not in known]
        self.client.log_batch(self.id, params=params)
        return f"run {self.id} in {address}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values, except those that a run that goes on holds from before."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        new = {name: value for name, value in values.items() if step > self.logged.get(_name(name), -1)}
        self.client.log_batch(self.id, metrics=[Metric(_name(name), v, now, step) for name, v in new.items()])

    def finish(self, status: str) -> None:
        """End the run."""
        self.client.set_terminated(self.id, _STATUS[status])

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """Return the id of an experiment, which is made if it does not exist."""
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name, artifacts))

    def _new(self, experiment: str, run: Run) -> str:
        tags = {"dataset": run.dataset, "method": run.method, "seed": str(run.seed), "group": run.group}
        return str(self.client.create_run(experiment, run_name=run.name, tags=tags).info.run_id)

    def _resumed(self, identity: str | None) -> str | None:
        """Go on with a run; return its id, or None if the store has no such run."""
        if identity is None:
            return None
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            names = self.client.get_run(identity).data.metrics
            self.client.update_run(identity, "RUNNING")
            for name in names:
                self.logged[name] = max(point.step for point in self.client.get_metric_history(identity, name))
            return identity
        return None


def _name(name: str) -> str:
    """Return a name without characters that MLflow does not take.

    >>> _name("step/loss/attr"), _name("step/loss/a→b")
    ('step/loss/attr', 'step/loss/a_b')
    """
    return re.sub(r"[^A-Za-z0-9_\-. /]", "_", name)
