"""Linear maps that use the faster of torch's two libraries for matrix products on a CPU.

For products of 32-bit floats on x86 processors, torch calls MKL, which computes with AVX2 on AMD's processors even if
they have AVX-512. oneDNN, the other library in torch, uses AVX-512 and is twice as fast there. Both compute in full
precision; only the order of the sums is different.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

#: Least number of input channels for which oneDNN is used. Narrower products take little time.
LEAST_CHANNELS = 512
_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias`` as ``torch.nn.functional.linear`` does, on some CPUs twice as fast.

    Args:
        x: ``[..., K]``.
        weight: ``[N, K]``.
        bias: ``[N]``.
    """
    if _suits_onednn(x, weight):
        product: Tensor = _onednn_linear(x, weight, bias)
        return product
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A ``torch.nn.Linear`` that computes with :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def use_linear(module: nn.Module) -> None:
    """Turn every ``torch.nn.Linear`` inside a module into a :class:`Linear` with the same parameters."""
    for part in module.modules():
        if type(part) in (nn.Linear, NonDynamicallyQuantizableLinear):  # the second is that of attention
            part.__class__ = Linear


@contextmanager
def plain_products() -> Iterator[None]:
    """Compute matrix products with torch's own operators alone, which programs without czslkit know as well."""
    global _ONEDNN
    before, _ONEDNN = _ONEDNN, False
    try:
        yield
    finally:
        _ONEDNN = before


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        _ONEDNN
        and weight.shape[1] >= LEAST_CHANNELS
        and x.ndim > 1
        and x.numel() > 0
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


@torch.library.custom_op("czslkit::onednn_linear", mutates_args=())
def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@_onednn_linear.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x if weight.requires_grad else None, weight if x.requires_grad else None)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    rows = grad.flatten(0, -2)
    return (
        None if weight is None else _onednn_linear(grad, weight.T, None),
        None if x is None else _onednn_linear(rows.T, x.flatten(0, -2).T, None),
        rows.sum(0) if ctx.needs_input_grad[2] else None,
    )


_onednn_linear.register_autograd(_gradients, setup_context=_keep)
