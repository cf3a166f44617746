"""Names to classes; the only place that knows plugins exist."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from itertools import takewhile
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
    "czslkit.data.published",
)
#: Words that mean something else in a setting such as ``train.epochs``.
RESERVED = ("train", "eval")
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

    Looking a name up first loads every installed plugin, unless the name is a built-in's, which
    none can take; registering never does more than remember a class.

    >>> from czslkit.components import Aggregator, AGGREGATORS
    >>> "last_layer" in AGGREGATORS, AGGREGATORS["last_layer"].__name__
    (True, 'LastLayer')
    """

    def __init__(self, kind: str, base: type[T], *, builtins: str = "") -> None:
        """
        Args:
            kind: what one is called in messages.
            base: what its classes derive from.
            builtins: the one module that registers every built-in of this kind. A look-up imports that module, and
                loads plugins only if a distribution other than czslkit has one installed.
        """
        self.kind, self.base, self._builtins = kind, base, builtins
        self._items: dict[str, type[T]] = {}
        self._contested: dict[str, str] = {}
        REGISTRIES[kind] = self

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that claims ``name``.

        Defining the same class again, as a notebook does, replaces it. Where two installed
        plugins claim one name, both load, and looking the name up is the error.

        Raises:
            TypeError: the class is not of this kind.
            ValueError: the name would not do on a command line or in a setting.
            NameTakenError: another class holds the name.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name in RESERVED:
            raise ValueError(
                f"{self.kind} name {name!r}: expected lower-case letters, digits, '_' and '-', "
                f"and neither of {', '.join(RESERVED)}"
            )

        def add(cls: C) -> C:
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise TypeError(f"{self.kind} {name!r}: expected a subclass of {self.base.__name__}, got {cls!r}")
            if not _is_builtin(cls.__module__):
                load_plugins()  # a built-in that is not loaded yet holds its name all the same
            held = self._items.get(name)
            if held is not None and (held.__module__, held.__qualname__) != (cls.__module__, cls.__qualname__):
                holder, other = owner(held.__module__), owner(cls.__module__)
                if _state == "loading" and not _is_builtin(held.__module__):
                    self._contested[name] = f"{self.kind} {name!r} is claimed by {holder} and by {other}"
                    return cls  # type: ignore[return-value]
                raise NameTakenError(
                    f"{self.kind} {name!r} is already registered by {holder}; {other} cannot take the same name"
                )
            self._items[name] = cls
            return cls  # type: ignore[return-value]

        return add

    def __getitem__(self, name: str) -> type[T]:
        self._load(name)
        if name in self._contested:
            raise NameTakenError(f"{self._contested[name]}; it works once one of the two is uninstalled")
        if name in self._items:
            return self._items[name]
        raise UnknownNameError(
            f"no {self.kind} named {name!r}.{did_you_mean(name, self._items)} Known: {', '.join(self)}."
            + "".join(f"\n  {line}" for line in failures())
        )

    def __contains__(self, name: object) -> bool:
        self._load(name)
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._items))

    def __len__(self) -> int:
        self._load()
        return len(self._items)

    def classes(self) -> list[type[T]]:
        """Return every class that holds a name."""
        self._load()
        return list(self._items.values())

    def _load(self, name: object = None) -> None:
        """Load every plugin, unless none can say more of ``name``, or of all names."""
        if self._builtins:
            importlib.import_module(self._builtins)
        held = self._items.get(name) if isinstance(name, str) else None
        if held is not None and _is_builtin(held.__module__):
            return
        if not self._builtins or any(not plugin.builtin for plugin in installed_plugins()):
            load_plugins()


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
    _failed.clear()
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
        ConfigError: it cannot be found or fails when imported; what it had registered is withdrawn.
    """
    load_plugins()
    before = _registered()
    try:
        if name.endswith(".py"):
            _run_file(Path(name))
        else:
            if (here := str(Path.cwd())) not in sys.path:
                sys.path.insert(0, here)
            importlib.import_module(name)
    except (Exception, SystemExit) as error:
        _withdraw(before, None)
        raise ConfigError([f"plugin {name} did not load: {type(error).__name__}: {error}"]) from error


def failures() -> list[str]:
    """A line for every plugin that did not load, and for every name that two plugins claim."""
    lines = [f"plugin {p.name!r} ({p.dist}) did not load: {type(e).__name__}: {e}" for p, e in _failed]
    return lines + [line for registry in REGISTRIES.values() for line in registry._contested.values()]


def plugin_of(module: str) -> Plugin | None:
    """The installed plugin that ``module`` is part of: that with the most of its dotted path in common."""

    def common(plugin: Plugin) -> int:
        pairs = zip(plugin.module.split("."), module.split("."), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    best = max(installed_plugins(), key=common, default=None)
    return best if best and common(best) else None


def owner(module: str) -> str:
    """Who ships ``module``: distribution and version for an installed plugin, else the module itself."""
    plugin = plugin_of(module)
    return f"{plugin.dist} ({module})" if plugin else module


def _load(plugin: Plugin) -> None:
    before = _registered()
    try:
        importlib.import_module(plugin.module)
    except (Exception, SystemExit) as error:
        _failed.append((plugin, error if isinstance(error, Exception) else RuntimeError(f"it exited: {error}")))
        _withdraw(before, plugin)


def _registered() -> dict[str, tuple[dict[str, type], dict[str, str]]]:
    """Names held and names contested in every registry."""
    return {kind: (dict(r._items), dict(r._contested)) for kind, r in REGISTRIES.items()}


def _withdraw(before: dict[str, tuple[dict[str, type], dict[str, str]]], failed: Plugin | None) -> None:
    """Bring every registry back to ``before``, save for what another plugin registered.

    A plugin may import another; that one's module is loaded for good and will not register again.
    """
    for kind, registry in REGISTRIES.items():
        items, contested = before.get(kind, ({}, {}))
        new = {name: cls for name, cls in registry._items.items() if name not in items}
        others = {name: cls for name, cls in new.items() if plugin_of(cls.__module__) not in (None, failed)}
        registry._items, registry._contested = items | others, contested


def _run_file(path: Path) -> None:
    """Import a file, under a name that no installed module has: it may be called ``timm.py``."""
    name = f"czslkit_file_{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _is_builtin(module: str) -> bool:
    return module.split(".")[0] in ("czslkit", "czslkit_plugins")
