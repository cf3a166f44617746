"""What a method may change in its training: hooks that the training loop calls, and the data that they receive.

Every method inherits the hooks of :class:`TrainingHooks`, and overrides those that it needs. Hooks that keep tensors
register them as buffers in ``__init__``: buffers are saved after every epoch, and a training that was killed resumes
with them. Other state goes through ``training_state`` and ``load_training_state``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from .types import PairSpace


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The images of the training split with their labels. The other splits cannot be reached from here."""

    name: str  # name of the dataset
    root: Path  # folder of the dataset
    space: PairSpace
    paths: tuple[Path, ...] = field(repr=False)  # N image files
    attr: Tensor  # attribute index of each image, [N] long
    obj: Tensor  # object index of each image, [N] long

    def __len__(self) -> int:
        """Return the number of images ``N``."""
        return len(self.attr)

    @cached_property
    def pair(self) -> Tensor:
        """The row of ``space.pairs`` that each image shows, ``[N]`` long."""
        rows = torch.full((len(self.space.attrs) * len(self.space.objs),), -1)
        rows[self.space.flat()] = torch.arange(len(self.space.pairs))
        return rows[self.attr * len(self.space.objs) + self.obj]

    @property
    def pair_counts(self) -> Tensor:
        """The number of images of each pair in ``space.pairs``, ``[P]`` long; 0 for unseen pairs."""
        return torch.bincount(self.pair, minlength=len(self.space.pairs))

    @property
    def attr_counts(self) -> Tensor:
        """The number of images of each attribute, ``[A]`` long."""
        return torch.bincount(self.attr, minlength=len(self.space.attrs))

    @property
    def obj_counts(self) -> Tensor:
        """The number of images of each object, ``[O]`` long."""
        return torch.bincount(self.obj, minlength=len(self.space.objs))


@dataclass(frozen=True)
class TrainingPosition:
    """A place in a training."""

    epoch: int  # current epoch, counted from 0
    epochs: int  # number of epochs of the training
    step: int  # optimiser steps of this epoch before this place
    steps: int  # number of optimiser steps in this epoch


class TrainingHooks:
    """The hooks of a training. Their defaults change nothing."""

    #: Patterns (as in ``fnmatch``) of the names of trainable parameters that may have no gradient in the whole first
    #: epoch, such as ``("memory.*",)``. Any other parameter without a gradient ends the training with an error.
    may_lack_gradient: Sequence[str] = ()

    #: False if images must be encoded in every epoch although no gradient reaches their features, for example because
    #: a hook changes the encoder.
    caches_features: bool = True

    def prepare(self, data: TrainingData) -> None:
        """Use the training data once, when a new method has been built and before anything is measured or trained.

        Tensors that are computed here belong into buffers that ``__init__`` registered with their final shapes, since a
        trained method is loaded without the data.
        """

    def parameter_groups(self) -> Sequence[Mapping[str, Any]]:
        """Return groups of parameters as ``torch.optim`` takes them; by default one group of all trainable parameters.

        A group has ``params``, and may have ``lr_scale`` (factor of ``train.lr``, 1 by default), ``weight_decay``
        (``train.weight_decay`` by default) and ``optimizer`` (a name as in ``train.optimizer``, which is the default,
        or a class of ``torch.optim``). Other keys are arguments of this optimiser.

        Every trainable parameter belongs to exactly one group. A parameter that is frozen at first and trained later
        belongs to a group from the start, since this method is also called when a trained method is saved or loaded.
        """
        assert isinstance(self, nn.Module)
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def sample_order(self, data: TrainingData, epoch: int, generator: Generator) -> Tensor | None:
        """Return the images of an epoch in their order, ``[n]`` long; None for a random permutation of all images.

        Images may be left out or repeated; every repeat has an augmentation of its own. The order may depend only on
        the arguments and on the method's tensors.

        Args:
            generator: generator of random numbers, seeded for this epoch.
        """
        return None

    def companions(self, data: TrainingData, index: Tensor, generator: Generator) -> Mapping[str, Tensor]:
        """Return additional training images for a batch; ``batch.companions[name]`` then has these images.

        The companions of all batches of an epoch are chosen before its first step. An image that is also in a batch has
        another augmentation as a companion.

        Args:
            index: the images of the batch, ``[B]`` long.
            generator: generator of random numbers, seeded for this epoch.

        Returns:
            Indices of images for each name, ``[k]`` long, for any ``k``. -1 stands for no image: it is left out, and
            ``batch.companions[name].rows`` has the places of the others.
        """
        return {}

    def before_epoch(self, position: TrainingPosition) -> None:
        """Act before an epoch, for example freeze or unfreeze parameters."""

    def after_epoch(self, position: TrainingPosition) -> None:
        """Act after an epoch, before the validation."""

    def before_step(self, position: TrainingPosition) -> None:
        """Act before the loss of an optimiser step is computed."""

    def after_step(self, position: TrainingPosition) -> None:
        """Act after an optimiser step, for example update a queue or an average of weights."""

    def evaluation_weights(self) -> Mapping[str, Tensor]:
        """Return tensors that replace learned tensors in validation and test, by their names in ``state_dict``.

        They are in place during the validation of an epoch, and are the weights that are kept of it. Training goes on
        with the learned tensors.
        """
        return {}

    def training_state(self) -> Mapping[str, Tensor]:
        """Return tensors that a resumed training needs, apart from parameters and buffers."""
        return {}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back the tensors that ``training_state`` returned."""


def group_parameters(group: Mapping[str, Any]) -> list[nn.Parameter]:
    """Return the parameters of a group of ``parameter_groups``."""
    params = group["params"]
    return [params] if isinstance(params, nn.Parameter) else list(params)


class AveragedWeights(nn.Module):
    """An exponential moving average of the trainable parameters of a method, kept in buffers.

    A method makes it at the end of ``__init__``, calls ``update`` in ``after_step``, and returns ``tensors()`` in
    ``evaluation_weights``.

    Args:
        method: the method whose parameters are averaged.
        decay: weight of the old average in an update, from 0 to 1.
        warmup: use a smaller decay, ``(1 + n) / (10 + n)`` in update ``n``, until it reaches ``decay``.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = AveragedWeights(layer, decay=0.5, warmup=False)
    >>> start = layer.weight.item()
    >>> with torch.no_grad():
    ...     _ = layer.weight.add_(1)
    >>> average.update(layer)
    >>> round(average.tensors()["weight"].item() - start, 4)
    0.5
    """

    #: Raise this number when the numbers that the class computes change: results of older versions are then run again.
    version: ClassVar[int] = 1

    def __init__(self, method: nn.Module, decay: float = 0.999, *, warmup: bool = True) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}, expected a number from 0 to 1")
        self.decay, self.warmup = decay, warmup
        self.names = [name for name, p in method.named_parameters() if p.requires_grad]
        self.register_buffer("updates", torch.tensor(0))
        self.updates: Tensor
        self._count: int | None = 0  # the value of ``updates``; None after it was loaded
        for name, parameter in method.named_parameters():
            if parameter.requires_grad:
                self.register_buffer(name.replace(".", "/"), parameter.detach().clone())

    @torch.no_grad()
    def update(self, method: nn.Module) -> None:
        """Move the average towards the current parameters of ``method``.

        Raises:
            ValueError: a trainable parameter has no average.
        """
        count = int(self.updates) if self._count is None else self._count
        decay = min(self.decay, (1 + count) / (10 + count)) if self.warmup else self.decay
        parameters = dict(method.named_parameters())
        if late := [name for name, p in parameters.items() if p.requires_grad and name not in self.names]:
            raise ValueError(
                f"{', '.join(late)} had no average, since it was frozen or absent when the average was made: make it "
                "trainable before AveragedWeights is made, and freeze it afterwards"
            )
        for name, average in self.tensors().items():
            average.lerp_(parameters[name], 1 - decay)
        self.updates += 1
        self._count = count + 1

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._count = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages by the names of their parameters in the method."""
        return dict(self._averages())

    def _averages(self) -> Iterator[tuple[str, Tensor]]:
        buffers = dict(self.named_buffers())
        return ((name, buffers[name.replace(".", "/")]) for name in self.names)
