"""Read the tensors of TorchScript archives, such as OpenAI's CLIP files, without running the program in them."""

from __future__ import annotations

import functools
import io
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .pickle_scan import scan_pickle
from .torch_files import open_archive

_MOST_MODULES = 100_000  # in a program; a module may occur in several others
#: Number type for each storage class that an archive can name.
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


def archive_folder(path: Path) -> str:
    """Return the folder inside a TorchScript archive, with a final slash; empty for another kind of torch file.

    Raises:
        ValueError: the file is not a torch file, or is truncated.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80":  # a pickle, the format of torch until 1.5
        return ""
    if start != b"PK":
        raise ValueError(f"no torch file starts with {start!r}")
    with open_archive(path) as archive:  # only TorchScript has constants
        matches = (re.fullmatch(r"([^/]+/)constants\.pkl", name) for name in archive.namelist())
        return next((match[1] for match in matches if match), "")


def read_archive(path: Path, folder: str) -> dict[str, Tensor]:
    """Return every tensor that is an attribute of a module in a TorchScript archive, by its dotted name.

    These are the tensors of the ``state_dict`` and the plain attributes of scripted modules. Only the program of the
    archive distinguishes plain attributes from buffers.

    Args:
        folder: folder inside the archive, as :func:`archive_folder` returns it.

    Raises:
        ValueError: the archive is damaged, or does not contain a module.
        pickle.UnpicklingError: the archive contains more than tensors.
    """
    with open_archive(path) as archive:

        @functools.cache  # tensors may share a storage
        def numbers(storage: StorageKey) -> Tensor:
            dtype, key = storage
            data = bytearray(archive.read(f"{folder}data/{key}"))
            if len(data) % dtype.itemsize:
                raise ValueError(f"storage {key} has {len(data)} bytes, no whole number of {dtype}")
            return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)

        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order).decode() != sys.byteorder:
            raise ValueError(f"its numbers are {archive.read(order).decode()}-endian, this machine is {sys.byteorder}")
        pickled = archive.read(f"{folder}data.pkl")
        scan_pickle(pickled)
        module = ArchiveUnpickler(io.BytesIO(pickled)).load()
        if not isinstance(module, ArchiveModule):
            raise ValueError(f"it contains a {type(module).__name__}, not a module")
        return {name: _tensor(name, numbers(view.storage), view) for name, view in _views(module, count())}


class StorageKey(NamedTuple):
    """The number type and the name of a storage in an archive."""

    dtype: torch.dtype
    key: str


class StorageView(NamedTuple):
    """A storage, with the offset, size and stride of a tensor in it in units of numbers."""

    storage: StorageKey
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class ArchiveModule:
    """An object of a TorchScript archive, with its attributes and nothing else."""


class ArchiveUnpickler(pickle.Unpickler):
    """An unpickler that turns the objects of a TorchScript archive into inert values and imports nothing.

    A pickle can set attributes of every object that it gets. Therefore it only gets immutable builtins and values that
    are made for this call, never a class or function that other code uses.
    """

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("collections", "OrderedDict"):
                return OrderedDict
            case ("torch", _) if name in STORAGES:
                return STORAGES[name]
            case ("torch", "device"):
                return str
            case ("torch._utils", "_rebuild_tensor_v2"):
                return lambda *view: StorageView(*view[:4])  # the other arguments are about gradients
            case ("torch.jit._pickle", "restore_type_tag"):
                return lambda value, kind: value
            case ("torch.jit._pickle", "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist"):
                return list
        if module.split(".")[0] == "__torch__":
            return type("Module", (ArchiveModule,), {})
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: Any) -> StorageKey:
        _, dtype, key, *_ = pid
        if not (isinstance(dtype, torch.dtype) and isinstance(key, str)):
            raise pickle.UnpicklingError(f"{pid!r} is not a storage")
        return StorageKey(dtype, key)


def _views(module: ArchiveModule, visited: Iterator[int], prefix: str = "") -> Iterator[tuple[str, StorageView]]:
    """Yield the dotted name and the view of every tensor in ``module``; ``visited`` counts modules.

    Raises:
        ValueError: there are more than ``_MOST_MODULES`` modules.
    """
    if next(visited) >= _MOST_MODULES:
        raise ValueError(f"it has more than {_MOST_MODULES:,} modules")
    for name, value in vars(module).items():
        if isinstance(value, StorageView):
            yield f"{prefix}{name}", value
        elif isinstance(value, ArchiveModule):
            yield from _views(value, visited, f"{prefix}{name}.")


def _tensor(name: str, numbers: Tensor, view: StorageView) -> Tensor:
    """Return the tensor that ``view`` describes in the storage ``numbers``.

    Raises:
        ValueError: the view is outside the storage; the message has the tensor's ``name``.
    """
    _, offset, size, stride = view
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError(f"{name} has size {size}, stride {stride} and offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if all(size) and last >= len(numbers):
        raise ValueError(f"{name} reads number {last} of a storage of {len(numbers)}")
    return numbers.as_strided(size, stride, offset)
