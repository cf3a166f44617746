"""Tensors out of weight files, without running code from them."""

from __future__ import annotations

import functools
import io
import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import ConfigError, did_you_mean

#: Where the checkpoint of a whole training run keeps its tensors.
WRAPPERS = ("state_dict", "model_state_dict", "model")
#: How a TorchScript archive spells the type of a storage.
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


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name, on the CPU, without running code from it.

    Reads safetensors; torch files of a dict of tensors, also under ``state_dict``,
    ``model_state_dict`` or ``model``; and TorchScript archives, such as the CLIP files that
    OpenAI released: the tensors that their modules hold, while the program beside them is
    neither compiled nor run. A ``module.`` in front of every name is dropped.

    Raises:
        ConfigError: not such a file, a damaged one, or one that asks for more than tensors.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
        elif root := _script_root(path):
            tensors = _script_tensors(path, root)
        else:
            tensors = tensors_of(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a file that someone else wrote brings about
        raise ConfigError(
            [f"{path} is not a readable weight file (safetensors, torch tensors or TorchScript): {_reason(error)}"]
        ) from error
    return _unwrapped(tensors)


def tensors_of(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of one under a known name; arrays of numpy are taken as well.

    Raises:
        ValueError: it is no dict, or holds more than tensors.
    """
    if isinstance(content, Mapping):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not a dict of tensors")
    kinds = (Tensor, np.ndarray, np.generic)
    others = [f"{k!r} ({type(v).__name__})" for k, v in content.items() if not isinstance(v, kinds)]
    if others:
        raise ValueError(f"it holds more than tensors: {', '.join(others[:5])}")
    return _unwrapped({str(key): torch.as_tensor(value) for key, value in content.items()})


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without the ``module.`` that DataParallel puts in front of every name."""
    wrapped = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()} if wrapped else tensors


class _Storage(NamedTuple):
    dtype: torch.dtype
    key: str


class _View(NamedTuple):
    """What makes a tensor of a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """Holds the attributes of a TorchScript object."""


class _Reader(pickle.Unpickler):
    """Unpickles the objects of a TorchScript archive as inert values; imports nothing.

    A pickle may set attributes of whatever it is handed, so it gets either immutable
    builtins or values made for this one call, never a class or function that lives on.
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
                return lambda *view: _View(*view[:4])  # the rest is about gradients
            case ("torch.jit._pickle", "restore_type_tag"):
                return lambda value, kind: value
            case ("torch.jit._pickle", "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist"):
                return list
        if module.split(".")[0] == "__torch__":
            return type("Module", (_Module,), {})
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, *_ = pid
        if not (isinstance(dtype, torch.dtype) and isinstance(key, str)):
            raise pickle.UnpicklingError(f"{pid!r} is not a storage")
        return _Storage(dtype, key)


def _script_root(path: Path) -> str:
    """The folder inside a TorchScript archive, with a slash; empty for any other torch file."""
    with path.open("rb") as file:
        start = file.read(2)
    if start[:1] == b"\x80":  # a pickle, as torch wrote them until 1.5
        return ""
    if start != b"PK":
        raise ValueError(f"no torch file starts with {start!r}")
    if not zipfile.is_zipfile(path):
        raise ValueError("it is a zip archive without its end, cut short")
    with zipfile.ZipFile(path) as archive:  # only TorchScript has constants
        found = (re.fullmatch(r"([^/]+/)constants\.pkl", name) for name in archive.namelist())
        return next((match[1] for match in found if match), "")


def _script_tensors(path: Path, root: str) -> dict[str, Tensor]:
    """Every tensor that is an attribute of a module of a TorchScript archive, by its dotted name.

    That is its ``state_dict``, and also what a scripted module keeps as a plain attribute:
    only the program tells that from a buffer.
    """
    with zipfile.ZipFile(path) as archive:

        @functools.cache  # tensors may share it
        def numbers(storage: _Storage) -> Tensor:
            dtype, key = storage
            data = bytearray(archive.read(f"{root}data/{key}"))
            if len(data) % dtype.itemsize:
                raise ValueError(f"storage {key} has {len(data)} bytes, no whole number of {dtype}")
            return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)

        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order).decode() != sys.byteorder:
            raise ValueError(f"its numbers are {archive.read(order).decode()}-endian, this machine is {sys.byteorder}")
        module = _Reader(io.BytesIO(archive.read(f"{root}data.pkl"))).load()
        if not isinstance(module, _Module):
            raise ValueError(f"it holds a {type(module).__name__}, not a module")
        return {name: _strided(name, numbers(view.storage), view) for name, view in _named(module)}


def _named(module: _Module, prefix: str = "") -> Iterator[tuple[str, _View]]:
    for name, value in vars(module).items():
        if isinstance(value, _View):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _named(value, f"{prefix}{name}.")


def _strided(name: str, numbers: Tensor, view: _View) -> Tensor:
    _, offset, size, stride = view
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError(f"{name} has size {size}, stride {stride} and offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if all(size) and last >= len(numbers):
        raise ValueError(f"{name} reads number {last} of a storage of {len(numbers)}")
    return numbers.as_strided(size, stride, offset)


def _reason(error: Exception) -> str:
    """The first sentence; of what torch says of a pickle, the one that names what was refused."""
    text = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
    return re.split(r"\. |\n", text)[0] or type(error).__name__


_UMASK = os.umask(0)  # it can only be read by setting it
os.umask(_UMASK)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """One file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        kept = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
        }
        save_file(kept, unfinished, metadata)
        unfinished.chmod(0o666 & ~_UMASK)  # as any other file; safetensors keeps it to its owner
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


T = TypeVar("T")


def state_dict_mismatches(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What of ``state`` cannot take the place of ``own``: names missing or unknown, shapes that differ."""
    unknown = state.keys() - own.keys()
    problems = [f"{key} is missing" for key in own.keys() - state.keys()]
    problems += [f"{key} is unknown{did_you_mean(key, own) if len(unknown) < 20 else ''}" for key in unknown]
    problems += [
        f"{key} is {list(state[key].shape)}, expected {list(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    return sorted(problems)


def load_strict(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy ``state`` into ``model``, every tensor.

    Raises:
        ConfigError: names that are missing or unknown, shapes that differ; all of them.
    """
    if problems := state_dict_mismatches(model.state_dict(), state):
        raise ConfigError([f"these tensors do not fit {type(model).__name__}:", *problems])
    model.load_state_dict(state)


def download_or_raise(
    setting: str,
    create: Callable[[], T],
    *,
    part: str = "weights",
    hint: str = "a file works as well: NAME//path/to/weights",
) -> T:
    """What ``create`` makes from files that may have to be downloaded.

    Raises:
        ConfigError: they cannot be had; says which ``part`` of ``setting`` that is, and the ``hint``.
    """
    try:
        return create()
    except Exception as error:  # whatever a hub and a network bring about
        why = str(error).strip().split("\n")[0]
        raise ConfigError([f"the {part} of {setting} cannot be had: {why}; {hint}"]) from error
