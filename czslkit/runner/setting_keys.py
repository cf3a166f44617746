"""Suggestions for keys of settings that do not exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from ..errors import did_you_mean
from ..method import METHODS, Method
from .grid import Key, texts_hint
from .settings import SECTIONS


def hints(
    cls: type[Method], settings: Mapping[Key, object], methods: Sequence[str], problems: Sequence[str]
) -> Iterator[str]:
    """Yield sentences that help with the problems of the settings of a method; arguments as of :func:`key_hints`."""
    yield from key_hints(cls, settings, methods)
    for (_, option), value in settings.items():
        if isinstance(value, str) and "," in value and any(repr(value) in problem for problem in problems):
            yield f"{option}: {texts_hint(value)}"


def key_hints(cls: type[Method], settings: Mapping[Key, object], methods: Sequence[str]) -> Iterator[str]:
    """Yield, for each setting of a method that does not exist, a sentence with the key that was probably meant.

    Args:
        settings: settings of the method, by section and option.
        methods: all methods of the benchmark.
    """
    names = {section: _option_names(schema) for section, schema in {"options": cls.Options, **SECTIONS}.items()}
    for section, option in settings:
        if option not in names[section]:
            if owners := _owners(option, methods):
                owner, key = owners[0]
                yield f"{option} is an option of {owner}: set it as {key}"
            elif not did_you_mean(option, names[section]) and (hint := suggestion(option, methods)):
                yield f"no option is named {option}.{hint}"


def suggestion(option: str, methods: Sequence[str]) -> str:
    """Return a hint with the keys whose option is, or is similar to, the last part of ``option``; empty without one.

    >>> suggestion("epochs", ["csp"]), suggestion("Learning", ["csp"])
    (" Did you mean 'train.epochs'?", '')
    """
    if owners := _owners(option, methods):
        return f" Did you mean {' or '.join(repr(key) for _, key in owners)}?"
    names = [*(name for schema in SECTIONS.values() for name in _option_names(schema))]
    names += [name for method in methods for name in _option_names(METHODS[method].Options)]
    close = did_you_mean(_last_part(option), dict.fromkeys(names))
    for name in dict.fromkeys(names):
        close = close.replace(repr(name), repr(_owners(name, methods)[0][1]))
    return close


def _owners(option: str, methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return each section or method that has an option, with the key of the option there.

    Upper case and ``-`` in place of ``_`` count as equal. An option that all the methods have has no method in its key.
    """
    name = _last_part(option)
    found = [(section, f"{section}.{name}") for section, schema in SECTIONS.items() if name in _option_names(schema)]
    having = [method for method in methods if name in _option_names(METHODS[method].Options)]
    if having and len(having) == len(methods):
        return [*found, (" and ".join(methods), name)]
    return [*((method, f"{method}.{name}") for method in having), *found]


def _last_part(option: str) -> str:
    """Return the part of a key after its last dot, as options are written."""
    return option.rpartition(".")[2].lower().replace("-", "_")


def _option_names(schema: type) -> list[str]:
    """Return the names of the options of a class."""
    return [field.name for field in dataclasses.fields(schema)]
