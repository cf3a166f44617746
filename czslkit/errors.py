"""Errors for mistakes of users; the command line prints their messages without a traceback."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence


class CzslkitError(Exception):
    """A mistake in a user's request, or in the files of the request."""


class UnknownNameError(CzslkitError, LookupError):
    """A name that is not registered."""

    __str__ = Exception.__str__  # LookupError would print the message's repr


class NameTakenError(CzslkitError, ValueError):
    """A name that two classes register."""


class ConfigError(CzslkitError, ValueError):
    """Settings that cannot be used.

    Attributes:
        problems: every problem that was found; the message has one line for each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)  # the argument of the constructor is not the message


class DataError(CzslkitError, ValueError):
    """A dataset that is absent or contradicts its lists, or a file that cannot be used."""


class ReaderError(CzslkitError, RuntimeError):
    """A process that reads images has ended, or has no shared memory left."""


class PluginError(CzslkitError, TypeError):
    """A class of a plugin that does not do what czslkit asks of its kind."""


class TrainingError(CzslkitError, ArithmeticError):
    """A training that cannot continue, for example because the loss is not finite."""


def class_in_file(cls: type) -> str:
    """Return the name of a class and the file that it is defined in, for a message.

    >>> class_in_file(int), class_in_file(ConfigError).endswith("czslkit/errors.py)")
    ('int (builtins)', True)
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return f"{cls.__qualname__} ({file or cls.__module__})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known names that are similar to ``name``, or ``""`` if there are none.

    >>> did_you_mean("cps", ["csp", "coop"])
    " Did you mean 'csp'?"
    """
    close = difflib.get_close_matches(name, list(known), n=2)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def first_ten(items: Sequence[str], separator: str = ", ") -> str:
    """Return the first ten items and the number of the other items, as text for a message.

    >>> first_ten(["a", "b"]), first_ten([str(i) for i in range(12)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more')
    """
    more = [f"and {len(items) - 10} more"] if len(items) > 10 else []
    return separator.join([*items[:10], *more])
