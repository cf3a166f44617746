"""The rows of a batch that one of several ranks computes, so that all ranks together compute what one process would.

Every rank has a share of the images of a batch. Two operations of torch treat all rows of a batch as one:
batch normalisation takes its statistics from all of them, and dropout draws one mask for all of them. Within a
``with whole_batches()`` block both do this for the rows of all ranks. Texts are the same for all ranks: each encodes a
share of them, and the shares are gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import distributed


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a batch: those that a rank computes."""

    start: int
    stop: int
    total: int  # rows of the whole batch

    @staticmethod
    def of_this_rank(total: int) -> Rows:
        """Return the share of this rank, or all rows if there are fewer than ranks."""
        if total < distributed.size():
            return Rows(0, total, total)
        part = distributed.share(total)
        return Rows(part.start, part.stop, total)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def part(self) -> slice:
        """The rows as a slice of the batch."""
        return slice(self.start, self.stop)

    @property
    def weight(self) -> float:
        """The weight of this rank's mean over its rows in the mean over the whole batch; the weights add up to 1."""
        return 1 / distributed.size() if len(self) == self.total else len(self) / self.total


_rows: Rows | None = None  # a global, since torch computes gradients, and recomputes, in threads of its own


@contextmanager
def computing(rows: Rows | None) -> Iterator[None]:
    """Compute these rows of a batch within the ``with`` block; None: something that has no rows of a batch."""
    global _rows
    before, _rows = _rows, rows
    try:
        yield
    finally:
        _rows = before


def same_rows(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that computes the rows of now whenever it is called, for what is computed a second time."""
    rows = _rows
    if rows is None or distributed.size() == 1:
        return function

    def computed(*inputs: Tensor) -> Tensor:
        with computing(rows):
            return function(*inputs)

    return computed


def encoded_by_ranks(
    texts: int,
    encode: Callable[[slice], Tensor],
    otherwise: Callable[[int, Callable[[slice], Tensor]], Tensor] = lambda texts, encode: encode(slice(None)),
) -> Tensor:
    """Return the encoded texts, ``[texts, ...]``; in a training step of several ranks, each rank encodes a share.

    The gradient of a rank reaches the texts of all ranks.

    Args:
        texts: number of texts.
        encode: function that encodes the texts in a slice.
        otherwise: called with both in a single process, and without gradients; by default encodes all texts at once.
    """
    in_step = F.dropout is _dropout  # all ranks call this function equally often in a training step only
    if not in_step or not torch.is_grad_enabled() or texts < distributed.size():
        return otherwise(texts, encode)
    rows = Rows.of_this_rank(texts)
    with computing(rows):
        own = encode(slice(rows.start, rows.stop))
    gathered: Tensor = _Gathered.apply(own, rows)
    return gathered


class _Gathered(torch.autograd.Function):
    """The rows of all ranks, each of which has a share of them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        whole = own.new_zeros(rows.total, *own.shape[1:])
        whole[rows.start : rows.stop] = own
        return distributed.summed(whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return distributed.summed(grad)[ctx.rows.start : ctx.rows.stop], None


@contextmanager
def whole_batches() -> Iterator[None]:
    """Let dropout and batch normalisation treat the rows of all ranks as one batch within the ``with`` block.

    Both functions of torch are replaced, not the modules that call them: a plugin, or a model of timm, may call them
    in modules of its own.
    """
    if distributed.size() == 1:
        yield
        return
    with replaced(F, "dropout", _dropout), replaced(F, "batch_norm", _batch_norm):
        yield


@contextmanager
def replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Call ``function`` for a function of a module, or a method of an object, within the ``with`` block."""
    missing = object()
    own = vars(owner).get(name, missing)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if own is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


_torch_dropout, _torch_batch_norm = F.dropout, F.batch_norm


def _scale(tensor: Tensor) -> int | None:
    """Return the number of rows of a tensor for each row of the batch; None if it has other rows, or all of them.

    Consecutive rows of the tensor belong to one row of the batch.
    """
    if _rows is None or len(_rows) == _rows.total or not tensor.ndim or len(tensor) % len(_rows):
        return None
    return len(tensor) // len(_rows)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Replace ``torch.nn.functional.dropout``: draw the mask of the whole batch, and use its rows of this rank."""
    scale = _scale(input)
    if scale is None or _rows is None or not training or not 0 < p < 1:
        return _torch_dropout(input, p, training, inplace)
    order = sorted(range(input.ndim), key=input.stride, reverse=True)  # torch draws in the order of the memory
    shape = (scale * _rows.total, *input.shape[1:])
    mask = torch.empty_permuted(shape, order, dtype=torch.bool, device=input.device).bernoulli_(1 - p)
    return input * mask[scale * _rows.start : scale * _rows.stop].to(input.dtype).div_(1 - p)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Replace ``torch.nn.functional.batch_norm``: the statistics are those of the rows of all ranks."""
    scale = _scale(input)
    if scale is None or _rows is None or not training:
        return _torch_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    count = input.numel() // input.shape[1] // len(_rows) * _rows.total
    normalised, mean, var = _Normalised.apply(input, count, eps)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_(var.to(running_var.dtype) * (count / (count - 1)), momentum)
    shape = (1, -1, *[1] * (input.ndim - 2))
    if weight is not None:
        normalised = normalised * weight.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    result: Tensor = normalised.to(input.dtype)
    return result


class _Normalised(torch.autograd.Function):
    """Values with mean 0 and variance 1 in each channel over all ranks, and the mean and variance before."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, count: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        ctx.dims = [dim for dim in range(input.ndim) if dim != 1]
        ctx.shape, ctx.count = (1, -1, *[1] * (input.ndim - 2)), count
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean = distributed.summed(values.sum(ctx.dims)) / count
        centred = values - mean.view(ctx.shape)
        var = distributed.summed(centred.square().sum(ctx.dims)) / count
        scale = (var + eps).rsqrt()
        normalised = centred * scale.view(ctx.shape)
        ctx.save_for_backward(normalised, scale)
        ctx.mark_non_differentiable(mean, var)
        return normalised, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor, None, None]:
        normalised, scale = ctx.saved_tensors
        sums = torch.stack((grad.sum(ctx.dims), (grad * normalised).sum(ctx.dims)))
        mean, along = (distributed.summed(sums) / ctx.count).view(2, *ctx.shape)
        return (grad - mean - normalised * along) * scale.view(ctx.shape), None, None
