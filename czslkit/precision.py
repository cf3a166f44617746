"""The number format in which a method computes, in a training step or in an evaluation.

Weights, optimisers and metrics stay 32-bit floats in all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor

#: Raise it when the numbers that ``tf32`` or ``bf16`` give change: results in these formats are then made again.
VERSION = 1

#: ``fp32``: 32-bit floats, without TF32. ``tf32``: matrix products and convolutions read the first 10 of the 23 bits
#: behind the point of their inputs, on GPUs that can; other devices compute ``fp32``. ``bf16``: torch's autocast to
#: bfloat16, with 7 bits.
Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute in a number format on a device, and return to the earlier settings of torch at the end.

    >>> with computing_in("bf16", torch.device("cpu")):
    ...     (torch.eye(2) @ torch.eye(2)).dtype
    torch.bfloat16
    """
    autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else unrounded(device)
    with tf32(precision == "tf32", device), autocast:
        yield


def unrounded(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which torch does not compute in bfloat16, also inside ``computing_in("bf16", device)``."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def at_least_fp32(values: Tensor) -> Tensor:
    """Return values of a shorter format as 32-bit floats, and all others as they are.

    >>> at_least_fp32(torch.ones(2, dtype=torch.bfloat16)).dtype, at_least_fp32(torch.ones(2).double()).dtype
    (torch.float32, torch.float64)
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def precision_record(**used: Precision) -> dict[str, str]:
    """Return the number formats that are not ``fp32``, by what they were used for.

    >>> precision_record(train="fp32", eval="bf16")
    {'eval': 'bf16'}
    """
    return {name: precision for name, precision in used.items() if precision != "fp32"}


@contextmanager
def tf32(allowed: bool, device: torch.device) -> Iterator[None]:
    """Allow or forbid TF32, which is a setting of the whole process, if the device is a CUDA device."""
    if device.type != "cuda":
        yield
        return
    before = _tf32_allowed()
    _allow_tf32(allowed, allowed)
    try:
        yield
    finally:
        _allow_tf32(*before)


def _tf32_allowed() -> tuple[bool, bool]:
    """Return whether matrix products and whether cuDNN may use TF32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(cudnn, "conv"):  # torch 2.9; the older names cannot be read once a newer one was set
        return matmul.fp32_precision == "tf32", cudnn.conv.fp32_precision == "tf32"
    return matmul.allow_tf32, cudnn.allow_tf32


def _allow_tf32(matmul: bool, cudnn: bool) -> None:
    """Let matrix products and cuDNN use TF32, or not.

    The older names are set, which change the newer ones, too: torch 2.9 and some later versions warn of them, but
    their compiler fails if only the newer names were set.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_float32_matmul_precision("high" if matmul else "highest")
        torch.backends.cudnn.allow_tf32 = cudnn
