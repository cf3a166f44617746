"""Find installed plugins, the entry points of distributions, without importing them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from itertools import takewhile

GROUP = "czslkit.plugins"  # the entry-point group of plugins
_OWN_PACKAGES = ("czslkit", "czslkit_plugins")


@dataclass(frozen=True)
class Plugin:
    """An installed plugin: a module that registers classes when it is imported, or a single class of a module."""

    name: str  # name of the entry point; the registered name of the class if there is one
    module: str
    dist: str  # distribution and version, such as "czslkit 0.1.0"
    object: str = ""  # name of the class in the module; empty if the module may register any names

    @classmethod
    def of(cls, point: EntryPoint) -> Plugin:
        """Return the plugin of an entry point."""
        dist = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
        module, _, name = (part.strip() for part in point.value.partition("[")[0].partition(":"))
        return cls(point.name, module, dist, name)

    def may_register(self, name: str | None) -> bool:
        """Return whether importing the plugin may register ``name``; always true for None."""
        return name is None or not self.object or self.name == name

    @property
    def builtin(self) -> bool:
        """True if the plugin is part of czslkit."""
        return self.dist.split()[0] == "czslkit"


def installed_plugins() -> list[Plugin]:
    """Return every installed plugin, plugins of czslkit first, without importing any."""
    plugins = {Plugin.of(point) for point in entry_points(group=GROUP)}
    return sorted(plugins, key=lambda plugin: (not plugin.builtin, plugin.dist, plugin.name))


def plugin_of_module(module: str) -> Plugin | None:
    """Return the installed plugin whose module has the longest common dotted prefix with ``module``, else None."""
    parts = module.split(".")

    def shared_parts(plugin: Plugin) -> int:
        pairs = zip(plugin.module.split("."), parts, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    best = max(installed_plugins(), key=shared_parts, default=None)
    return best if best and shared_parts(best) else None


def distribution_of_module(module: str) -> str:
    """Return distribution, version and name of a plugin's module, such as ``"acme 1.0 (acme.entry)"``.

    For a module without an installed plugin, the result is only the module.
    """
    plugin = plugin_of_module(module)
    return f"{plugin.dist} ({module})" if plugin else module


def is_builtin(module: str) -> bool:
    """Return whether ``module`` is part of czslkit."""
    return module.split(".")[0] in _OWN_PACKAGES
