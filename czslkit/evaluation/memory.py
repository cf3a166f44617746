"""Bytes that a computation takes."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Footprint(TorchDispatchMode):
    """Bytes of the tensors that the operations inside it make, on any device; those made before do not count.

    Nor does what an operation takes for itself and gives back before it returns.

    >>> import torch
    >>> with Footprint() as footprint:
    ...     kept = torch.ones(10) + torch.zeros(10)
    >>> footprint.peak, footprint.live
    (120, 40)
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}  # of each storage that is there, 0 of those made before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for value in tree_leaves((args, kwargs)):
            self._meet(value, made=False)
        out = func(*args, **kwargs)
        for value in tree_leaves(out):
            self._meet(value, made=True)
        self.peak = max(self.peak, self.live)
        return out

    def _meet(self, value: Any, *, made: bool) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes() if made else 0
            self.live += self._sizes[key]
            weakref.finalize(storage, self._part, key)

    def _part(self, key: int) -> None:
        self.live -= self._sizes.pop(key)
