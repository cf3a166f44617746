"""Bytes in words, both ways. Needs no torch."""

from __future__ import annotations

import re

#: What an evaluation may take, if the user does not say.
MEMORY = 4 * 10**9
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(size: str | int) -> int:
    """A size such as ``4GB`` (10^9 bytes each) or ``512MiB`` (2^20) in bytes.

    Raises:
        ValueError: it is none, or none above 0.

    >>> parse_bytes("4GB"), parse_bytes("1.5 GiB"), parse_bytes(1000)
    (4000000000, 1610612736, 1000)
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kmgt]?)(i?)b?", str(size).strip().lower())
    if not match or (match[3] and not match[2]):
        raise ValueError(f"{size!r} is not a size such as 4GB or 512MiB")
    found = int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2]])
    if found < 1:
        raise ValueError(f"{size!r} is not more than 0 bytes")
    return found


def format_bytes(size: float) -> str:
    """Bytes in words.

    >>> format_bytes(3_400_000_000), format_bytes(67_200_000), format_bytes(900)
    ('3.4 GB', '67 MB', '0.9 kB')
    """
    power = next((p for p in (4, 3, 2) if size >= 0.9995 * 1000**p), 1)
    value = size / 1000**power
    return f"{value:.1f} {'?kMGT'[power]}B" if value < 9.95 else f"{value:.0f} {'?kMGT'[power]}B"


def format_duration(seconds: float) -> str:
    """Seconds in words.

    >>> [format_duration(seconds) for seconds in (0.2, 75, 5400, 200_000, 1e7)]
    ['1 s', '75 s', '90 min', '56 h', '116 days']
    """
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 99.5 * size:
            return f"{max(round(seconds / size), 1)} {unit}"
    return f"{round(seconds / 86400)} days"
