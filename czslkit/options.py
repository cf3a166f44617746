"""Parse settings into frozen dataclasses, and name configurations. It does not import torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError, class_in_file, did_you_mean, shortened

T = TypeVar("T")
_SUPPORTED = "int, float, bool, str, Path, Literal, a tuple such as tuple[int, ...], or one of these or None"
#: Finite numbers in the core schema of YAML 1.2, except octal and hexadecimal ones.
NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
#: What may precede a path that starts with ``~`` in a backbone setting, such as ``ViT-B-32/openai/``.
_BEFORE_PATH = re.compile(r"(?:local-dir:|[^/~]+/(?:[^/~]+/)?)?(?=~)")
#: Type of an option -> what its value should be, in messages.
_EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    Path: "the path of a file or folder",
}


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    added_later: bool = False,
    recorded: bool = True,
) -> Any:
    """Return a dataclass field for an option.

    Its type is int, float, bool, str, a Literal, a tuple of these, or one of these or None. An option that names a file
    or a folder has the type :class:`pathlib.Path`: results are made again when the content changes.

    Args:
        default: value of the option if it is not given.
        help: what the option does, and its unit.
        minimum: smallest allowed number, for every item of a tuple.
        maximum: largest allowed number, for every item of a tuple.
        added_later: true for an option that earlier versions did not have, and whose default means what they did.
            Results and trainings of earlier versions then still belong to the configuration.
        recorded: false for an option that, like the device, says how numbers are computed and not which: it is no part
            of the configuration, so a run with another value is the same cell.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "added_later": added_later, "recorded": recorded}
    return dataclasses.field(default=default, metadata=metadata)


def parse(schema: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build a dataclass of options from plain values, as found in YAML, JSON or keyword arguments.

    Args:
        schema: a frozen dataclass whose fields were made by ``option``.
        values: value of each option by its name; an option that is not given keeps its default.
        where: owner of the settings, such as ``"csp"``, with which every message starts.

    Raises:
        ConfigError: there are unknown names, wrong types or values out of range, or ``schema`` is not a class of
            options; the message lists every problem.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Options:
    ...     dropout: float = option(0.3, "share of entries set to zero", minimum=0, maximum=1)
    >>> parse(Options, {"dropout": "1e-1"}, where="csp")
    Options(dropout=0.1)
    >>> parse(Options, {"droput": 0.1}, where="csp")
    Traceback (most recent call last):
    czslkit.errors.ConfigError: csp: droput is not an option. Did you mean 'dropout'? Known: dropout.
    """
    if faults := schema_problems(schema):
        raise ConfigError(f"{where}: {fault}" for fault in faults)
    fields = {f.name: f for f in dataclasses.fields(schema)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(schema)
    found, problems = {}, []
    for name, value in values.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            problems.append(f"{where}: {name} is not an option.{did_you_mean(str(name), fields)} Known: {known}.")
            continue
        if name == "backbone" and isinstance(value, str):  # a name or a path
            value = expand_home(value)
            if not value.strip() and value != fields[name].default:
                problems.append(
                    f"{where}: backbone is {value!r}, expected the name of a backbone or the path of a file"
                )
                continue
        try:
            found[name] = _convert(value, hints[name])
            _check_range(found[name], fields[name].metadata)
        except ValueError as error:
            problems.append(f"{where}: {name} is {shortened(value)}, expected {error}")
    if problems:
        raise ConfigError(problems)
    try:
        return schema(**found)
    except ValueError as error:  # from __post_init__ of the schema, which checks combinations of options
        raise ConfigError([f"{where}: {error}"]) from None


def schema_problems(schema: Any) -> list[str]:
    """Return the reasons why ``parse`` cannot use a class of options, each with what to change."""
    if not isinstance(schema, type):
        return [f"Options is {schema!r}, expected a class with @dataclass(frozen=True) above it"]
    name = class_in_file(schema)
    if "__dataclass_fields__" not in vars(schema):  # a base class may have them
        return [f"{name} is not a dataclass: write @dataclass(frozen=True) above the class"]
    if not vars(schema)["__dataclass_params__"].frozen:
        return [
            f"{name} is not frozen, so its options could change later: write @dataclass(frozen=True) above the class"
        ]
    try:
        hints = typing.get_type_hints(schema)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return [f"{name}: the types of its options cannot be read: {reason}. Import these types in the file"]
    problems = []
    for field in dataclasses.fields(schema):
        if field.default is field.default_factory is dataclasses.MISSING:
            problems.append(f"{name}: {field.name} has no default: write {field.name}: TYPE = option(DEFAULT, HELP)")
        if not _is_supported(hints[field.name]):
            problems.append(f"{name}: {field.name} is of type {hints[field.name]}, expected {_SUPPORTED}")
        elif field.default is not dataclasses.MISSING:
            try:
                _check_default(field.default, hints[field.name], field.metadata)
            except ValueError as error:
                problems.append(f"{name}: the default of {field.name} is {field.default!r}, expected {error}")
    return problems


def _check_default(default: Any, hint: Any, limits: Mapping[str, Any]) -> None:
    """Check that a default is a value that ``parse`` would leave as it is.

    Raises:
        ValueError: it is of another type or out of range; the message continues "expected ...".
    """
    converted = _convert(default, hint)
    _check_range(converted, limits)
    if converted != default:
        raise ValueError(re.sub(r"\b(Posix|Windows)Path\(", "Path(", repr(converted)))


def _is_supported(hint: Any) -> bool:
    """Return whether an option can have the type ``hint``."""
    if parts := _parts(hint):
        return all(part in (type(None), Ellipsis) or _is_supported(part) for part in parts)
    return typing.get_origin(hint) is typing.Literal or hint in _EXPECTED


def takes_texts(hint: Any) -> bool:
    """Return whether an option of the type ``hint`` takes any text or path, alone or in a list.

    >>> takes_texts(str | None), takes_texts(float | typing.Literal["search"])
    (True, False)
    """
    return hint in (str, Path) or any(takes_texts(part) for part in _parts(hint))


def takes_lists(hint: Any) -> bool:
    """Return whether an option of the type ``hint`` takes a list.

    >>> takes_lists(tuple[int, ...] | None), takes_lists(int)
    (True, False)
    """
    return typing.get_origin(hint) is tuple or any(takes_lists(part) for part in _parts(hint))


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return the types in a union or a tuple, no types for every other type."""
    kind = typing.get_origin(hint)
    return typing.get_args(hint) if kind in (typing.Union, types.UnionType, tuple) else ()


def as_dict(options: Any, *, record: bool = False, absolute: bool = False) -> dict[str, Any]:
    """Return the values of an options object as a dict for JSON: with lists for tuples, and texts for paths.

    Args:
        record: leave out options that are not recorded, and those that were added later and have their default, so
            that the record of a configuration stays the same.
        absolute: make relative paths absolute, so that they are valid in every folder.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Options:
    ...     weights: tuple[float, ...] = (1.0, 0.5)
    >>> as_dict(Options())
    {'weights': [1.0, 0.5]}
    >>> as_dict(Options((float("inf"), 0.5)))
    {'weights': ['inf', 0.5]}
    """
    left_out = {
        f.name
        for f in dataclasses.fields(options)
        if not is_recorded(options, f.name) or (f.metadata.get("added_later") and getattr(options, f.name) == f.default)
    }
    values = dataclasses.asdict(options).items()
    return {k: _for_json(v, absolute) for k, v in values if not (record and k in left_out)}


def is_recorded(options: Any, name: str) -> bool:
    """Return whether an option is part of the configuration."""
    return all(f.metadata.get("recorded", True) for f in dataclasses.fields(options) if f.name == name)


def named_files(options: Any) -> dict[str, tuple[Path, ...]]:
    """Return the files and folders that each option names; options that name none, and ``backbone``, are left out.

    An option names a file if its value is a path, or a text that has a separator of paths and is the path of a file.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        items = value if isinstance(value, tuple) else (value,)
        paths = tuple(Path(item).expanduser() for item in items if isinstance(item, Path) or _is_file(item))
        if paths and field.name != "backbone":
            found[field.name] = paths
    return found


def _is_file(value: Any) -> bool:
    """Return whether ``value`` is a text that has a separator of paths and is the path of a file."""
    if not isinstance(value, str) or not any(mark and mark in value for mark in ("/", os.sep, os.altsep)):
        return False
    try:
        return Path(value).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, with characters that no path has, or of no user
        return False


def _for_json(value: Any, absolute: bool) -> Any:
    """Return the value of an option as JSON can hold it."""
    if isinstance(value, tuple):
        return [_for_json(item, absolute) for item in value]
    if isinstance(value, Path):
        return str(value.absolute() if absolute else value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _convert(value: Any, hint: Any) -> Any:
    """Return ``value`` converted to the type ``hint``.

    Raises:
        ValueError: the value has another type; the message continues "expected ...".
    """
    kind = typing.get_origin(hint)
    if kind is typing.Literal:
        return _convert_literal(value, typing.get_args(hint))
    if kind in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint))
    if kind is tuple:
        return _convert_tuple(value, typing.get_args(hint))
    return _convert_plain(value, hint)


def _convert_plain(value: Any, kind: type) -> Any:
    """Return ``value`` as an int, a float, a bool, a str or a path; only floats and paths are made of other types."""
    if kind is Path:
        return _convert_path(value)
    is_bool = isinstance(value, bool)  # a bool is also an int in Python
    if kind is float and not is_bool and not (isinstance(value, str) and not re.fullmatch(NUMBER, value)):
        try:
            number = float(value)  # a text such as 1e-4, which YAML 1.1 reads as a string
        except (TypeError, ValueError, OverflowError):
            raise ValueError(_EXPECTED[float]) from None
        if not math.isfinite(number):
            raise ValueError("a finite number")
        return number
    if isinstance(value, kind) and is_bool == (kind is bool):
        return value
    raise ValueError(_EXPECTED[kind])


def _convert_path(value: Any) -> Path:
    """Return ``value``, a text or a path, as a path; a leading ``~`` becomes the home folder."""
    if isinstance(value, Path) or (isinstance(value, str) and value.strip()):
        try:
            return Path(value).expanduser()
        except RuntimeError as error:  # there is no such user
            raise ValueError(f"{_EXPECTED[Path]}; {error}") from error
    raise ValueError(_EXPECTED[Path])


def expand_home(setting: str) -> str:
    """Return a backbone setting with the home folder in the place of the ``~`` that its path starts with.

    >>> expand_home("ViT-B-32/openai/~/clip.pt") == f"ViT-B-32/openai/{Path.home()}/clip.pt"
    True
    >>> expand_home("local-dir:~") == f"local-dir:{Path.home()}"
    True
    """
    prefix = _BEFORE_PATH.match(setting)
    if prefix is None or (prefix[0] and Path(setting).exists()):  # a folder may be called ~
        return setting
    return prefix[0] + os.path.expanduser(setting[prefix.end() :])


def user_path(path: str | Path) -> Path:
    """Return a path that a user gave, with the home folder in the place of a leading ``~``.

    Raises:
        ConfigError: the path is empty, or starts with ``~`` and the name of a user who does not exist.

    >>> user_path("~/data") == Path.home() / "data"
    True
    """
    try:
        return _convert_path(path)
    except ValueError as error:
        raise ConfigError([f"{str(path)!r} is not a path, expected {error}"]) from None


def _convert_literal(value: Any, choices: tuple[Any, ...]) -> Any:
    """Return ``value`` if it is one of ``choices``."""
    if value in choices:
        return value
    one_of = "one of " if len(choices) > 1 else ""
    raise ValueError(f"{one_of}{', '.join(map(str, choices))}.{did_you_mean(str(value), map(str, choices))}")


def _convert_union(value: Any, hints: tuple[Any, ...]) -> Any:
    """Return ``value`` as the first of ``hints`` that fits; None fits only the hint None."""
    none = type(None)
    if value is None and none in hints:
        return None
    expected = []
    for hint in hints:
        if hint is not none:
            try:
                return _convert(value, hint)
            except ValueError as error:
                expected.append(str(error))
    raise ValueError(" or ".join(expected))


def _convert_tuple(value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``value``, a list, a tuple or a single item, as a tuple of items with the types ``hints``.

    Args:
        hints: one type for each item, or one type for all items followed by ``...``.
    """
    items = value if isinstance(value, (list, tuple)) else [value]
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(items)
    elif len(items) != len(hints):
        raise ValueError(f"{len(hints)} values")
    return tuple(_convert(item, hint) for item, hint in zip(items, hints, strict=True))


def _check_range(value: Any, limits: Mapping[str, Any]) -> None:
    """Check that a number, or every number of a tuple, is within the limits; skip everything else.

    Raises:
        ValueError: a number is outside the limits or NaN; the message continues "expected ...".
    """
    low, high = limits.get("minimum"), limits.get("maximum")
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, (int, float)):
            continue
        if low is not None and not number >= low:
            raise ValueError(f"at least {low}")
        if high is not None and not number <= high:
            raise ValueError(f"at most {high}")


def config_id(config: Mapping[str, Any]) -> str:
    """Return eight hex digits that identify a configuration; the order of keys does not matter.

    >>> config_id({"a": 1, "b": (2, 3)}) == config_id({"b": [2, 3], "a": 1})
    True
    """
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:8]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the leaves of nested dicts as canonical JSON, each under its dotted key.

    >>> flatten({"options": {"layers": [1, 2]}, "weights": None})
    {'options.layers': '[1,2]', 'weights': 'null'}
    """
    leaves: dict[str, str] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: _canonical(value)}
    return leaves


def _canonical(value: Any) -> str:
    """Return ``value`` as JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
