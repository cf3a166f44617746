"""The memory and the operations of a training step, counted with tensors that have shapes and no values.

A step of a large model on a large dataset is counted in seconds, on a machine that could not compute it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from ..data.batches import Feed
from ..errors import CzslkitError
from ..footprint import Footprint, tensors_in
from ..method import Method
from ..precision import computing_in
from ..recompute import NOTHING, Recomputation, recompute
from ..training_hooks import TrainingData
from ..types import Batch
from .companions import companion_choice
from .losses import loss_parts
from .options import TrainOptions

_aten: Any = torch.ops.aten
#: Operations of a function from its arguments, by function.
_OPERATIONS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda *args, **_: _attention(args[:3]),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *args, **_: 5 * _attention(args[1:4]) // 2,
    torch.ops.czslkit.onednn_linear: lambda x, weight, *_, **__: 2 * x.numel() * weight.shape[0],
}


def _attention(tensors: Sequence[Tensor]) -> int:
    """Return the operations of attention without its gradients, from queries, keys and values."""
    return int(sdpa_flop_count(*(tensor.shape for tensor in tensors)))


class NotCountableError(CzslkitError):
    """The loss of a method needs values, so its step cannot be counted; the message has the reason."""


@dataclass(frozen=True)
class StepCount:
    """What a training step takes."""

    bytes: int  # largest memory during the step, with weights, gradients and the state of the optimiser
    kept: int  # bytes that are kept until the gradients are computed
    operations: int  # additions and multiplications of matrix products, in the loss and its gradients
    moved: int  # bytes that operations read and write


class StepCounter:
    """Counts training steps of a method; the method itself and the random numbers stay as they are.

    Args:
        method: on the device to train on, with the parameters trainable that will be trained.
        feed: the batches of the training.
        options: its settings.
        data: the training split as hooks receive it.
    """

    def __init__(self, method: Method, feed: Feed, options: TrainOptions, data: TrainingData) -> None:
        self.method, self.feed, self.options, self.data = method, feed, options, data
        self.pairs = feed.split.pairs.to(method.device)
        self.whole = (min(options.batch_size, len(feed.split)), len(self.pairs))  # images and pairs of a step
        self._counts: dict[tuple[Recomputation, int, int], StepCount] = {}

    def count(self, how: Recomputation = NOTHING, batch: Batch | None = None, pairs: Tensor | None = None) -> StepCount:
        """Return what a step takes.

        Args:
            how: what it recomputes.
            batch: the images of the step, if they are not those of a whole batch.
            pairs: the pairs of the step, if they are not all training pairs.

        Raises:
            NotCountableError: the loss needs values.
        """
        pairs = self.pairs if pairs is None else pairs
        key = (how, self.whole[0] if batch is None else len(batch.attr), len(pairs))
        if key not in self._counts:
            try:
                with kept_random_state(self.method.device):
                    self._counts[key] = self._counted(how, batch, pairs)
            except Exception as error:
                kind = type(self.method).__name__
                raise NotCountableError(
                    f"a step of {kind} cannot be counted without its values: {type(error).__name__}: {error}"
                ) from error
        return self._counts[key]

    def counted(self) -> dict[Recomputation, StepCount]:
        """Return what was counted of whole steps, by what they recompute."""
        return {how: count for (how, *size), count in self._counts.items() if tuple(size) == self.whole}

    def _counted(self, how: Recomputation, batch: Batch | None, pairs: Tensor) -> StepCount:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        method = without_values(self.method, mode)
        batch = self._batch(mode) if batch is None else _faked(batch, mode)
        with recompute(how), mode, _Values() as values, Footprint() as footprint:
            with computing_in(self.options.precision, self.pairs.device):
                loss = loss_parts(method, method.loss(batch, pairs))["loss"]
            kept = footprint.live
            (loss * 1.0).backward()
        weights = sum(value.nbytes for value in (*self.method.parameters(), *self.method.buffers()))
        trained = sum(p.nbytes for p in self.method.parameters() if p.requires_grad)
        held = trained * (optimizer_numbers(self.options) + (self.options.accumulation > 1))
        fixed = weights + held + self.feed.feature_bytes + image_bytes(batch)
        return StepCount(fixed + footprint.peak, kept, values.operations, values.moved)

    def _batch(self, mode: FakeTensorMode) -> Batch:
        """Return a batch of the training, with its companions, whose images have no values."""
        companions = companion_choice(self.method, self.data, Generator().manual_seed(0))
        backbone, device = self.method.backbone, self.method.device
        shape = (backbone.dim,) if self.feed.caches_features else (3, backbone.image_size, backbone.image_size)

        def images(index: Tensor) -> Tensor:
            with mode:
                return torch.empty(len(index), *shape, device=device)

        return self.feed.batch_like(self.whole[0], images, companions)


class _Values(TorchDispatchMode):
    """A context inside a FakeTensorMode, in which labels have values; it counts operations.

    What is computed from tensors with values alone, such as labels and pairs, is computed. A single number that is read
    from a tensor without values is 1, or false.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(tensors_in((args, kwargs)))
        if any(isinstance(value, FakeTensor) for value in tensors):
            if func is _aten._local_scalar_dense.default:
                return 1.0 if args[0].is_floating_point() else args[0].dtype != torch.bool and 1
            out = func(*args, **kwargs)
            self._add(func, args, kwargs, out)
            return out
        if not tensors:
            out = func(*args, **kwargs)
            made = list(tensors_in(out))
            if any(value.is_floating_point() for value in made) or not made:
                return out
        with unset_fake_temporarily():
            return func(*args, **kwargs)

    def _add(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Add the operations and the bytes of a call to the sums."""
        if formula := _OPERATIONS.get(func._overloadpacket):
            self.operations += formula(*args, **kwargs, out_val=out)
        if not func.is_view:
            self.moved += sum(value.nbytes for value in tensors_in((args, kwargs, out)))


def without_values(method: Method, mode: FakeTensorMode) -> Method:
    """Return a copy of a method whose parameters have no values and take no memory; its buffers have values."""
    return copy.deepcopy(method, {id(p): mode.from_tensor(p) for p in method.parameters()})


def _faked(batch: Batch, mode: FakeTensorMode) -> Batch:
    """Return a batch, with its companions, whose images have no values."""
    images = batch.images
    if isinstance(images, Tensor):
        faked: Any = mode.from_tensor(images)
    else:
        faked = replace(images, pooled=mode.from_tensor(images.pooled))
    companions = {name: _faked(companion, mode) for name, companion in batch.companions.items()}
    return replace(batch, images=faked, companions=companions)


def optimizer_numbers(options: TrainOptions) -> int:
    """Return how many numbers an optimiser keeps for each trainable parameter."""
    return 1 if options.optimizer == "sgd" else 2


def image_bytes(batch: Batch) -> int:
    """Return the bytes of the images or features of a batch and its companions."""
    own = batch.images.nbytes if isinstance(batch.images, Tensor) else batch.images.pooled.nbytes
    return own + sum(map(image_bytes, batch.companions.values()))


@contextmanager
def kept_random_state(device: torch.device) -> Iterator[None]:
    """Set the random numbers of Python and torch back at the end of the ``with`` block."""
    state = random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(state)
