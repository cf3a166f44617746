"""Names to classes; the only place that knows plugins exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from .errors import ConfigError, NameTakenError, UnknownNameError, did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=type)
GROUP = "czslkit.plugins"
#: Modules of this package that register components when imported.
BUILTIN = (
    "czslkit.backbones.open_clip",
    "czslkit.backbones.demo",
    "czslkit.backbones.timm",
    "czslkit.aggregators",
    "czslkit.interactions",
    "czslkit.heads",
)
REGISTRIES: dict[str, Registry] = {}
_state = "unloaded"  # then "loading", then "loaded"
_failed: list[tuple[Plugin, Exception]] = []


@dataclass(frozen=True)
class Plugin:
    """An installed entry point: a module that registers things when imported."""

    name: str
    module: str
    dist: str  # "czslkit 0.1.0"

    @classmethod
    def of(cls, point: EntryPoint) -> Plugin:
        dist = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
        return cls(point.name, point.value.split(":")[0].strip(), dist)

    @property
    def builtin(self) -> bool:
        return self.dist.split()[0] == "czslkit"


class Registry(Generic[T]):
    """A named set of classes of one kind.

    Looking a name up first loads every installed plugin; registering never does more
    than remember a class.

    >>> from czslkit.components import Aggregator, AGGREGATORS
    >>> "last_layer" in AGGREGATORS, AGGREGATORS["last_layer"].__name__
    (True, 'LastLayer')
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind, self.base = kind, base
        self._items: dict[str, type[T]] = {}
        self._contested: dict[str, NameTakenError] = {}
        REGISTRIES[kind] = self

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that claims ``name``.

        Defining the same class again, as a notebook does, replaces it.

        Raises:
            TypeError: the class is not of this kind.
            ValueError: the name could not be typed on a command line.
            NameTakenError: another class holds the name.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
            raise ValueError(f"{self.kind} name {name!r}: expected lower-case letters, digits, '_', '.' and '-'")

        def add(cls: C) -> C:
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise TypeError(f"{self.kind} {name!r}: {cls.__qualname__} is not a {self.base.__name__}")
            if not _is_builtin(cls.__module__):
                load_plugins()  # a built-in that is not loaded yet holds its name all the same
            held = self._items.get(name)
            if held is not None and (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
                error = NameTakenError(
                    f"{self.kind} {name!r} is already registered by {owner(held.__module__)}; "
                    f"{owner(cls.__module__)} cannot take the same name"
                )
                if not _is_builtin(held.__module__):
                    self._contested[name] = error
                raise error
            self._items[name] = cls
            return cls  # type: ignore[return-value]

        return add

    def __getitem__(self, name: str) -> type[T]:
        load_plugins()
        if name in self._contested:
            raise self._contested[name]
        if name in self._items:
            return self._items[name]
        raise UnknownNameError(
            f"no {self.kind} named {name!r}.{did_you_mean(name, self._items)} Known: {', '.join(self)}."
            + "".join(f"\n  {line}" for line in failures())
        )

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(sorted(self._items))

    def __len__(self) -> int:
        load_plugins()
        return len(self._items)


def installed_plugins() -> list[Plugin]:
    """Every entry point of the group, the package's own first, without importing any."""
    plugins = {Plugin.of(point) for point in entry_points(group=GROUP)}
    return sorted(plugins, key=lambda p: (not p.builtin, p.dist, p.name))


def load_plugins() -> None:
    """Import the built-in components and every installed plugin, once.

    A plugin that cannot be imported is set aside with its exception, and what it had
    registered before it failed is withdrawn.
    """
    global _state
    if _state != "unloaded":
        return
    _state = "loading"
    try:
        for module in BUILTIN:
            importlib.import_module(module)
        for plugin in installed_plugins():
            _load(plugin)
    except BaseException:
        _state = "unloaded"
        raise
    _state = "loaded"


def load_extra(name: str) -> None:
    """Import unpackaged code that registers things: a module, or a Python file.

    Raises:
        ConfigError: it cannot be found or fails when imported.
    """
    load_plugins()
    try:
        if name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(name).stem, name)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            importlib.import_module(name)
    except Exception as error:
        raise ConfigError([f"plugin {name} did not load: {type(error).__name__}: {error}"]) from error


def failures() -> list[str]:
    """A line for every plugin that did not load."""
    return [f"plugin {p.name!r} ({p.dist}) did not load: {type(e).__name__}: {e}" for p, e in _failed]


def owner(module: str) -> str:
    """Who ships ``module``: distribution and version for an installed plugin, else the module itself."""
    for plugin in installed_plugins():
        if module == plugin.module or module.startswith(f"{plugin.module}."):
            return f"{plugin.dist} ({module})"
    return module


def _load(plugin: Plugin) -> None:
    before = {kind: dict(registry._items) for kind, registry in REGISTRIES.items()}
    try:
        importlib.import_module(plugin.module)
    except (Exception, SystemExit) as error:
        _failed.append((plugin, error if isinstance(error, Exception) else RuntimeError(f"it exited: {error}")))
        for kind, registry in REGISTRIES.items():
            registry._items = before.get(kind, {})


def _is_builtin(module: str) -> bool:
    return module.split(".")[0] in ("czslkit", "czslkit_plugins")
