"""The mistakes that a user can make; the command line prints their messages without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CzslkitError(Exception):
    """A mistake in a request, or in the files that the request names."""


class UnknownNameError(CzslkitError, LookupError):
    """A name that no class in the registry has."""

    __str__ = Exception.__str__  # LookupError would print the message's repr


class NameTakenError(CzslkitError, ValueError):
    """A name that two classes claim."""


class ConfigError(CzslkitError, ValueError):
    """Settings that cannot be used.

    Attributes:
        problems: every problem that was found; the message has one line for each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(CzslkitError, ValueError):
    """A dataset that is absent or does not hold what its own lists name."""


class TrainingError(CzslkitError, ArithmeticError):
    """A training that cannot continue, for example because the loss is not finite."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known names closest to ``name``, or ``""`` if none is close.

    >>> did_you_mean("cps", ["csp", "coop"])
    " Did you mean 'csp'?"
    """
    close = difflib.get_close_matches(name, list(known), n=2)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
