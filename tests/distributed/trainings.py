"""Run methods on the tiny dataset, in one process or in those of torchrun: FOLDER STAGE...

Stages: ``one`` trains in the folder ``one``; ``stopped`` trains one epoch in ``two`` and copies it to ``handed``;
``two`` and ``handed`` go on there. In the second epoch, a process of ``killed`` is killed, and one of ``alone`` fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import czslkit
from czslkit import distributed
from czslkit.method import METHODS
from czslkit.registry import load_unpackaged
from czslkit.runner import forecast
from czslkit.torchrun import process_rank
from czslkit.training.epoch import Trainer

SETTINGS: dict[str, Any] = {
    "train.epochs": 2,
    "train.batch_size": 8,
    "train.clip_norm": 1.0,
    "train.select": "loss",
    "train.lr": 1e-3,
}
#: Methods whose training goes on in a single process: with batch normalisation, and with an average of weights.
HANDED = ("troika", "contrastive")
OWN: dict[str, dict[str, Any]] = {
    "visprod": {"backbone": "timm/resnet10t/random", "image_size": 32, "tune": "all", "dropout": 0.2, "hidden": 8}
}


def train(folder: Path, runs: str, methods: Iterable[str] = METHODS) -> None:
    """Train and evaluate methods: by default every registered one, with those of ``methods.py``."""
    for name in methods:
        settings = {"backbone": "demo", **SETTINGS, **OWN.get(name, {})}
        if name in ("contrastive", "remembering"):
            settings |= {"train.select": "auc"}
        czslkit.bench(
            [name],
            "tiny",
            settings=settings,
            data=folder,
            runs=folder / runs,
            device="cpu",
            progress=False,
            loggers="csv",
            log=lambda line: print(line, flush=True),
        )


def stopped(trainer: Trainer, epoch: int) -> dict[str, float]:
    """Train the first epoch; raise an error in the second one."""
    if epoch:
        raise RuntimeError("stopped after an epoch")
    return _run(trainer, epoch)


def killed(trainer: Trainer, epoch: int) -> dict[str, float]:
    """Train the first epoch; kill the second process in the second one."""
    if epoch and process_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return _run(trainer, epoch)


def alone(trainer: Trainer, epoch: int) -> dict[str, float]:
    """Train the first epoch; raise an error in the second process in the second one."""
    if epoch and process_rank() == 1:
        raise RuntimeError("only here")
    return _run(trainer, epoch)


_run = Trainer.run

if __name__ == "__main__":
    torch.set_num_threads(1)
    forecast.MIN_SECONDS = 0.0  # a forecast takes as long as the training here
    folder = Path(sys.argv[1])
    load_unpackaged(str(Path(__file__).with_name("methods.py")))
    for stage in sys.argv[2:]:
        if stage == "stopped":
            with mock.patch.object(Trainer, "run", stopped):
                train(folder, "two")
            if process_rank() == 0:
                shutil.copytree(folder / "two", folder / "handed")
        elif stage in ("killed", "alone"):
            distributed.AGREEMENT = timedelta(seconds=2)
            with mock.patch.object(Trainer, "run", {"killed": killed, "alone": alone}[stage]):
                train(folder, stage, ["csp"])
        else:
            train(folder, stage, HANDED if stage == "handed" else METHODS)
