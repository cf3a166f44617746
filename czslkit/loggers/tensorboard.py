"""Values of a training for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import LOGGERS, Logger, Run

#: Values that TensorBoard shows beside the settings.
_SHOWN = ("epoch/loss", "epoch/val_auc", "test/closed/auc", "test/closed/best_hm", "test/open/auc", "test/open/best_hm")


@LOGGERS.register("tensorboard")
class TensorBoard(Logger):
    """Event files that TensorBoard shows, with the settings as hyperparameters."""

    requires = ("tensorboard",)

    def start(self, run: Run, settings: Mapping[str, Any]) -> str:
        """Open an event file; of earlier files of the run, TensorBoard shows the steps up to ``run.step``."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.writer = SummaryWriter(str(run.folder), purge_step=run.step + 1)
        plain = {name: v if isinstance(v, (int, float, str)) else str(v) for name, v in settings.items()}
        for summary in hparams(plain, dict.fromkeys(_SHOWN, 0.0)):
            self.writer._get_file_writer().add_summary(summary)
        self.writer.flush()
        return f"tensorboard --logdir {run.root}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values to the event file at once, so that nothing is lost when the process is killed."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self, status: str) -> None:
        """Close the event file."""
        self.writer.close()
