"""Convert numbers of bytes and seconds to readable text, and text to numbers of bytes. It does not import torch."""

from __future__ import annotations

import re

#: Bytes that an evaluation may use unless the user sets ``--memory``.
MEMORY = 4 * 10**9
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(size: str | int) -> int:
    """Return the number of bytes of a size such as ``4GB`` (1 GB is 10^9 bytes) or ``512MiB`` (1 MiB is 2^20 bytes).

    Raises:
        ValueError: the text is not a size, or the size is below 1 byte.

    >>> parse_bytes("4GB"), parse_bytes("1.5 GiB"), parse_bytes(1000)
    (4000000000, 1610612736, 1000)
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kmgt]?)(i?)b?", str(size).strip().lower())
    if not match or (match[3] and not match[2]):
        raise ValueError(f"{size!r} is not a size such as 4GB or 512MiB")
    number, prefix, binary = match.groups()
    found = int(float(number) * (1024 if binary else 1000) ** _POWERS[prefix])
    if found < 1:
        raise ValueError(f"{size!r} is not more than 0 bytes")
    return found


def format_bytes(size: float) -> str:
    """Return a number of bytes as text with two digits and a unit from kB to TB.

    >>> format_bytes(3_400_000_000), format_bytes(67_200_000), format_bytes(900)
    ('3.4 GB', '67 MB', '0.9 kB')
    """
    power = next((p for p in (4, 3, 2) if size >= 0.9995 * 1000**p), 1)
    value = size / 1000**power
    return f"{value:.1f} {'?kMGT'[power]}B" if value < 9.95 else f"{value:.0f} {'?kMGT'[power]}B"


def format_duration(seconds: float) -> str:
    """Return a number of seconds as text in the largest fitting unit: s, min, h or days.

    >>> [format_duration(seconds) for seconds in (0.2, 75, 5400, 200_000, 1e7)]
    ['1 s', '75 s', '90 min', '56 h', '116 days']
    """
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 99.5 * size:
            return f"{max(round(seconds / size), 1)} {unit}"
    return f"{round(seconds / 86400)} days"


def counted(number: int, noun: str, verb: str = "") -> str:
    """Return a number with a noun, and a verb if given. Both are given as for several, without the ``s`` of the noun.

    >>> counted(1, "image", "have a copy"), counted(2, "image", "show a cat"), counted(1, "image", "show a cat")
    ('1 image has a copy', '2 images show a cat', '1 image shows a cat')
    """
    if number != 1:
        return f"{number} {noun}s {verb}".rstrip()
    first, space, rest = verb.partition(" ")
    singular = {"": "", "are": "is", "have": "has"}.get(first, f"{first}s")
    return f"1 {noun} {singular}{space}{rest}".rstrip()
