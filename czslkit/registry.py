"""Registries of classes by kind and name, and the loading of plugins that register classes."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from .entry_points import Plugin, distribution_of_module, installed_plugins, is_builtin, plugin_of_module
from .errors import ConfigError, NameTakenError, UnknownNameError, did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=type)
#: Modules of this package that register classes when they are imported.
BUILTIN = (
    "czslkit.backbones.open_clip",
    "czslkit.backbones.demo",
    "czslkit.backbones.timm",
    "czslkit.aggregators",
    "czslkit.interactions",
    "czslkit.heads.cosine",
    "czslkit.heads.margin_cosine",
    "czslkit.heads.three_branch",
    "czslkit.data.published",
    "czslkit.loggers.csv_file",
    "czslkit.loggers.tensorboard",
    "czslkit.loggers.wandb",
    "czslkit.loggers.mlflow",
)
#: Names that no class can have, since settings such as ``train.epochs`` start with them.
RESERVED = ("train", "eval")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")  # names that can be used on a command line and in a setting
REGISTRIES: dict[str, Registry] = {}  # every registry, by its kind
_waiting: list[Plugin] | None = None  # installed plugins that are not imported yet; None before the first look-up
_loading = False  # whether plugins are being imported
_failed_plugins: list[tuple[Plugin, Exception]] = []
_unpackaged: dict[str, None] = {}  # modules and paths of files that load_unpackaged imported, in order


class Registry(Generic[T]):
    """Classes of one kind, by name.

    Looking up the name of a built-in class loads no plugin of another distribution, since plugins cannot take the name.
    Looking up another name first loads the plugins that may register it: all modules, and the object of this name. If
    none of them registers the name, the other objects are loaded, too, since their modules may have registered it.

    >>> from czslkit.components import Aggregator, AGGREGATORS
    >>> "last_layer" in AGGREGATORS, AGGREGATORS["last_layer"].__name__
    (True, 'LastLayer')
    """

    def __init__(self, kind: str, base: type[T], *, builtins: str = "") -> None:
        """Make an empty registry and add it to ``REGISTRIES``.

        Args:
            kind: name of this kind of class in messages, for example ``"method"``.
            base: class that every registered class derives from.
            builtins: the module that registers every built-in class of this kind, if there is exactly one. A look-up
                then imports only this module, unless another distribution than czslkit has a plugin installed.
        """
        self.kind, self.base, self._builtins = kind, base, builtins
        self._items: dict[str, type[T]] = {}
        self._conflicts: dict[str, str] = {}  # names that two plugins claim, each with a message
        REGISTRIES[kind] = self

    def register(self, name: str) -> Callable[[C], C]:
        """Return a class decorator that registers a class under ``name``.

        Defining the same class again, as in a notebook, replaces it. If two installed plugins claim one name, both are
        loaded, and looking up the name raises the error.

        Raises:
            TypeError: the class does not derive from the registry's base class.
            ValueError: the name cannot be used on a command line or in a setting.
            NameTakenError: another class has the name.
        """
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise ValueError(
                f"{self.kind} name {name!r}: expected lower-case letters, digits, '_' and '-', "
                f"and neither of {', '.join(RESERVED)}"
            )

        def add(cls: C) -> C:
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise TypeError(f"{self.kind} {name!r}: expected a subclass of {self.base.__name__}, got {cls!r}")
            if not is_builtin(cls.__module__):
                load_plugins(name, without=cls.__module__.partition(".")[0])  # they have the older claim to the name
            if self._may_take(name, cls):
                self._items[name] = cls
            return cls  # type: ignore[return-value]

        return add

    def _may_take(self, name: str, cls: type) -> bool:
        """Return whether ``cls`` gets the name. If another plugin has the name, record a conflict and return False.

        Raises:
            NameTakenError: a built-in class has the name, or the second class is not a plugin that is being loaded.
        """
        holder = self._items.get(name)
        if holder is None or (holder.__module__, holder.__qualname__) == (cls.__module__, cls.__qualname__):
            return True
        first, second = distribution_of_module(holder.__module__), distribution_of_module(cls.__module__)
        if _loading and not is_builtin(holder.__module__):
            self._conflicts[name] = f"{self.kind} {name!r} is claimed by {first} and by {second}"
            return False
        raise NameTakenError(
            f"{self.kind} {name!r} is already registered by {first}; {second} cannot take the same name"
        )

    def __getitem__(self, name: str) -> type[T]:
        """Return the class of a name.

        Raises:
            UnknownNameError: no class has the name; the message also lists the plugins that failed.
            NameTakenError: two plugins claim the name.
        """
        self._load(name)
        if name in self._conflicts:
            raise NameTakenError(f"{self._conflicts[name]}; it works once one of the two is uninstalled")
        if name in self._items:
            return self._items[name]
        hint = did_you_mean(name, self._items)
        raise unknown_name(name, f"no {self.kind} named {name!r}.{hint} Known: {', '.join(self)}.")

    def __contains__(self, name: object) -> bool:
        self._load(name)
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._items))

    def __len__(self) -> int:
        self._load()
        return len(self._items)

    def items(self) -> list[tuple[str, type[T]]]:
        """Return every name with its class, sorted by name; a name that two plugins claim has its first class."""
        self._load()
        return sorted(self._items.items())

    def _load(self, name: object = None) -> None:
        """Load the plugins that are needed to look up ``name``, or all names if it is None; see the class."""
        if self._builtins:
            importlib.import_module(self._builtins)
        if self._is_builtin(name) or (self._builtins and all(plugin.builtin for plugin in installed_plugins())):
            return
        if name is None:
            load_plugins()
            return
        _load_builtins()
        if not isinstance(name, str) or not _NAME.fullmatch(name) or self._is_builtin(name):
            return
        load_plugins(name)
        if name not in self._items and name not in self._conflicts:
            load_plugins()

    def _is_builtin(self, name: object) -> bool:
        """Return whether a built-in class that is already imported has ``name``."""
        return isinstance(name, str) and name in self._items and is_builtin(self._items[name].__module__)


def registries() -> dict[str, Registry]:
    """Load every plugin and return every registry by its kind; a plugin may have added a kind.

    ``REGISTRIES`` itself lacks the registries of modules that are not imported yet.
    """
    load_plugins()
    return dict(REGISTRIES)


def load_plugins(name: str | None = None, *, without: str = "") -> None:
    """Import the built-in classes and installed plugins, each once.

    A plugin that cannot be loaded is listed by ``failures``. If its import fails, its registered names are removed.

    Args:
        name: load only the plugins that may register this name: all modules, and the objects of this name.
        without: top-level package whose objects are not loaded, since it may be what is being imported.
    """
    for plugin in _load_builtins():
        if plugin.may_register(name) and not (plugin.object and plugin.module.partition(".")[0] == without):
            _load_plugin(plugin)


def _load_builtins() -> list[Plugin]:
    """Import the built-in classes; return the installed plugins that wait, none while plugins are being imported."""
    global _waiting
    if _loading:
        return []
    if _waiting is None:
        _failed_plugins.clear()
        with _while_loading():
            for module in BUILTIN:
                importlib.import_module(module)
        _waiting = installed_plugins()
    for plugin in [plugin for plugin in _waiting if plugin.builtin]:
        _load_plugin(plugin)
    return list(_waiting)


def _load_plugin(plugin: Plugin) -> None:
    """Import a plugin that waits. If the import is interrupted, the plugin still waits."""
    assert _waiting is not None
    with _while_loading():
        _import_plugin(plugin)
    _waiting.remove(plugin)


@contextmanager
def _while_loading() -> Iterator[None]:
    """Mark that plugins are being imported: look-ups then load nothing, and a second claim to a name is a conflict."""
    global _loading
    _loading = True
    try:
        yield
    finally:
        _loading = False


def load_unpackaged(name: str) -> None:
    """Import code that registers classes but is not installed as a plugin.

    Args:
        name: a module on ``sys.path`` or in the current folder, or the path of a ``.py`` file.

    Raises:
        ConfigError: the code cannot be found, or its import fails; its registered names are then removed.
    """
    load_plugins("")  # all modules
    before = _snapshot()
    try:
        if name.lower().endswith(".py"):
            _import_file(Path(name))
        else:
            if (here := str(Path.cwd())) not in sys.path:
                sys.path.insert(0, here)
            importlib.import_module(name)
    except (Exception, SystemExit) as error:
        _undo_registrations(before, None)
        raise ConfigError([f"plugin {name} did not load: {type(error).__name__}: {error}"]) from error
    _unpackaged[str(Path(name).absolute()) if name.lower().endswith(".py") else name] = None


def unpackaged() -> tuple[str, ...]:
    """Return what :func:`load_unpackaged` imported in this process, so that another process can import it, too."""
    return tuple(_unpackaged)


def failures() -> list[str]:
    """Return a line for every plugin that failed, and for every name that two plugins claim."""
    conflicts = [line for registry in REGISTRIES.values() for line in registry._conflicts.values()]
    return [_failure(plugin, error) for plugin, error in _failed_plugins] + conflicts


def _failure(plugin: Plugin, error: Exception) -> str:
    """Return the line of a plugin that failed."""
    return f"plugin {plugin.name!r} ({plugin.dist}) did not load: {type(error).__name__}: {error}"


def unknown_name(name: str, message: str) -> UnknownNameError:
    """Return the error for a name that is not registered, with the plugins that failed.

    Args:
        name: the unknown name. If an entry point of this name failed, its line is first, before ``message``.
        message: what is not known, and the names that are.
    """
    own = [_failure(plugin, error) for plugin, error in _failed_plugins if plugin.name == name.partition("/")[0]]
    return UnknownNameError("\n  ".join([*own, message, *(line for line in failures() if line not in own)]))


@dataclass(frozen=True)
class _Registrations:
    """A copy of the content of one registry."""

    items: dict[str, type]
    conflicts: dict[str, str]


def _import_plugin(plugin: Plugin) -> None:
    """Import a plugin; if it fails, record its exception and remove its registered names."""
    before = _snapshot()
    try:
        module = importlib.import_module(plugin.module)
    except (Exception, SystemExit) as error:
        reason = error if isinstance(error, Exception) else RuntimeError(f"it exited: {error}")
        _failed_plugins.append((plugin, reason))
        _undo_registrations(before, plugin)
        return
    if plugin.object and (fault := _fault_of_object(plugin, module)):
        _failed_plugins.append((plugin, fault))


def _fault_of_object(plugin: Plugin, module: ModuleType) -> Exception | None:
    """Return an error if the object of a plugin is missing or is not registered under the plugin's name, else None."""
    cls = getattr(module, plugin.object, None)
    if cls is None:
        known = [name for name in vars(module) if not name.startswith("_")]
        return ImportError(f"{plugin.module} has no {plugin.object}.{did_you_mean(plugin.object, known)}")
    claimed = (
        registry._conflicts.get(plugin.name) or registry._items.get(plugin.name) for registry in REGISTRIES.values()
    )
    if any(isinstance(claim, str) or claim is cls for claim in claimed):
        return None
    names = sorted(name for registry in REGISTRIES.values() for name, item in registry._items.items() if item is cls)
    return UnknownNameError(
        f"{plugin.module}:{plugin.object} is registered as {', '.join(names) or 'nothing'}, expected {plugin.name}; "
        f'write @REGISTRY.register("{plugin.name}") above the class, or change the name of the entry point'
    )


def _snapshot() -> dict[str, _Registrations]:
    """Return a copy of the content of every registry, by kind."""
    return {kind: _Registrations(dict(r._items), dict(r._conflicts)) for kind, r in REGISTRIES.items()}


def _undo_registrations(before: dict[str, _Registrations], failed: Plugin | None) -> None:
    """Reset every registry to ``before``, except for the names of plugins other than ``failed``.

    Such names exist if the failed plugin imported another plugin, whose module stays imported and does not register
    its names again.
    """
    for kind, registry in REGISTRIES.items():
        old = before.get(kind, _Registrations({}, {}))
        new = {name: cls for name, cls in registry._items.items() if name not in old.items}
        kept = {name: cls for name, cls in new.items() if plugin_of_module(cls.__module__) not in (None, failed)}
        registry._items, registry._conflicts = old.items | kept, old.conflicts


def _import_file(path: Path) -> None:
    """Import a Python file under a name that no installed module has, since the file may be called ``timm.py``."""
    name = f"czslkit_file_{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}"
    loader = SourceFileLoader(name, str(path))  # whatever the case of the suffix
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
