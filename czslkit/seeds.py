"""Random seeds: which numbers are seeds, and how they are written. It does not import torch."""

from __future__ import annotations

import reprlib
from typing import Any

#: Largest random seed: torch and tables of results hold whole numbers of 64 bits.
LARGEST_SEED = 2**63 - 1
_MOST_SEEDS = 1000  # of one benchmark; more are a mistake in typing


def parse_seeds(text: str) -> list[int]:
    """Return the whole numbers in a text such as ``0,1,2`` or ``0-2,7``.

    Raises:
        ValueError: a part is neither a whole number nor a range, a range counts down, or there are more than 1,000
            numbers.

    >>> parse_seeds("0-2,7")
    [0, 1, 2, 7]
    """
    found: list[int] = []
    shown = reprlib.repr(text)
    for part in [part.strip() for part in text.split(",") if part.strip()] or [text]:
        first, dash, last = part.partition("-") if part[:1].isdecimal() else (part, "", "")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise ValueError(
                f"{shown} is not whole numbers separated by commas, such as 0,1,2, or a range, such as 0-2"
            ) from None
        if high < low:
            wrong = "is not whole numbers" if high < 0 else f"counts down: write {high}-{low}"
            raise ValueError(f"{part!r} {wrong}")
        if len(found) + high - low >= _MOST_SEEDS:
            raise ValueError(f"{shown} has more than {_MOST_SEEDS:,} seeds: give fewer, such as 0-9")
        found += range(low, high + 1)
    return found


def seed_problems(*seeds: Any) -> list[str]:
    """Return a message for each value that is not a random seed.

    >>> seed_problems(0, 2**63)
    ['seed 9223372036854775808 is not a whole number from 0 to 9223372036854775807 (2^63 - 1)']
    """
    wrong = [s for s in seeds if not isinstance(s, int) or isinstance(s, bool) or not 0 <= s <= LARGEST_SEED]
    shown = (f"of {s.bit_length()} bits" if isinstance(s, int) and s.bit_length() > 128 else repr(s) for s in wrong)
    return [f"seed {seed} is not a whole number from 0 to {LARGEST_SEED} (2^63 - 1)" for seed in shown]
