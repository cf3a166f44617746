"""Errors for mistakes of users; the command line prints their messages without a traceback."""

from __future__ import annotations

import difflib
import reprlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200  # characters
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 10  # items
_LONGEST_ITEM = 1000  # characters of an item of a list in a message
_LONGEST_NAME = 100  # characters of a name for which similar names are looked for


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


class ProcessError(CzslkitError, RuntimeError):
    """A process of a training that has ended before the training, for example because memory ran out."""


class LockError(CzslkitError, OSError):
    """A file that cannot be locked, for example because its folder cannot be written."""


class LockedError(CzslkitError):
    """A file that another process has locked.

    Attributes:
        holder: which process took the lock and when, as text.
    """

    def __init__(self, path: Path, holder: str) -> None:
        self.holder = holder
        super().__init__(f"{path} is locked: {holder}")


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
    close = difflib.get_close_matches(name, list(known), n=2) if len(name) <= _LONGEST_NAME else []
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def shortened(value: object) -> str:
    """Return the ``repr`` of a value, with ``...`` in place of most of a long or deep one.

    >>> len(shortened("a" * 1000)), shortened([0] * 1000)
    (200, '[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...]')
    """
    return _SHORT.repr(value)


def without_middle(text: str, longest: int) -> str:
    """Return a text; of one with more than ``longest`` characters, its start and its end.

    >>> without_middle("Traceback of 9 MB: refused", 16)
    'Tracebac\\n[10 characters are left out]\\n refused'
    """
    half = longest // 2
    more = len(text) - 2 * half
    return text if more <= 0 else f"{text[:half]}\n[{more:,} characters are left out]\n{text[-half:]}"


def first_ten(items: Sequence[str], separator: str = ", ") -> str:
    """Return the first ten items and the number of the other items, as text for a message.

    >>> first_ten(["a", "b"]), first_ten([str(i) for i in range(12)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2 more')
    """
    more = [f"and {len(items) - 10} more"] if len(items) > 10 else []
    short = [item if len(item) <= _LONGEST_ITEM else f"{item[:_LONGEST_ITEM]}..." for item in items[:10]]
    return separator.join([*short, *more])
