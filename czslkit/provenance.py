"""What a result rests on: code, weights and versions, as digests and names."""

from __future__ import annotations

import ast
import functools
import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .entry_points import distribution_of_module, plugin_of_module
from .errors import DataError
from .files import file_digest

#: Parts of this package that no number depends on.
SILENT = {
    *("__init__", "__main__", "benchmark", "catalog", "cli", "config", "doctor", "entry_points", "errors", "options"),
    *("explanation", "overlay", "provenance", "published", "registry", "report", "store", "testing"),
    *("cells", "forecast", "memory", "rendering", "significance", "sizes"),
    *("evaluation.bootstrap", "evaluation.details", "evaluation.outcomes"),  # of the numbers, not in them
    *(
        "data.archives",
        "data.cache",
        "data.catalogue",
        "data.custom",
        "data.demo",
        "data.depot",
        "data.division",
        "data.download",
    ),
    *("data.fingerprint", "data.integrity", "data.inventory", "data.mini", "data.oddities", "data.sources"),
    *("data.transfer", "data.verification"),  # the data itself counts
}
#: Top-level packages that no plugin is in.
FOREIGN = ("czslkit", "torch", "torchvision", "open_clip", "timm", "builtins", "typing", "abc")
PACKAGES = ("czslkit", "torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")


def code(*classes: type) -> dict[str, str]:
    """Digest of every module that the numbers of a method, or of a method and its backbone, come from.

    Comments and docstrings do not count. Of a class from another distribution, every
    module of its top-level package counts.
    """
    package = Path(__file__).parent
    modules = {f"czslkit.{_dotted(p, package)}": p for p in _sources(package) if _dotted(p, package) not in SILENT}
    return dict(sorted(({name: _digest(path) for name, path in modules.items()} | homes(*classes)).items()))


def homes(*classes: type) -> dict[str, str]:
    """Digest of every module that classes, and what they derive from, are defined in; what counts is as in ``code``."""
    modules: dict[str, Path] = {}
    for base in (base for cls in classes for base in cls.__mro__):
        if base.__module__.split(".")[0] in ("czslkit_plugins", "czslkit"):
            modules |= {base.__module__: file} if (file := _file(base)) else {}
        elif base.__module__.split(".")[0] not in FOREIGN:
            modules |= _package(base)
    return {name: _digest(path) for name, path in sorted(modules.items())}


def plugins(classes: Iterable[type]) -> dict[str, str]:
    """Distribution and version of every plugin among the homes of ``classes``, by module."""
    modules = {cls.__module__ for cls in classes if cls.__module__.split(".")[0] not in FOREIGN}
    return {module: distribution_of_module(module) for module in sorted(modules) if plugin_of_module(module)}


def weights(setting: str) -> str:
    """What a backbone setting stands for: the digest of its weight file, else the setting itself.

    Raises:
        DataError: it names a file that is not there.
    """
    if setting == "demo":
        return file_digest(Path(__file__).parent / "backbones" / "demo_clip" / "czslkit-demo.safetensors")
    after = setting.partition("/")[2]
    for path in map(Path, (setting, after, after.partition("/")[2])):
        if path.is_file():
            return file_digest(path)
        if path.is_absolute():
            raise DataError(f"backbone {setting}: there is no file {path}")
    return setting


def versions(device: str) -> dict[str, Any]:
    """Versions of Python and of the packages that numbers come from, and the device they were made on."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "device": device}
    return found | packages()


def packages() -> dict[str, str | None]:
    """Versions of the packages that numbers come from, None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@functools.cache
def _digest(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # a template, say, beside a plugin's modules
        return file_digest(path)
    for node in ast.walk(tree):
        match node:
            case (
                ast.Module(body=[ast.Expr(ast.Constant(str())) as doc, *_])
                | ast.ClassDef(body=[ast.Expr(ast.Constant(str())) as doc, *_])
                | ast.FunctionDef(body=[ast.Expr(ast.Constant(str())) as doc, *_])
            ):
                doc.value = ast.Constant("")
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _package(cls: type) -> dict[str, Path]:
    """Every module of the top-level package that ``cls`` is from."""
    file = _file(cls)
    if file is None:
        return {}
    parents = cls.__module__.count(".") + (file.name == "__init__.py")
    root = file.parents[parents - 1] if parents else file
    top = cls.__module__.split(".")[0]
    return {f"{top}.{_dotted(p, root)}": p for p in _sources(root)} if root.is_dir() else {cls.__module__: file}


def _file(cls: type) -> Path | None:
    import sys

    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(file) if file else None


def _sources(root: Path) -> Iterable[Path]:
    return sorted(p for p in root.rglob("*.py") if "__pycache__" not in p.parts)


def _dotted(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)
