"""Trainings of small methods on the toys, which can be killed before an epoch."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

import czslkit
from czslkit import Feed
from czslkit.evaluation.validation import plan_validation
from czslkit.options import parse
from czslkit.training.epoch import Trainer
from czslkit.training.loop import train
from czslkit.training.options import TrainOptions
from czslkit.training.state import TrainingState


class Killed(BaseException):
    """An exception in place of a signal; no code catches it."""


@pytest.fixture
def toy(toys):
    return czslkit.load_dataset("toys", toys)


@pytest.fixture
def run(toy, clip_file, tmp_path):
    """Train a new method for four epochs; return it with the record of its training."""

    def go(cls, folder="a", said=None, **settings):
        torch.manual_seed(0)
        method = cls(clip_file, toy.space)
        data = toy.training_data()
        method.prepare(data)
        chosen = {"epochs": 4, "batch_size": 8, "lr": 1e-2, "augment": False, **settings}
        options = parse(TrainOptions, chosen, where="test")
        validate = plan_validation(method, toy, Feed(method, toy.val, 8), options, bins="original")
        feed = Feed(method, toy.train, options.batch_size, augment=options.augment)
        state = TrainingState(tmp_path / folder, "k")
        said = [] if said is None else said
        return method, train(method, feed, options, validate, state, data=data, seed=0, log=said.append)

    return go


@pytest.fixture
def killed_before():
    """Return a context in which a training is killed before an epoch, counted from 0."""

    @contextmanager
    def go(epoch):
        real = Trainer.run

        def run(self, number):
            if number == epoch:
                raise Killed
            return real(self, number)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "run", run)
            with pytest.raises(Killed):
                yield

    return go
