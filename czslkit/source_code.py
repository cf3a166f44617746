"""Digests of the source code of modules, and of what they import. It does not import torch.

Comments, docstrings and the layout of lines do not count, and the digest is the same in every version of Python.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from .files import file_digest


def code_digest(module: str, follows: Callable[[str], bool]) -> str | None:
    """Return the digest of a module and of the modules that it imports, also inside functions; None without a file.

    Args:
        module: dotted name. The module need not be imported, and nothing is imported here.
        follows: tells from the name of a top-level package whether imports from it count.
    """
    waiting, found = [module], {}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        loaded = sys.modules.get(name)
        source = _read_once(name, loaded) if loaded else _read(name)
        if source is not None:
            found[name] = source.digest
            waiting += _imports(source.tree, source.package, follows) if source.tree else ()
    own = found.pop(module, None)
    if own is None:
        return None
    content = json.dumps([own, sorted(found.items())])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class _Source:
    """The code of a module."""

    digest: str  # the digest of a file, or the syntax of Python code
    tree: ast.AST | None  # None for code that is not Python
    package: str  # the package that relative imports start from


def _read(module: str) -> _Source | None:
    """Read the code of a module, None if it has no file."""
    file = module_file(module)
    if file is None or not file.is_file():
        return None
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes()) if file.suffix == ".py" else None
    except SyntaxError:
        tree = None
    return _Source(syntax(tree) if tree else file_digest(file), tree, package)


@functools.cache  # a process runs the code that it has imported, whatever becomes of the file
def _read_once(module: str, loaded: ModuleType) -> _Source | None:
    """Read the code of an imported module; ``loaded`` is another key of the cache if it is imported again."""
    return _read(module)


def module_file(module: str) -> Path | None:
    """Return the file of a module, imported or not; None if there is no such module or it has no file."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
        return Path(file) if file else None
    parent, _, name = module.rpartition(".")
    try:
        folders = _folders(parent) if parent else None
        spec = importlib.util.find_spec(name) if folders is None else PathFinder.find_spec(module, folders)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def syntax(node: ast.AST) -> str:
    """Return code as text that is the same in every version of Python, without docstrings and names in papers."""
    tree = copy.deepcopy(node)
    for part in ast.walk(tree):
        body = getattr(part, "body", None)
        if isinstance(body, list):
            in_class = isinstance(part, ast.ClassDef)
            kept = [line for line in body if not (_is_text(line) or (in_class and _is_name_in_papers(line)))]
            part.body = kept  # type: ignore[attr-defined]
    return json.dumps(_plain(tree))


def _folders(package: str) -> list[str]:
    """Return the folders of a package's modules; empty if there is no such package."""
    if package in sys.modules:
        return list(getattr(sys.modules[package], "__path__", ()))
    parent = package.rpartition(".")[0]
    spec = PathFinder.find_spec(package, _folders(parent)) if parent else importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or ()) if spec else []


def _imports(tree: ast.AST, package: str, follows: Callable[[str], bool]) -> Iterator[str]:
    """Yield the modules that code in ``package`` imports, or imports names from, as far as they are followed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if follows(alias.name.partition(".")[0]))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*above, *filter(None, [node.module])])
            if follows(home.partition(".")[0]):
                names = (f"{home}.{alias.name}" for alias in node.names)
                yield from (name if module_file(name) else home for name in names)


def _is_text(node: ast.AST) -> bool:
    """Return whether a line is only a text, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_name_in_papers(node: ast.AST) -> bool:
    """Return whether a line of a class is its name in papers or what they cite, which no number depends on."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [getattr(target, "id", None) for target in targets] in (["display_name"], ["citation"])


def _plain(value: Any) -> Any:
    """Return a syntax tree as lists and texts without empty fields, whose number depends on the version of Python."""
    if isinstance(value, ast.AST):
        fields = {name: _plain(item) for name, item in ast.iter_fields(value)}
        return [type(value).__name__, {name: item for name, item in fields.items() if item not in ([], "None")}]
    return [_plain(item) for item in value] if isinstance(value, list) else repr(value)
