"""Find every registered name without importing torch.

The names of czslkit's own classes are read from its source files, since importing them takes seconds. Plugins of other
distributions are imported in a separate process.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from ..data.dataset_folders import data_root, folders_in_layout
from ..data.datasets import DATASETS
from ..data.published import BENCHMARKS
from ..entry_points import Plugin, installed_plugins, is_builtin, plugin_of_module
from ..errors import ConfigError
from ..registry import BUILTIN, failures, load_plugins, load_unpackaged, registries

#: Kind of the classes in each registry, by the name of the registry in the source files.
KINDS = {
    "METHODS": "method",
    "BACKBONES": "backbone",
    "AGGREGATORS": "aggregator",
    "INTERACTIONS": "interaction",
    "HEADS": "head",
    "DATASETS": "dataset",
    "LOGGERS": "logger",
}
#: Program that takes over this process's ``sys.path``, before any other import, and calls ``print_plugin_names``.
_SUBPROCESS_PROGRAM = (
    "import sys; prefix, given, *sys.path = sys.argv[1:]; "
    "from czslkit.cli.registered_names import print_plugin_names; print_plugin_names(prefix, given)"
)
OWN_DATASET = "A dataset of your own, in the layout of the field."
_RESULT_PREFIX = "czslkit list: "  # marks the line with the result, since plugins may print other lines


@dataclass(frozen=True)
class RegisteredName:
    """A registered name with its kind, the distribution of its class and the first line of the class's docstring."""

    kind: str
    name: str
    dist: str
    summary: str


def registered_names(given: Sequence[str] = ()) -> tuple[list[RegisteredName], list[str]]:
    """Return every registered name, by kind and then by name, and a line for each plugin that failed.

    Args:
        given: modules or files that register names but are not installed as plugins.

    Raises:
        ConfigError: some of ``given`` cannot be found or imported.

    >>> [name.name for name in registered_names()[0] if name.kind == "aggregator"][:2]
    ['last_layer', 'low_high']
    """
    plugins = installed_plugins()
    own_plugins = [plugin for plugin in plugins if plugin.builtin]
    other_plugins = [plugin for plugin in plugins if not plugin.builtin]
    dist = own_plugins[0].dist if own_plugins else "czslkit"
    own_modules = (*BUILTIN, *(plugin.module for plugin in own_plugins))
    names = {name for module in own_modules for name in names_in_source(module, dist)}
    problems: list[str] = []
    if other_plugins or given:
        found, problems = _names_of_plugins(other_plugins, given)
        names |= found
    kinds = list(dict.fromkeys([*KINDS.values(), *sorted(name.kind for name in names)]))  # a plugin may add a kind
    return sorted(names, key=lambda name: (kinds.index(name.kind), name.name)), problems


def imported_datasets(data: Path | None, names: Sequence[RegisteredName]) -> list[RegisteredName]:
    """Return the datasets in the folder ``data`` that are not registered; no plugin of another distribution is loaded.

    Args:
        names: all registered names.
    """
    base = data_root(data)
    taken = {name.name for name in names if name.kind == "dataset"}
    taken |= {alias for name in BENCHMARKS for alias in DATASETS[name].aliases}
    return [
        RegisteredName("dataset", name, str(base / name), OWN_DATASET)
        for name in folders_in_layout(base)
        if name not in taken
    ]


def names_in_source(module: str, dist: str) -> Iterator[RegisteredName]:
    """Yield the name of every class in the source of ``module`` that has a decorator ``@REGISTRY.register("name")``."""
    for node in ast.walk(ast.parse(source_file(module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            match decorator:
                case ast.Call(func=ast.Attribute(ast.Name(registry), "register"), args=[ast.Constant(str(name))]):
                    yield RegisteredName(KINDS[registry], name, dist, _first_line(ast.get_docstring(node)))


def source_file(module: str) -> Path:
    """Return the file of ``module`` without importing its package; ``find_spec`` of a submodule would import it."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0], *rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _names_of_plugins(plugins: list[Plugin], given: Sequence[str]) -> tuple[set[RegisteredName], list[str]]:
    """Return the names that ``plugins`` and the code ``given`` register, and a line for each plugin that failed.

    They are imported in another process, since a plugin may end its process or import torch.

    Raises:
        ConfigError: some of ``given`` cannot be found or imported.
    """
    command = [sys.executable, "-c", _SUBPROCESS_PROGRAM, _RESULT_PREFIX, json.dumps(given), *sys.path]
    done = subprocess.run(command, capture_output=True, text=True)
    results = [line for line in done.stdout.split("\n") if line.startswith(_RESULT_PREFIX)]
    if not results:
        last = (done.stderr.strip() or "no message").split("\n")[-1]
        if given:
            raise ConfigError([f"--plugins {' '.join(given)} ended the process that loaded it: {last}"])
        return set(), [f"plugin {p.name!r} ({p.dist}) ended the process that loaded it: {last}" for p in plugins]
    result = json.loads(results[-1].removeprefix(_RESULT_PREFIX))
    if result["problems"]:
        raise ConfigError(result["problems"])
    return {RegisteredName(*fields) for fields in result["names"]}, result["failures"]


def print_plugin_names(prefix: str, given: str) -> None:
    """Import every plugin; print the names of other distributions and the failures as JSON after ``prefix``.

    Args:
        given: a JSON list of modules or files that are imported, too.
    """
    load_plugins()
    problems: list[str] = []
    for plugin in json.loads(given):
        try:
            load_unpackaged(plugin)
        except ConfigError as error:
            problems += error.problems
    names = [
        (kind, name, origin(cls), _first_line(cls.__doc__))
        for kind, registry in registries().items()
        for name, cls in registry.items()
        if not is_builtin(cls.__module__)
    ]
    print("\n" + prefix + json.dumps({"names": names, "failures": failures(), "problems": problems}))


def origin(cls: type) -> str:
    """Return the distribution of a registered class, or the file of a class that is not installed."""
    if is_builtin(cls.__module__):
        return f"czslkit {__version__}"
    plugin = plugin_of_module(cls.__module__)
    return plugin.dist if plugin else getattr(sys.modules[cls.__module__], "__file__", None) or cls.__module__


def _first_line(docstring: str | None) -> str:
    """Return the first line of a docstring, ``""`` for no docstring."""
    return (docstring or "").strip().split("\n")[0]
