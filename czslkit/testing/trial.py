"""The trial of a method: its trainings on the tiny dataset, each made once and shared by all checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..backbones import resolve
from ..checkpoints.trained import TrainedMethod, save
from ..components import BACKBONES
from ..data.loading import load_dataset
from ..data.splits import Splits
from ..evaluation.validation import plan_validation
from ..method import METHODS, Method
from ..metrics.names import WORLDS
from ..options import as_dict
from ..registry import is_builtin
from ..result_store import Store
from ..runner.data_source import DataSource
from ..runner.job import Job
from ..runner.machine import Machine
from ..runner.plan import Spec, plan
from ..runner.prepare import build_method, evaluation_feed
from ..training.companions import companion_choice
from ..training.epoch import epoch_order
from ..training.loop import Training, train
from ..training.state import TrainingState
from ..training_files import STATE_FILE
from ..types import Batch
from .scores import Scoring, add_noise
from .tiny_data import NAME, write_tiny

EPOCHS, BATCH_SIZE = 4, 6
KEY = "check"  # key of the trainings


class Killed(BaseException):
    """The end of a training that is killed on purpose; no code catches it."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished training."""

    method: Method  # with the weights of the kept epoch
    training: Training
    folder: Path  # with the checkpoint and the state file

    @property
    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state file: weights, kept weights and optimiser."""
        return load_file(self.folder / STATE_FILE)

    @property
    def history(self) -> list[dict[str, float]]:
        """The numbers of every epoch in the state file."""
        with safe_open(self.folder / STATE_FILE, "pt") as file:
            history: list[dict[str, float]] = json.loads(file.metadata()["history"])
        return history

    @property
    def learned(self) -> dict[str, Tensor]:
        """The tensors of the method after the last epoch."""
        return {name[7:]: value for name, value in self.state.items() if name.startswith("method.")}

    def reloaded(self) -> Method:
        """Return the method that is built from the checkpoint alone."""
        return TrainedMethod.read(self.folder).build()


class MethodTrial:
    """A method on the tiny dataset.

    Args:
        name: registered name of the method.
        options: options of the method.
        folder: an empty folder for data and results.
    """

    def __init__(self, name: str, options: Mapping[str, Any], folder: Path) -> None:
        self.name, self.folder, self.cls, self._options = name, folder, METHODS[name], options

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of the method, with a small backbone."""
        return {**_small_backbone(self.cls), **self._options}

    @cached_property
    def data(self) -> Splits:
        """The tiny dataset."""
        write_tiny(self.folder / "data")
        return load_dataset(NAME, self.folder / "data")

    def settings(self, **settings: Any) -> dict[str, Any]:
        """Return the settings of a benchmark with the method's options and a short training."""
        short = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, **settings}
        return {**self.options, **{f"train.{key}": value for key, value in short.items()}}

    def spec(self, **settings: Any) -> Spec:
        """Return the plan of a short training in small batches, with the method's recipe."""
        (spec,) = plan([self.name], [NAME], WORLDS, settings=self.settings(**settings))
        return spec

    def job(self, place: str, log: Callable[[str], None] = lambda line: None, **settings: Any) -> Job:
        """Return a job whose results are in the folder ``place``."""
        source = DataSource(self.folder / "data", self.folder / "checked", None)
        machine = Machine("cpu", progress=False)
        return Job(self.spec(**settings), Store(self.folder / place), source, machine, log=log)

    def build(self) -> Method:
        """Return the method as it is before training; two calls return equal methods."""
        return build_method(self.job("built"), self.data)

    def train(self, place: str, log: Callable[[str], None] = lambda line: None, **settings: Any) -> Trained:
        """Train the method in the folder ``place``, or resume a training that was killed there."""
        job, folder = self.job(place, log, **settings), self.folder / place
        spec, method, data = job.spec, build_method(job, self.data), self.data
        validate = plan_validation(
            method,
            data,
            evaluation_feed(job, method, data.val),
            spec.train,
            bins=spec.evaluation.bins,
            stream_seed=spec.evaluation.stream_seed,
        )
        training = train(
            method,
            job.machine.training_feed(method, data.train, spec.train, spec.seed),
            spec.train,
            validate,
            TrainingState(folder, KEY),
            data=data.training_data(),
            seed=spec.seed,
            log=log,
        )
        save(folder, self.name, method, as_dict(spec.options))
        return Trained(method, training, folder)

    def train_killed(self, place: str) -> Trained:
        """Train the method in sessions of one epoch, each killed at its end, with a new method object in each."""
        for epoch in range(1, EPOCHS):

            def kill(line: str, end: str = f"epoch {epoch}/") -> None:
                if line.startswith(end):
                    raise Killed

            try:
                self.train(place, kill)
            except Killed:
                continue
            raise AssertionError(f"the training logged no line for epoch {epoch}")
        return self.train(place)

    def first_batch(self) -> tuple[Method, Batch]:
        """Return a prepared method before training, with its first training batch and the companions of this batch."""
        job, method = self.job("built"), self.build()
        data = self.data.training_data()
        train = job.spec.train
        feed = job.machine.training_feed(method, self.data.train, train)
        order = epoch_order(method, data, 0, torch.Generator().manual_seed(0))
        companions = companion_choice(method, data, torch.Generator().manual_seed(0))
        return method, next(feed.batches(order, 0, None, companions))

    @cached_property
    def trained(self) -> Trained:
        """An uninterrupted training."""
        return self.train("trained")

    @cached_property
    def perturbed(self) -> Method:
        """The prepared method with noise on its trainable parameters, in evaluation mode."""
        method = self.build()
        add_noise(method)
        return method.eval()

    @cached_property
    def scoring(self) -> Scoring:
        """The perturbed method with the images of the test split, and every pair of the open world."""
        feed = self.job("built").machine.feed(self.perturbed, self.data.test, BATCH_SIZE)
        images = feed.sample(BATCH_SIZE).images
        assert isinstance(images, Tensor)
        return Scoring(self.perturbed, images, self.data.space.open().pairs)


def _small_backbone(cls: type[Method]) -> dict[str, Any]:
    """Return ``backbone=demo`` for a method whose default backbone is a large model with weights to download."""
    if not is_dataclass(cls.Options):
        return {}
    default = next((field.default for field in fields(cls.Options) if field.name == "backbone"), None)
    if not isinstance(default, str):
        return {}
    kind = BACKBONES[resolve(default)[0]]
    return {"backbone": "demo"} if is_builtin(kind.__module__) else {}
