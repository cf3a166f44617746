"""Random seeds: which numbers are seeds. It does not import torch."""

from __future__ import annotations

from typing import Any

#: Largest random seed: torch and tables of results hold whole numbers of 64 bits.
LARGEST_SEED = 2**63 - 1


def seed_problems(*seeds: Any) -> list[str]:
    """Return a message for each value that is not a random seed.

    >>> seed_problems(0, 2**63)
    ['seed 9223372036854775808 is not a whole number from 0 to 9223372036854775807 (2^63 - 1)']
    """
    wrong = [s for s in seeds if not isinstance(s, int) or isinstance(s, bool) or not 0 <= s <= LARGEST_SEED]
    shown = (f"of {s.bit_length()} bits" if isinstance(s, int) and s.bit_length() > 128 else repr(s) for s in wrong)
    return [f"seed {seed} is not a whole number from 0 to {LARGEST_SEED} (2^63 - 1)" for seed in shown]
