"""The memory of a computation in bytes, measured while it runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Footprint(TorchDispatchMode):
    """A context that counts the bytes of the tensors that are made inside it, on any device.

    Tensors that were made before the context do not count. Memory that an operation frees before it returns does not
    count either.

    >>> import torch
    >>> with Footprint() as footprint:
    ...     kept = torch.ones(10) + torch.zeros(10)
    >>> footprint.peak, footprint.live
    (120, 40)
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._bytes: dict[int, int] = {}  # by storage; 0 for a storage from before the context

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for value in tensors_in((args, kwargs)):
            self._count(value, is_new=False)
        out = func(*args, **kwargs)
        for value in tensors_in(out):
            self._count(value, is_new=True)
        self.peak = max(self.peak, self.live)
        return out

    def _count(self, value: Tensor, *, is_new: bool) -> None:
        if value.layout != torch.strided:  # its numbers are in other tensors
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._bytes:
            self._bytes[key] = storage.nbytes() if is_new else 0
            self.live += self._bytes[key]
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._bytes.pop(key)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in arguments or results of a torch function: in lists, tuples and dicts.

    >>> import torch
    >>> [tensor.item() for tensor in tensors_in((torch.tensor(1), [torch.tensor(2)], {"scale": 3}))]
    [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
