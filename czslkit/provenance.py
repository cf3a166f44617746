"""Versions and digests of the classes, backbone weights and packages that results depend on."""

from __future__ import annotations

import functools
import importlib
import json
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

from .errors import DataError
from .files import file_digest, folder_digest
from .options import named_files
from .source_code import code_digest

#: Packages whose versions every result records.
PACKAGES = ("czslkit", "torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")
#: Top-level packages of this project. Only classes with a ``version`` are recorded from them.
OWN = ("czslkit", "czslkit_plugins")
#: Top-level packages of other projects whose classes are not recorded; ``PACKAGES`` has their versions.
LIBRARIES = frozenset({"torch", "torchvision", "open_clip", "timm", "numpy", "PIL"}) | sys.stdlib_module_names


def class_versions(classes: Iterable[Any]) -> dict[str, str]:
    """Return the version of each class and of its bases, or function, by ``module:name``; see :func:`class_version`."""
    bases = {base for cls in classes for base in getattr(cls, "__mro__", (cls,))}
    found = {class_name(base): class_version(base) for base in bases}
    return {name: version for name, version in sorted(found.items()) if version is not None}


def class_version(cls: Any) -> str | None:
    """Return a text that identifies the code of a class or function, None for one that is not recorded.

    It is the ``version`` in the body of the class. For a class of another package without ``version``, it is the
    distribution and its version. For a class from a file or an editable installation, it includes the digest of the
    code; see :func:`module_version`.
    """
    top = cls.__module__.partition(".")[0]
    if isinstance(vars(cls).get("version"), (int, str)):
        return f"version {vars(cls)['version']}"
    if top in OWN or top in LIBRARIES:
        return None
    return module_version(cls.__module__)


def class_name(cls: Any) -> str:
    """Return ``module:name`` of a class or function, as :func:`current_version` takes it."""
    return f"{cls.__module__}:{cls.__qualname__}"


def current_version(name: str) -> str | None:
    """Return the current version of a recorded name, None if the name no longer exists.

    Args:
        name: ``module:name`` of a class, or a module with a ``VERSION``, or a module of another package.
    """
    home, _, qualified = name.partition(":")
    if "<" in qualified:  # a class in a function, or a lambda, cannot be found by its name
        return module_version(home)
    try:
        found: Any = importlib.import_module(home)
        for part in qualified.split(".") if qualified else ():
            found = getattr(found, part)
    except Exception:  # the module is gone, or another module now has its names
        return None
    if qualified:
        return class_version(found)
    return f"version {found.VERSION}" if hasattr(found, "VERSION") else module_version(home)


def module_version(module: str) -> str:
    """Return distribution and version of a module's package, and the digest of its code if these are not sufficient.

    The code of a module in a file or an editable installation may change without a new version. Its digest covers the
    module and all such modules that it imports; comments and docstrings do not count.
    """
    return _version_of_loaded(module, sys.modules.get(module))


def distributions(classes: Iterable[type]) -> dict[str, str]:
    """Return the distribution and version of each class by module, without libraries and single files."""
    modules = {cls.__module__ for cls in classes if cls.__module__.partition(".")[0] not in LIBRARIES}
    shipped = {module: _distributions().get(module.partition(".")[0], ()) for module in sorted(modules)}
    return {
        module: ", ".join(f"{name} {version(name)}" for name in sorted(set(names)))
        for module, names in shipped.items()
        if names
    }


def backbone_digest(setting: str) -> str:
    """Return the digest of the weight file or folder in a backbone setting, or the setting itself if it has none.

    Raises:
        DataError: the file or folder of the setting does not exist.
    """
    if setting == "demo":
        return file_digest(Path(__file__).parent / "backbones" / "demo_clip" / "czslkit-demo.safetensors")
    if setting.startswith("local-dir:"):
        folder = Path(setting.removeprefix("local-dir:"))
        if not folder.is_dir():
            raise DataError(f"backbone {setting}: there is no folder {folder}")
        return folder_digest(folder)
    after = setting.partition("/")[2]
    for path in map(Path, (setting, after, after.partition("/")[2])):
        if path.is_file():
            return file_digest(path)
        if path.is_absolute():
            raise DataError(f"backbone {setting}: there is no file {path}")
    return setting


def option_digests(options: Any, *, where: str) -> dict[str, str]:
    """Return the digest of the files and folders that each option of a method names, without the backbone's.

    Args:
        options: the options of a method.
        where: the method, for the error message.

    Raises:
        DataError: a file is missing; the message names the option.
    """
    found: dict[str, str] = {}
    for name, paths in named_files(options).items():
        if missing := [path for path in paths if not path.exists()]:
            raise DataError(f"{where}: {name} is {missing[0]}, which does not exist")
        found[name] = "-".join(folder_digest(path) if path.is_dir() else file_digest(path) for path in paths)
    return found


def held_classes(module: object) -> set[Any]:
    """Return the classes and functions from other projects that a module holds in attributes, also inside containers.

    Classes that cannot be imported by their name are left out, since their code cannot be found again.
    """
    found: set[Any] = set()
    waiting, visited = [*vars(module).values()], set()
    while waiting:
        value = waiting.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, functools.partial):
            waiting += [value.func, *value.args, *value.keywords.values()]
        elif isinstance(value, MethodType):
            waiting += [value.__func__, value.__self__]
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        item = value if isinstance(value, (FunctionType, type)) else type(value)
        if item.__module__.partition(".")[0] not in (*OWN, *LIBRARIES) and _is_importable(item):
            found.add(item)
    return found


def _is_importable(item: Any) -> bool:
    """Return whether a class or function is found in its module by its name; functions count by their module."""
    home: Any = sys.modules.get(item.__module__)
    if isinstance(item, FunctionType):
        return home is not None
    for part in item.__qualname__.split("."):
        home = getattr(home, part, None)
    return home is item


def environment(device: str) -> dict[str, Any]:
    """Return the versions of Python, the platform and the packages that results depend on, and the device."""
    return {"python": platform.python_version(), "platform": platform.platform(), "device": device} | packages()


def packages() -> dict[str, str | None]:
    """Return the versions of the packages that results depend on, None for a package that is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@functools.cache  # a process runs the code that it has imported, whatever becomes of the file
def _version_of_loaded(module: str, loaded: ModuleType | None) -> str:
    """Return the version of a module; ``loaded`` is another key of the cache if a file has been imported again."""
    names = _distributions().get(module.partition(".")[0], ())
    found = sorted(f"{name} {version(name)}" for name in set(names))
    if _changes_without_version(module.partition(".")[0]):
        digest = code_digest(module, _changes_without_version)
        found += [f"code {digest}"] if digest else []
    return ", ".join(found) or "without a file"


def _changes_without_version(package: str) -> bool:
    """Return whether the code of a top-level package may change without a new version of a distribution."""
    if package in OWN or package in LIBRARIES:
        return False
    names = _distributions().get(package, ())
    return not names or any(map(_is_editable, names))


@functools.cache
def _distributions() -> dict[str, list[str]]:
    """Return the distributions that contain each top-level package."""
    return dict(packages_distributions())


@functools.cache
def _is_editable(name: str) -> bool:
    """Return whether a distribution is installed in editable mode, so that code may change without the version."""
    text = distribution(name).read_text("direct_url.json")
    return bool(text and json.loads(text).get("dir_info", {}).get("editable"))
