"""YAML that costs no more than its text: without aliases, with numbers of few digits. No torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .foreign_files import YAML_LIMIT, check_digits, read_text


class PlainLoader(yaml.SafeLoader):
    """A loader of plain values that refuses aliases, which could stand for any number of values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node, as the base class does.

        Raises:
            yaml.YAMLError: the node is an alias.
        """
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"it has the alias *{str(event.anchor)[:40]}; write the value where it is used")
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number, as the base class does.

        Raises:
            ValueError: the number has too many digits.
        """
        check_digits(str(self.construct_scalar(node)))
        return super().construct_yaml_int(node)


PlainLoader.add_constructor("tag:yaml.org,2002:int", PlainLoader.construct_yaml_int)


def parse_yaml(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """Return the content of a YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML, or has aliases.
        ValueError: a number has too many digits, or lists and mappings are in too many others.

    >>> parse_yaml("{a: [1, 2]}")
    {'a': [1, 2]}
    """
    try:
        return yaml.load(text, loader)
    except RecursionError:
        raise ValueError("its lists and mappings are in too many others") from None


def numbered_lines(text: str, loader: type[PlainLoader] = PlainLoader) -> dict[tuple[str | int, ...], int]:
    """Return the number of the line, from 1, of each part of a YAML document, by the keys and positions to it.

    Raises:
        yaml.YAMLError: the text is not YAML, or a mapping has a key twice.

    >>> numbered_lines("a: 1\\nb:\\n  - c: 2\\n")["b", 0, "c"]
    3
    """
    lines: dict[tuple[str | int, ...], int] = {}

    def visit(node: yaml.Node, path: tuple[str | int, ...]) -> None:
        lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                visit(item, (*path, position))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                place = (*path, str(key.value))
                if place in lines:
                    twice = f"{str(key.value)[:40]} is there twice, first in line {lines[place]}"
                    raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
                visit(value, place)
                lines[place] = key.start_mark.line + 1

    if (root := loader(text).get_single_node()) is not None:
        visit(root, ())
    return lines


def yaml_problem(error: yaml.YAMLError) -> str:
    """Return what is wrong with a YAML document as one line, which starts with the number of its line if it is known.

    >>> try:
    ...     parse_yaml("a: [1")
    ... except yaml.YAMLError as error:
    ...     yaml_problem(error)
    "line 1: expected ',' or ']', but got '<stream end>'"
    """
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return str(error).partition("\n")[0][:200]
    return f"line {mark.line + 1}: {problem}"


def read_yaml(path: str | Path, loader: type[PlainLoader] = PlainLoader) -> Any:
    """Return the content of a YAML file of at most ``YAML_LIMIT`` bytes, as :func:`parse_yaml` does.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is too large.
        ValueError: the file is not UTF-8, or as :func:`parse_yaml`.
        yaml.YAMLError: as :func:`parse_yaml`.
    """
    return parse_yaml(read_text(path, YAML_LIMIT), loader)
