"""Values of a training in Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CzslkitError
from . import LOGGERS, Logger, Run

PROJECT = "czslkit"
_FINISH_SECONDS = 120.0  # time to send what is left at the end; what is not sent stays on disk


@LOGGERS.register("wandb")
class Wandb(Logger):
    """Weights & Biases, online or offline, with its usual environment variables."""

    requires = ("wandb",)

    def start(self, run: Run, settings: Mapping[str, Any]) -> str:
        """Begin a run in ``$WANDB_PROJECT``, or go on with the one that has the kept id.

        Raises:
            CzslkitError: the run is to be online, and there is no key to log in with.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would send errors of this process
        import wandb

        own = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, finish_timeout=_FINISH_SECONDS
        )
        folder = os.environ.get("WANDB_DIR") or str(run.root)
        os.makedirs(folder, exist_ok=True)
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise CzslkitError("no API key: run wandb login, or set WANDB_API_KEY, or WANDB_MODE=offline")
        identity = run.kept_id() or uuid.uuid4().hex
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=folder,
            id=identity,
            name=run.name,
            group=run.group,
            tags=[run.dataset, run.method],
            config=dict(settings),
            resume="allow",
            reinit="create_new",
            settings=own,
        )
        run.keep_id(identity)
        if self.run.disabled:
            return "nowhere, since WANDB_MODE is disabled"
        return f"wandb sync {Path(self.run.dir).parent}" if self.run.offline else str(self.run.url)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the values; a run that goes on has the values of its earlier steps, and only sums them up anew."""
        if step < self.run.step:
            self.run.summary.update(dict(values))
        else:
            self.run.log(dict(values), step=step)

    def finish(self, status: str) -> None:
        """End the run, which counts as failed unless it is done."""
        self.run.finish(exit_code=int(status != "done"))
