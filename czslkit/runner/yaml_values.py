"""Values as a user types them: YAML with the numbers of its version 1.2. It does not import torch."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ..foreign_files import check_digits
from ..options import NUMBER
from ..yaml_files import PlainLoader, numbered_lines, parse_yaml

_BRACKETS = {"[": "]", "{": "}", '"': '"', "'": "'"}  # first character of a value that is no plain text -> its last


class _Loader(PlainLoader):
    """A loader with the numbers of YAML 1.2: ``064`` is 64, and ``1:04``, ``1_000`` and dates are texts."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 (an instance variable in the base class)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number: decimal, also with leading zeros, or octal or hexadecimal after ``0o`` or ``0x``."""
        text = str(self.construct_scalar(node))
        check_digits(text)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_INT = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = rf"{NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _kind, _pattern, _first in (
    ("null", "~|null|Null|NULL|", "~nN\0"),
    ("bool", r"(?i:true|false|yes|no|on|off)", "tTfFyYnNoO"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
):
    characters = ["" if character == "\0" else character for character in _first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), characters)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


#: A quoted text at the start of a part, a bracket, a comma, or any other character.
_PIECE = re.compile(r""" "(?:[^"\\]|\\.)*" | '[^']*' | . """, re.VERBOSE | re.DOTALL)


def split_values(text: str) -> list[str]:
    """Return the parts of a text between its commas; commas in quotes or brackets part nothing.

    >>> split_values("1e-3, 5e-3"), split_values("[4, 4],[8, 8]"), split_values("'a, b'")
    (['1e-3', '5e-3'], ['[4, 4]', '[8, 8]'], ["'a, b'"])
    """
    parts, depth = [""], 0
    for piece in _PIECE.findall(text):
        depth += (piece in "[{") - (piece in "]}")
        if piece == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


def is_marked(text: str) -> bool:
    """Return whether a value stands in quotes or brackets.

    >>> is_marked("[1, 2]"), is_marked("1")
    (True, False)
    """
    return len(text) > 1 and text[-1] == _BRACKETS.get(text[0])


def is_text(text: str) -> bool:
    """Return whether a value without quotes or brackets is a text, not a number or another value of YAML.

    >>> is_text("adam"), is_text("1e-3"), is_text("null"), is_text("'adam'")
    (True, False, False, False)
    """
    return not is_marked(text) and _tag(text) == "tag:yaml.org,2002:str"


def _tag(text: str) -> str:
    return str(_Loader("").resolve(yaml.ScalarNode, text, (True, False)))


def load_yaml(text: str) -> Any:
    """Return the content of a YAML document; its numbers are those of YAML 1.2.

    Raises:
        yaml.YAMLError: the text is not YAML.
        ValueError: a number has too many digits.

    >>> load_yaml("{a: 064, b: 1:04, c: 1e-3, d: 0x10}")
    {'a': 64, 'b': '1:04', 'c': 0.001, 'd': 16}
    """
    return parse_yaml(text, _Loader)


def load_yaml_lines(text: str) -> tuple[Any, dict[tuple[str | int, ...], int]]:
    """Return the content of a YAML document, as :func:`load_yaml` does, and the line of each part of it.

    Raises:
        yaml.YAMLError, ValueError: as :func:`load_yaml`, or a mapping has a key twice.

    >>> load_yaml_lines("a:\\n  - 1\\n")
    ({'a': [1]}, {(): 1, ('a',): 1, ('a', 0): 2})
    """
    return load_yaml(text), numbered_lines(text, _Loader)


def parse_value(text: str) -> Any:
    """Return the value that a user typed: a YAML list, mapping or quoted text in its marks, else one scalar.

    Everything else is a text as it stands, so a path may contain `` #`` and ``: ``.

    Raises:
        yaml.YAMLError: what stands between the marks is not YAML.
        ValueError: a number has too many digits.

    >>> [parse_value(text) for text in ("064", "[1, 2]", "my #2: weights.pt", "null")]
    [64, [1, 2], 'my #2: weights.pt', None]
    """
    text = text.strip()
    if is_marked(text):
        return load_yaml(text)
    return _Loader("").construct_object(yaml.ScalarNode(_tag(text), text))
