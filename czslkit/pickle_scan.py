"""Read through a pickle without building it, to refuse one that costs far more than its size. No torch is imported.

Tensors need few operations of pickles: plain values, lists, dicts, tuples, storages and a few functions. A pickle of a
few bytes can ask for more: tuples in tuples as keys of a dict, whose hash takes for ever or overflows the stack, a
number of lists or of storages that no file of its size holds, or an array of any length.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Bytes after an operation that has a fixed number of them, and which pushes a plain value.
_PLAIN = {b"N"[0]: 0, 0x88: 0, 0x89: 0, b"G"[0]: 8}
_INTEGERS = {b"J"[0]: "<i", b"K"[0]: "<B", b"M"[0]: "<H"}
_CONTAINERS = b"]})\x8f"  # push an empty list, dict, tuple or set
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
_TEXTS = {b"X"[0]: "<I", b"U"[0]: "<B", b"T"[0]: "<I"}
#: Functions that a pickle of tensors may call; torch refuses functions outside of torch and builtins.
_CALLED = {
    *("collections.OrderedDict", "collections.Counter", "builtins.set", "builtins.complex", "_codecs.encode"),
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"),
    *("torch._utils._rebuild_parameter_with_state", "torch._tensor._rebuild_from_type_v2"),
    *("torch.nn.parameter.Parameter", "torch.Size", "torch.device", "torch.serialization._get_layout"),
    *(f"torch.jit._pickle.{name}" for name in ("restore_type_tag", "build_intlist", "build_doublelist")),
    *(f"torch.jit._pickle.{name}" for name in ("build_boollist", "build_tensorlist")),
}
#: Bytes of a value in a storage, by the start of the name of its class; 1 for any other.
_VALUE_BYTES = {"ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Long": 8, "Float": 4, "Int": 4}
_VALUE_BYTES |= dict.fromkeys(("Half", "BFloat16", "Short"), 2)
_KEYED = ("collections.OrderedDict", "collections.Counter", "builtins.set")  # their items have a hash
_DEEPEST_MARKS = 200  # lists, dicts and tuples that are being filled at a time
_LARGEST_TUPLE, _LARGEST_KEY = 1 << 20, 1000  # of the measure in ``_tuple``; of tuples beside unseen keys
_FREE, _BYTES_EACH = 100_000, 4  # containers that any pickle may have, and bytes that each further one takes
_LONGEST_TEXT = 100  # of a text whose value is looked at


class Refused(ValueError):
    """A pickle that would cost far more than its size."""


@dataclass(frozen=True)
class _Tuple:
    """A tuple: its items if they are few, and a measure of the time that its hash takes."""

    items: tuple[Any, ...]
    size: int


@dataclass
class _Scan:
    """The state of reading one pickle; a plain value is None, an integer, or a short text as bytes."""

    content: Any  # bytes
    position: int
    storages: dict[bytes, int] = field(default_factory=dict)  # key -> bytes
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    containers: int = 0
    largest: int = 1  # measure of the largest tuple


def scan_pickle(content: Any, start: int = 0) -> tuple[int, Mapping[bytes, int]]:
    """Read through the pickle at a position.

    Args:
        content: bytes, or an object like them, such as a memory map.
        start: the first byte of the pickle.

    Returns:
        The position after the pickle, and the bytes of each storage by its key.

    Raises:
        ValueError: the pickle is damaged, or has operations that tensors and plain values do not need.
        Refused: it would cost far more than its size.
    """
    scan = _Scan(content, start)
    try:
        while content[scan.position] != b"."[0]:
            _step(scan)
    except (IndexError, KeyError, struct.error) as error:
        raise ValueError(f"its pickle is damaged at byte {scan.position:,}") from error
    return scan.position + 1, scan.storages


def _step(scan: _Scan) -> None:
    """Read one operation."""
    content, stack = scan.content, scan.stack
    at = scan.position
    code = content[at]
    at += 1
    if code in _TEXTS:
        at = _text(scan, code, at)
    elif code == b"q"[0]:
        scan.memo[content[at]] = stack[-1]
        at += 1
    elif code == b"r"[0]:
        (key,) = struct.unpack_from("<I", content[at : at + 4])
        if key > 1000 + at:
            raise Refused(f"it asks for room for {key:,} values")
        scan.memo[key] = stack[-1]
        at += 4
    elif code == b"h"[0]:
        stack.append(scan.memo[content[at]])
        at += 1
    elif code == b"j"[0]:
        stack.append(scan.memo[struct.unpack_from("<I", content[at : at + 4])[0]])
        at += 4
    elif code in _INTEGERS:
        kind = _INTEGERS[code]
        size = struct.calcsize(kind)
        stack.append(struct.unpack(kind, content[at : at + size])[0])
        at += size
    elif code in _PLAIN:
        stack.append(None)
        at += _PLAIN[code]
    elif code == 0x80:  # protocol
        at += 1
    elif code == 0x8A:  # long
        size = content[at]
        stack.append(int.from_bytes(content[at + 1 : at + 1 + size], "little", signed=True))
        at += 1 + size
    elif code == b"c"[0]:
        at = _global(scan, at)
    else:
        _structure(scan, code)
    scan.position = at


def _structure(scan: _Scan, code: int) -> None:
    """Read an operation that makes, fills or calls something."""
    stack = scan.stack
    if code in _CONTAINERS:
        _count(scan, 0 if code == b")"[0] else 1)
        stack.append(_Tuple((), 1) if code == b")"[0] else None)
    elif code == b"("[0]:
        scan.marks.append(stack)
        scan.stack = []
        if len(scan.marks) > _DEEPEST_MARKS:
            raise Refused(f"it has values in more than {_DEEPEST_MARKS} others")
    elif code in _TUPLES:
        items = stack[-_TUPLES[code] :]
        del stack[-_TUPLES[code] :]
        stack.append(_tuple(scan, items))
    elif code == b"t"[0]:
        items = _to_mark(scan)
        scan.stack.append(_tuple(scan, items))
    elif code in b"eu":  # append or set items
        items = _to_mark(scan)
        if code == b"u"[0]:
            _check_keys(items[::2])
    elif code == b"a"[0]:
        stack.pop()
    elif code == b"s"[0]:
        _check_keys([stack[-2]])
        del stack[-2:]
    elif code in b"R\x81":
        _call(scan)
    elif code == b"b"[0]:
        stack.pop()
    elif code == b"Q"[0]:
        _storage(scan)
    else:
        raise ValueError(f"its pickle has operation {code:#x}, which tensors and plain values do not need")


def _text(scan: _Scan, code: int, at: int) -> int:
    kind = _TEXTS[code]
    start = at + struct.calcsize(kind)
    (size,) = struct.unpack(kind, scan.content[at:start])
    if start + size > len(scan.content):
        raise Refused(f"it has a text of {size:,} bytes, more than the file")
    scan.stack.append(bytes(scan.content[start : start + size]) if size <= _LONGEST_TEXT else None)
    return start + size


def _global(scan: _Scan, at: int) -> int:
    """Push the name of a class or function, as text."""
    names = []
    for _ in range(2):
        end = scan.content.find(b"\n", at, at + 1000)
        if end < 0:
            raise Refused("it has a name of a function of more than 1,000 characters")
        names.append(bytes(scan.content[at:end]).decode("utf-8", "replace"))
        at = end + 1
    scan.stack.append(".".join(names))
    return at


def _to_mark(scan: _Scan) -> list[Any]:
    items, scan.stack = scan.stack, scan.marks.pop()
    return items


def _tuple(scan: _Scan, items: list[Any]) -> _Tuple:
    """Return a tuple; its measure at least doubles with each tuple around it."""
    _count(scan, 1)
    sizes = [item.size for item in items if isinstance(item, _Tuple)]
    size = 1 + len(items) + sum(sizes) + max(sizes, default=0)
    scan.largest = max(scan.largest, size)
    if size > _LARGEST_TUPLE:
        raise Refused("it has tuples in too many or too large tuples")
    return _Tuple(tuple(items) if len(items) <= 8 else (), size)


def _check_keys(keys: list[Any]) -> None:
    if any(isinstance(key, _Tuple) for key in keys):
        raise Refused("it has a dict whose keys are tuples, expected texts or numbers")


def _call(scan: _Scan) -> None:
    """Replace a function and its arguments by a plain value."""
    arguments, function = scan.stack.pop(), scan.stack.pop()
    items = arguments.items if isinstance(arguments, _Tuple) else ()
    inner = items[0] if function == "torch._tensor._rebuild_from_type_v2" and items else function
    for name in (function, inner):
        own = isinstance(name, str) and name.partition(".")[0] in ("torch", "builtins")
        if (own and name not in _CALLED) or (name is inner is not function and not own):
            raise Refused(f"it calls {name}, which no tensor needs")
    if function in _KEYED and items and scan.largest > _LARGEST_KEY:
        raise Refused(f"it calls {function} beside large tuples, which may be its keys")
    _count(scan, 4)
    scan.stack.append(items[0] if function == "torch.jit._pickle.restore_type_tag" and items else None)


def _storage(scan: _Scan) -> None:
    """Note the storage that the tuple on the stack names."""
    name = scan.stack.pop()
    items = name.items if isinstance(name, _Tuple) else ()
    if len(items) >= 5 and isinstance(items[2], bytes) and isinstance(items[4], int):
        if items[4] < 0:
            raise Refused(f"it has a storage of {items[4]} values")
        kind = str(items[1]).rpartition(".")[2].removesuffix("Storage")
        scan.storages[items[2]] = max(scan.storages.get(items[2], 0), items[4] * _VALUE_BYTES.get(kind, 1))
    else:
        raise ValueError("it names a storage in another way than torch does")
    scan.stack.append(None)


def _count(scan: _Scan, containers: int) -> None:
    scan.containers += containers
    if scan.containers > _FREE + scan.position // _BYTES_EACH:
        raise Refused(f"it has {scan.containers:,} lists, dicts or tuples in {scan.position:,} bytes")
