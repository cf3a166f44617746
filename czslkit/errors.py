"""What a user can get wrong; printed by the command line without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class CzslkitError(Exception):
    """A mistake in what was asked for or in the files it was asked of."""


class UnknownNameError(CzslkitError, LookupError):
    """A name that no registry entry answers to."""

    __str__ = Exception.__str__  # LookupError would print the message's repr


class NameTakenError(CzslkitError, ValueError):
    """Two classes claim one name."""


class ConfigError(CzslkitError, ValueError):
    """Settings that cannot be used; holds every problem found, one a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(CzslkitError, ValueError):
    """A dataset that is absent, or does not hold what its own lists say."""


class TrainingError(CzslkitError, ArithmeticError):
    """Training that cannot go on, such as a loss that is no longer finite."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest of ``known``, empty when nothing is close.

    >>> did_you_mean("cps", ["csp", "coop"])
    " Did you mean 'csp'?"
    """
    close = difflib.get_close_matches(name, list(known), n=2)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def first_ten(items: Sequence[str], separator: str = ", ") -> str:
    """Return the first ten items and the number of the rest, as text for a message.

    >>> first_ten(["a", "b"]), first_ten([str(i) for i in range(12)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more')
    """
    more = [f"and {len(items) - 10} more"] if len(items) > 10 else []
    return separator.join([*items[:10], *more])
