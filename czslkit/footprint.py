"""The memory of a computation in bytes, measured while it runs."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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
        for value in tree_leaves((args, kwargs)):
            self._count(value, is_new=False)
        out = func(*args, **kwargs)
        for value in tree_leaves(out):
            self._count(value, is_new=True)
        self.peak = max(self.peak, self.live)
        return out

    def _count(self, value: Any, *, is_new: bool) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._bytes:
            self._bytes[key] = storage.nbytes() if is_new else 0
            self.live += self._bytes[key]
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._bytes.pop(key)
