"""Read files that someone else may have written: of a known kind and size, checked before they take memory or time.

This module does not import torch.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from .sizes import format_bytes

#: Largest sizes of files that are read whole, in bytes.
JSON_LIMIT, TEXT_LIMIT, YAML_LIMIT, METADATA_LIMIT = 32 << 20, 16 << 20, 128 << 10, 1 << 30
_MOST_LINES = 1_000_000
_MOST_VALUES = 3_000_000  # largest number of values in a JSON text; each takes up to 72 bytes
_MOST_DIGITS = 40  # of a whole number in JSON or YAML
_DEEPEST = 40  # lists and dicts in each other in JSON
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
#: Bytes that an archive's member may expand to whatever its compressed size is, and the largest expansion beyond.
_SMALL, _EXPANSION = 16 << 20, 100


def check_regular(path: str | Path, limit: int | None = None) -> int:
    """Check that a path leads to a regular file that is not too large, and return its size in bytes.

    Nothing is opened, so a pipe or a device cannot wait or act. A link to a regular file is one.

    Raises:
        OSError: there is no such file, its links lead in a circle, it is a folder, pipe, socket or device, or it has
            more than ``limit`` bytes.
    """
    return _checked(os.stat(path), limit)


def read_regular(path: str | Path, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: the file cannot be read, or is none that :func:`check_regular` accepts.
    """
    check_regular(path, limit)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as file:  # another kind of file may have taken its place meanwhile
        _checked(os.fstat(file.fileno()), limit)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"it has more than {format_bytes(limit)}, the largest size that is read")
    return content


def read_text(path: str | Path, limit: int, encoding: str = "utf-8") -> str:
    """Return the text of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: the file cannot be read, or is none that :func:`check_regular` accepts.
        UnicodeDecodeError: the file has another encoding.
    """
    return read_regular(path, limit).decode(encoding)


def text_lines(content: bytes) -> list[str]:
    """Return the lines of a UTF-8 text, with or without a byte order mark.

    Raises:
        ValueError: the text has another encoding, or more than a million lines.

    >>> text_lines(b"wet dog\\ndry cat\\n")
    ['wet dog', 'dry cat']
    """
    lines = content.decode("utf-8-sig").splitlines()
    if len(lines) > _MOST_LINES:
        raise ValueError(f"it has {len(lines):,} lines, expected at most {_MOST_LINES:,}")
    return lines


def read_json(path: str | Path, limit: int = JSON_LIMIT) -> Any:
    """Return the content of a JSON file, as :func:`parse_json` does.

    Raises:
        OSError: the file cannot be read, or is none that :func:`check_regular` accepts.
        ValueError: as :func:`parse_json`.
    """
    return parse_json(read_regular(path, limit))


def parse_json(content: bytes) -> Any:
    """Return the content of a JSON text; a half of a surrogate pair becomes a question mark.

    Raises:
        ValueError: it is not JSON in UTF-8, has ``NaN`` or ``Infinity``, or is too deep, too long or has numbers of
            too many digits.

    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES:,} values")
    try:
        found = json.loads(content.decode("utf-8"), parse_int=_whole_number, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if content.count(b"[") + content.count(b"{") > _DEEPEST:
        _check_depth(found)
    return _without_surrogates(found) if re.search(rb"\\u[dD][89a-fA-F]", content) else found


def check_digits(text: str) -> None:
    """Raise ValueError if the text of a whole number is so long that reading it takes long."""
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"it has a whole number of {len(text):,} digits, expected at most {_MOST_DIGITS}")


def check_members(archive: zipfile.ZipFile, names: Iterable[str]) -> None:
    """Check that members of an archive exist once, and do not expand to far more than they take in the archive.

    Raises:
        ValueError: a member is missing, occurs twice, is encrypted or expands too far.
    """
    listed = archive.namelist()
    for name in names:
        if listed.count(name) != 1:
            raise ValueError(f"it has {listed.count(name)} members {name}, expected 1")
        info = archive.getinfo(name)
        if info.flag_bits & 1:
            raise ValueError(f"its member {name} is encrypted")
        if info.file_size > max(_SMALL, _EXPANSION * info.compress_size):
            sizes = f"{format_bytes(info.compress_size)} to {format_bytes(info.file_size)}"
            raise ValueError(f"its member {name} expands from {sizes}, more than {_EXPANSION} times")


def read_npy_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, Any]:
    """Return the shape, whether columns lie together, and the dtype of an array; the next byte is its first value.

    Args:
        member: an open ``.npy`` file, or a member of an ``.npz`` archive.

    Raises:
        ValueError: it is no array.
    """
    from numpy.lib import format as npy_format

    version = npy_format.read_magic(member)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    return read(member)


def check_array_size(archive: zipfile.ZipFile, member: IO[bytes], shape: tuple[int, ...], dtype: Any) -> None:
    """Check that what is left of a member of an archive is an array of this shape and dtype.

    Raises:
        ValueError: it has another number of bytes.
    """
    name = str(member.name)
    size = archive.getinfo(name).file_size - member.tell()
    if size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"its member {name} has {size:,} bytes of values, expected {dtype} {list(shape)}")


def _checked(found: os.stat_result, limit: int | None) -> int:
    """Return the size of a regular file, or raise OSError."""
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"it is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no file')}, expected a regular file")
    if limit is not None and found.st_size > limit:
        raise OSError(f"it has {format_bytes(found.st_size)}, expected at most {format_bytes(limit)}")
    return found.st_size


def _whole_number(text: str) -> int:
    check_digits(text)
    return int(text)


def _no_constant(name: str) -> None:
    raise ValueError(f"it has {name}, which is not a number of JSON")


def _too_deep() -> str:
    return f"it has lists or dicts in more than {_DEEPEST} others"


def _check_depth(tree: Any) -> None:
    """Raise ValueError if lists and dicts are in too many others."""
    level = [tree]
    for _ in range(_DEEPEST):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise ValueError(_too_deep())


def _without_surrogates(value: Any) -> Any:
    """Return a tree in which every half of a surrogate pair is a question mark."""
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
