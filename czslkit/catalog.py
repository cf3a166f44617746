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

from .registry import BUILTIN, Plugin, installed_plugins

_KINDS = {
    "METHODS": "method",
    "BACKBONES": "backbone",
    "AGGREGATORS": "aggregator",
    "INTERACTIONS": "interaction",
    "HEADS": "head",
}
#: Loads every plugin for real, in a process of its own, and prints what came of it.
_PROBE = """
import json
from czslkit import registry
registry.load_plugins()
items = [
    (kind, name, cls.__module__, (cls.__doc__ or "").strip().split("\\n")[0])
    for kind, known in registry.REGISTRIES.items() for name, cls in known._items.items()
]
print("\\n" + json.dumps({"items": items, "failures": registry.failures()}))
"""


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
    order = list(_KINDS.values())
    return sorted(entries, key=lambda e: (order.index(e.kind), e.name)), failures


def _declared(module: str, dist: str) -> Iterator[Entry]:
    """Classes of ``module`` that stand under ``@REGISTRY.register("name")``."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        for mark in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            match mark:
                case ast.Call(func=ast.Attribute(ast.Name(registry), "register"), args=[ast.Constant(str(name))]):
                    assert isinstance(node, ast.ClassDef)
                    summary = (ast.get_docstring(node) or "").split("\n")[0]
                    yield Entry(_KINDS[registry], name, dist, summary)


def _loaded(plugins: list[Plugin]) -> tuple[set[Entry], list[str]]:
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "no message").split("\n")[-1]
        return set(), [f"plugin {p.name!r} ({p.dist}) ended the process that loaded it: {last}" for p in plugins]
    report = json.loads(done.stdout.strip().split("\n")[-1])
    entries = set()
    for kind, name, module, summary in report["items"]:
        for plugin in plugins:
            if module == plugin.module or module.startswith(f"{plugin.module.split('.')[0]}."):
                entries.add(Entry(kind, name, plugin.dist, summary))
    return entries, report["failures"]
