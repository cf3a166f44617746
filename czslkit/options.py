"""Settings as frozen dataclasses: parsed from plain values, with every problem reported at once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import ConfigError, did_you_mean

T = TypeVar("T")
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def option(default: Any, help: str, *, minimum: float | None = None, maximum: float | None = None) -> Any:
    """A dataclass field with its meaning and its range, both ends included."""
    return dataclasses.field(default=default, metadata={"help": help, "minimum": minimum, "maximum": maximum})


def parse(schema: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build ``schema`` from ``values``, as found in YAML, JSON or keyword arguments.

    Args:
        schema: a frozen dataclass whose fields were made by ``option``.
        values: field names to values; a field left out keeps its default.
        where: whose settings these are, such as ``"csp"``; starts every message.

    Raises:
        ConfigError: unknown names, wrong types and values out of range, all of them.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Options:
    ...     dropout: float = option(0.3, "share of entries set to zero", minimum=0, maximum=1)
    >>> parse(Options, {"dropout": "1e-1"}, where="csp")
    Options(dropout=0.1)
    >>> parse(Options, {"droput": 0.1}, where="csp")
    Traceback (most recent call last):
    czslkit.errors.ConfigError: csp: droput is not an option. Did you mean 'dropout'? Known: dropout.
    """
    fields = {f.name: f for f in dataclasses.fields(schema)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(schema)
    found, problems = {}, []
    for name, value in values.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            problems.append(f"{where}: {name} is not an option.{did_you_mean(str(name), fields)} Known: {known}.")
            continue
        try:
            found[name] = _convert(value, hints[name])
            _check_range(found[name], fields[name].metadata)
        except ValueError as error:
            problems.append(f"{where}: {name} is {value!r}, expected {error}")
    if problems:
        raise ConfigError(problems)
    try:
        return schema(**found)
    except ValueError as error:  # a rule between fields, checked by the schema's __post_init__
        raise ConfigError([f"{where}: {error}"]) from None


def as_dict(options: Any) -> dict[str, Any]:
    """Plain values of an options object, ready for JSON.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Options:
    ...     weights: tuple[float, ...] = (1.0, 0.5)
    >>> as_dict(Options())
    {'weights': [1.0, 0.5]}
    """
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(options).items()}


def _convert(value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` says; a ValueError's text completes "expected ..."."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value in args:
            return value
        one_of = "one of " if len(args) > 1 else ""
        raise ValueError(f"{one_of}{', '.join(map(str, args))}.{did_you_mean(str(value), map(str, args))}")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _first(value, [a for a in args if a is not type(None)])
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        if args[-1] is not Ellipsis and len(items) != len(args):
            raise ValueError(f"{len(args)} values")
        kinds = args if args[-1] is not Ellipsis else args[:1] * len(items)
        return tuple(_convert(item, kind) for item, kind in zip(items, kinds, strict=True))
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a string
        except (TypeError, ValueError, OverflowError):
            raise ValueError("a number") from None
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    if hint in _EXPECTED:
        raise ValueError(_EXPECTED[hint])
    raise TypeError(f"an option cannot be {hint}: expected int, float, bool, str, Literal, a tuple or an optional one")


def _first(value: Any, hints: list[Any]) -> Any:
    """``value`` as the first of ``hints`` that it is."""
    expected = []
    for hint in hints:
        try:
            return _convert(value, hint)
        except ValueError as error:
            expected.append(str(error))
    raise ValueError(" or ".join(expected))


def _check_range(value: Any, limits: Mapping[str, Any]) -> None:
    low, high = limits.get("minimum"), limits.get("maximum")
    for number in value if isinstance(value, tuple) else (value,):
        if number is None or isinstance(number, str):
            continue
        if low is not None and not number >= low:
            raise ValueError(f"at least {low}")
        if high is not None and not number <= high:
            raise ValueError(f"at most {high}")


def config_id(config: Mapping[str, Any]) -> str:
    """Eight hex digits that name a configuration, whatever the order of its keys.

    >>> config_id({"a": 1, "b": (2, 3)}) == config_id({"b": [2, 3], "a": 1})
    True
    """
    return hashlib.sha256(_canonical(config).encode()).hexdigest()[:8]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The leaves of nested dicts, as canonical JSON under dotted keys.

    >>> flatten({"options": {"layers": [1, 2]}, "weights": None})
    {'options.layers': '[1,2]', 'weights': 'null'}
    """
    leaves: dict[str, str] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: _canonical(value)}
    return leaves


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
