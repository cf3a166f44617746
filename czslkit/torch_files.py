"""Load files of torch that someone else may have written: plain values and tensors that are as large as the file."""

from __future__ import annotations

import mmap
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .foreign_files import check_regular
from .pickle_scan import scan_pickle
from .sizes import format_bytes

_PICKLES = 5  # in a file of torch until 1.5: magic number, protocol, machine, content, keys of the storages
_SMALL, _SHARING = 16 << 20, 4  # bytes that tensors may claim in any file, and bytes for each byte of a larger one


def load_plain(path: Path) -> Any:
    """Return the content of a torch file on the CPU without running code from it, after a check of what it will cost.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: it is not a torch file, is damaged, or would take far more memory or time than its size.
        Exception: torch refuses it.
    """
    size = check_regular(path)
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        _check_archive(path, size)
    elif start[:1] == b"\x80":
        _check_pickles(path, size)
    else:
        raise ValueError(f"no torch file starts with {start!r}")
    return torch.load(path, map_location="cpu", weights_only=True)


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a torch file that is a zip archive after a check that its tensors and pickle are not compressed.

    Raises:
        ValueError: the archive is damaged, or one of these members is compressed, occurs twice or is larger than the
            file.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is a zip archive without its end, cut short")
    archive = zipfile.ZipFile(path)
    names: set[str] = set()
    total = 0
    for info in archive.infolist():
        if re.fullmatch(r"[^/]+/(data\.pkl|byteorder|data/[^/]+)", info.filename):
            if info.compress_type != zipfile.ZIP_STORED or info.filename in names:
                wrong = "occurs twice" if info.filename in names else "is compressed"
                raise ValueError(f"its member {info.filename} {wrong}, expected a file as torch.save writes it")
            names.add(info.filename)
            total += info.file_size
    if total > path.stat().st_size:
        raise ValueError(f"its members have {format_bytes(total)}, more than the file")
    return archive


def check_claims(tensors: Iterable[Tensor], path: Path) -> None:
    """Check that tensors are not much larger than the file that they are from.

    A view may repeat a number of the file any number of times, or several views may share the numbers.

    Raises:
        ValueError: together they claim more than the file can hold.
    """
    size = path.stat().st_size
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if claimed > _SMALL + _SHARING * size:
        raise ValueError(f"its tensors claim {format_bytes(claimed)} in a file of {format_bytes(size)}")


def _check_archive(path: Path, size: int) -> None:
    """Check the pickle and the storages of an archive."""
    with open_archive(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        pickles = [name for name in sizes if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(pickles) != 1:
            raise ValueError(f"it is a zip archive with {len(pickles)} members data.pkl, expected 1")
        _, storages = scan_pickle(archive.read(pickles[0]))
    home = pickles[0].removesuffix("data.pkl")
    held = {key: sizes.get(f"{home}data/{key.decode('utf-8', 'replace')}", 0) for key in storages}
    _check_storages(storages, held)


def _check_pickles(path: Path, size: int) -> None:
    """Check the pickles of a file of torch until 1.5; its storages follow them."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = 0
        for _ in range(_PICKLES):
            if position < size:
                position, storages = scan_pickle(content, position)
                _check_storages(storages, dict.fromkeys(storages, size))
                if sum(storages.values()) > size:
                    raise ValueError(f"its storages have {format_bytes(sum(storages.values()))}, more than the file")


def _check_storages(claimed: Mapping[bytes, int], held: Mapping[bytes, int]) -> None:
    for key, size in claimed.items():
        if size > held[key]:
            raise ValueError(f"its storage {key!r} claims {size:,} bytes, found {held[key]:,}")
