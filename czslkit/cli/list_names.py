"""What is registered, without importing it where that can be helped."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..registry import BUILTIN, Plugin, installed_plugins

_KINDS = {
    "METHODS": "method",
    "BACKBONES": "backbone",
    "AGGREGATORS": "aggregator",
    "INTERACTIONS": "interaction",
    "HEADS": "head",
    "DATASETS": "dataset",
}
#: Loads every plugin for real, in a process of its own, and prints what came of it.
_PROBE = """
import sys
mark, *sys.path = sys.argv[1:]
import json
from czslkit import registry
registry.load_plugins()
items = []
for kind, known in registry.REGISTRIES.items():
    for name, cls in known._items.items():
        plugin = registry.plugin_of(cls.__module__)
        if not registry._is_builtin(cls.__module__):
            dist = plugin.dist if plugin else cls.__module__
            items.append((kind, name, dist, (cls.__doc__ or "").strip().split("\\n")[0]))
print("\\n" + mark + json.dumps({"items": items, "failures": registry.failures()}))
"""
_MARK = "czslkit catalog: "  # a plugin may print, too


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    kind: str
    name: str
    dist: str
    summary: str


def catalog() -> tuple[list[Entry], list[str]]:
    """Every registered name, and a line for each plugin that does not load.

    The package's own components are read from their sources; plugins of other
    distributions are loaded in a process of their own.

    >>> [entry.name for entry in catalog()[0] if entry.kind == "aggregator"][:2]
    ['last_layer', 'low_high']
    """
    plugins = installed_plugins()
    own = [p for p in plugins if p.builtin]
    dist = own[0].dist if own else "czslkit"
    entries = {e for module in (*BUILTIN, *(p.module for p in own)) for e in _declared(module, dist)}
    others = [p for p in plugins if not p.builtin]
    failures: list[str] = []
    if others:
        found, failures = _loaded(others)
        entries |= found
    order = dict.fromkeys([*_KINDS.values(), *sorted(e.kind for e in entries)])  # a plugin may add a kind
    return sorted(entries, key=lambda e: (list(order).index(e.kind), e.name)), failures


def _declared(module: str, dist: str) -> Iterator[Entry]:
    """Classes of ``module`` that stand under ``@REGISTRY.register("name")``."""
    for node in ast.walk(ast.parse(_source(module).read_text(encoding="utf-8"))):
        for mark in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            match mark:
                case ast.Call(func=ast.Attribute(ast.Name(registry), "register"), args=[ast.Constant(str(name))]):
                    assert isinstance(node, ast.ClassDef)
                    summary = (ast.get_docstring(node) or "").split("\n")[0]
                    yield Entry(_KINDS[registry], name, dist, summary)


def _source(module: str) -> Path:
    """The file of ``module``; ``find_spec`` of a submodule would import its package, and torch with it."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0], *rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _loaded(plugins: list[Plugin]) -> tuple[set[Entry], list[str]]:
    done = subprocess.run([sys.executable, "-c", _PROBE, _MARK, *sys.path], capture_output=True, text=True)
    reports = [line for line in done.stdout.split("\n") if line.startswith(_MARK)]
    if not reports:
        last = (done.stderr.strip() or "no message").split("\n")[-1]
        return set(), [f"plugin {p.name!r} ({p.dist}) ended the process that loaded it: {last}" for p in plugins]
    report = json.loads(reports[-1].removeprefix(_MARK))
    return {Entry(*item) for item in report["items"]}, report["failures"]
