"""``czslkit list``: print every registered name without importing torch.

The names of czslkit's own classes are read from its source files, since importing them takes seconds. Plugins of other
distributions are imported in a separate process.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..entry_points import Plugin, installed_plugins, is_builtin, plugin_of_module
from ..registry import BUILTIN, REGISTRIES, failures, load_plugins
from .arguments import Commands

#: Kind of the classes in each registry, by the name of the registry in the source files.
_KINDS = {
    "METHODS": "method",
    "BACKBONES": "backbone",
    "AGGREGATORS": "aggregator",
    "INTERACTIONS": "interaction",
    "HEADS": "head",
    "DATASETS": "dataset",
}
#: Program that takes over this process's ``sys.path``, before any other import, and calls ``print_plugin_names``.
_SUBPROCESS_PROGRAM = (
    "import sys; prefix, *sys.path = sys.argv[1:]; "
    "from czslkit.cli.list_names import print_plugin_names; print_plugin_names(prefix)"
)
_RESULT_PREFIX = "czslkit list: "  # marks the line with the result, since plugins may print other lines


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "list",
        help="list methods, components and datasets, and the distribution of each",
        description="List every registered method, backbone, aggregator, interaction, head and dataset, with the "
        "distribution that contains it. Plugins that cannot be imported are listed on standard error.",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print every name, and every plugin that failed to standard error; return the exit status."""
    from tabulate import tabulate

    names, problems = registered_names()
    rows = [(name.kind, name.name, name.dist, name.summary) for name in names]
    print(tabulate(rows, headers=("kind", "name", "from", "what it is"), tablefmt="plain"))
    for line in problems:
        print(line, file=sys.stderr)
    return 0


@dataclass(frozen=True)
class RegisteredName:
    """A registered name with its kind, the distribution of its class and the first line of the class's docstring."""

    kind: str
    name: str
    dist: str
    summary: str


def registered_names() -> tuple[list[RegisteredName], list[str]]:
    """Return every registered name, by kind and then by name, and a line for each plugin that failed.

    >>> [name.name for name in registered_names()[0] if name.kind == "aggregator"][:2]
    ['last_layer', 'low_high']
    """
    plugins = installed_plugins()
    own_plugins = [plugin for plugin in plugins if plugin.builtin]
    other_plugins = [plugin for plugin in plugins if not plugin.builtin]
    dist = own_plugins[0].dist if own_plugins else "czslkit"
    own_modules = (*BUILTIN, *(plugin.module for plugin in own_plugins))
    names = {name for module in own_modules for name in _names_in_source(module, dist)}
    problems: list[str] = []
    if other_plugins:
        found, problems = _names_of_plugins(other_plugins)
        names |= found
    kinds = list(dict.fromkeys([*_KINDS.values(), *sorted(name.kind for name in names)]))  # a plugin may add a kind
    return sorted(names, key=lambda name: (kinds.index(name.kind), name.name)), problems


def _names_in_source(module: str, dist: str) -> Iterator[RegisteredName]:
    """Yield the name of every class in the source of ``module`` that has a decorator ``@REGISTRY.register("name")``."""
    for node in ast.walk(ast.parse(_source_file(module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=ast.Attribute(ast.Name(registry), "register"), args=[ast.Constant(str(name))]):
                    yield RegisteredName(_KINDS[registry], name, dist, _first_line(ast.get_docstring(node)))


def _source_file(module: str) -> Path:
    """Return the file of ``module`` without importing its package; ``find_spec`` of a submodule would import it."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0], *rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _names_of_plugins(plugins: list[Plugin]) -> tuple[set[RegisteredName], list[str]]:
    """Return the names that ``plugins`` register, and a line for each plugin that failed.

    The plugins are imported in another process, since a plugin may end its process or import torch.
    """
    command = [sys.executable, "-c", _SUBPROCESS_PROGRAM, _RESULT_PREFIX, *sys.path]
    done = subprocess.run(command, capture_output=True, text=True)
    results = [line for line in done.stdout.split("\n") if line.startswith(_RESULT_PREFIX)]
    if not results:
        last = (done.stderr.strip() or "no message").split("\n")[-1]
        return set(), [f"plugin {p.name!r} ({p.dist}) ended the process that loaded it: {last}" for p in plugins]
    result = json.loads(results[-1].removeprefix(_RESULT_PREFIX))
    return {RegisteredName(*fields) for fields in result["names"]}, result["failures"]


def print_plugin_names(prefix: str) -> None:
    """Import every plugin; print the names of other distributions and the failures as JSON after ``prefix``."""
    load_plugins()
    names = []
    for kind, registry in REGISTRIES.items():
        for name, cls in registry.items():
            if not is_builtin(cls.__module__):
                plugin = plugin_of_module(cls.__module__)
                dist = plugin.dist if plugin else cls.__module__
                names.append((kind, name, dist, _first_line(cls.__doc__)))
    print("\n" + prefix + json.dumps({"names": names, "failures": failures()}))


def _first_line(docstring: str | None) -> str:
    """Return the first line of a docstring, ``""`` for no docstring."""
    return (docstring or "").strip().split("\n")[0]
