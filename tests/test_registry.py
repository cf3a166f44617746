"""Plugins are installed here by their metadata alone: a folder on the path with a module and its entry point."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import czslkit
from czslkit import registry
from czslkit.components import AGGREGATORS, Aggregator
from czslkit.entry_points import GROUP, distribution_of_module, installed_plugins
from czslkit.errors import ConfigError, NameTakenError, UnknownNameError
from czslkit.method import METHODS
from czslkit.registry import REGISTRIES, Registry, failures, load_plugins, load_unpackaged

Install = Callable[..., Path]


def claim(name: str, cls: str = "Mine") -> str:
    """Return code that registers an aggregator."""
    return textwrap.dedent(f"""
        from czslkit.components import AGGREGATORS, Aggregator

        @AGGREGATORS.register("{name}")
        class {cls}(Aggregator):
            def forward(self, image):
                return image
    """)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one plugin; the next look-up loads plugins again."""
    load_plugins()
    modules = set(sys.modules)
    monkeypatch.setattr(registry, "REGISTRIES", dict(REGISTRIES))
    monkeypatch.setattr(registry, "_failed_plugins", [])
    monkeypatch.setattr(registry, "_waiting", None)
    for each in REGISTRIES.values():
        monkeypatch.setattr(each, "_items", dict(each._items))
        monkeypatch.setattr(each, "_conflicts", {})

    def add(dist: str, code: str, module: str | None = None, entries: str = "", **others: str) -> Path:
        """Install ``code`` as ``module``, by default named as the distribution, and ``others``, code by module name.

        ``entries`` are the lines of the entry points; by default one line with the module.
        """
        module = module or dist.replace("-", "_")
        folder = tmp_path / dist
        for name, text in {module: code, **others}.items():
            file = folder.joinpath(*name.split(".")).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        info = folder / f"{dist.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{entries or f'{dist} = {module}'}\n")
        monkeypatch.syspath_prepend(folder)
        return folder

    yield add
    for name in set(sys.modules) - modules:
        if not name.startswith(("czslkit.", "czslkit_plugins")):
            del sys.modules[name]


def test_a_plugin_is_loaded_at_the_first_look_up(install: Install) -> None:
    install("acme", claim("acme_mean"))
    assert "acme" not in sys.modules
    assert AGGREGATORS["acme_mean"].__module__ == "acme"
    assert "acme_mean" in AGGREGATORS
    assert "acme_mean" in list(AGGREGATORS)
    assert failures() == []


@pytest.mark.parametrize(
    "look", [len, list, lambda names: "acme_mean" in names, Registry.items], ids=["len", "iter", "in", "items"]
)
def test_every_look_up_loads_plugins(install: Install, look: Callable[[Registry[Aggregator]], object]) -> None:
    install("acme", claim("acme_mean"))
    look(AGGREGATORS)
    assert "acme" in sys.modules
    assert len(AGGREGATORS) == len(list(AGGREGATORS))


def test_names_come_sorted() -> None:
    for names in REGISTRIES.values():
        assert list(names) == sorted(names)


def test_items_are_every_name_with_its_class(install: Install) -> None:
    install("acme", claim("mean"))
    install("rival", claim("mean") + claim("rival_mean", "Other"))
    items = dict(AGGREGATORS.items())
    assert list(items) == list(AGGREGATORS)
    assert items["mean"].__module__ == "acme"
    assert items["last_layer"] is AGGREGATORS["last_layer"]


def test_an_object_is_imported_only_when_its_name_is_asked_for(install: Install) -> None:
    install("acme", claim("mean"), module="acme.entry", entries="mean = acme.entry : Mine [extra]")
    install("zeta", claim("zeta_mean"))
    assert "csp" in METHODS and "low_high" in AGGREGATORS and "ViT-L-14" not in AGGREGATORS
    assert "zeta" not in sys.modules  # a built-in name needs no plugin
    assert AGGREGATORS["zeta_mean"].__module__ == "zeta"
    assert "acme" not in sys.modules
    assert AGGREGATORS["mean"].__module__ == "acme.entry"
    assert failures() == []


@pytest.mark.parametrize("registered", [METHODS, AGGREGATORS], ids=["other kind", "kind"])
def test_the_name_of_an_object_is_asked_for_in_any_registry(install: Install, registered: Registry[object]) -> None:
    install("acme", claim("mean"), entries="mean = acme:Mine")
    assert ("mean" in registered) is (registered is AGGREGATORS)
    assert "acme" in sys.modules


def test_every_object_is_imported_when_names_are_listed_or_a_name_is_found_nowhere(install: Install) -> None:
    install("acme", claim("mean") + claim("other_mean", "Other"), entries="mean = acme:Mine")
    assert AGGREGATORS["other_mean"].__module__ == "acme"  # registered by a module whose entry has another name
    assert {"mean", "other_mean"} <= set(AGGREGATORS)


def test_two_objects_with_one_name_are_an_error_for_that_name_alone(install: Install) -> None:
    install("acme", claim("mean") + claim("more", "More"), entries="mean = acme:Mine\nmore = acme:More")
    install("rival", claim("mean"), entries="mean = rival:Mine")
    install("third", claim("more"))
    for name, first, second in (("mean", "acme", "rival"), ("more", "acme", "third")):
        claims = f"aggregator {name!r} is claimed by {first} 1.0 ({first}) and by {second} 1.0 ({second})"
        with pytest.raises(NameTakenError, match=re.escape(claims)):
            AGGREGATORS[name]


def test_code_that_takes_the_name_of_an_object_is_refused(install: Install) -> None:
    install("acme", claim("mean"), entries="mean = acme:Mine")
    with pytest.raises(NameTakenError, match=re.escape("aggregator 'mean' is already registered by acme 1.0 (acme)")):

        @AGGREGATORS.register("mean")
        class Mine(Aggregator): ...


def test_an_object_that_is_imported_by_hand_is_registered_once(install: Install) -> None:
    install("acme", claim("mean"), module="acme.entry", entries="mean = acme.entry:Mine")
    importlib.import_module("acme.entry")
    assert AGGREGATORS["mean"] is sys.modules["acme.entry"].Mine
    assert failures() == []


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("mean = acme:Mien", "ImportError: acme has no Mien. Did you mean 'Mine'?"),
        (
            "maen = acme:Mine",
            "UnknownNameError: acme:Mine is registered as mean, expected maen; write "
            '@REGISTRY.register("maen") above the class, or change the name of the entry point',
        ),
        ("maen = acme:Helper", "UnknownNameError: acme:Helper is registered as nothing, expected maen; "),
        ("mean = acme:Helper", "UnknownNameError: acme:Helper is registered as nothing, expected mean; "),
        ("mean = acme.nowhere:Mine", "ModuleNotFoundError: No module named 'acme.nowhere'"),
    ],
)
def test_an_object_that_is_not_registered_under_its_name_is_reported(install: Install, entry: str, reason: str) -> None:
    install("acme", claim("mean") + "class Helper: pass", entries=entry)
    name = entry.split()[0]
    if name == "maen":
        with pytest.raises(UnknownNameError, match=re.escape(reason)):
            AGGREGATORS[name]
    list(AGGREGATORS)
    (line,) = failures()
    assert line.startswith(f"plugin {name!r} (acme 1.0) did not load: {reason}")


def test_the_failure_of_the_plugin_that_has_the_name_comes_first(install: Install) -> None:
    install("acme", "1 / 0", entries="mean = acme:Mine")
    install("broken", "1 / 0")
    with pytest.raises(UnknownNameError) as caught:
        AGGREGATORS["mean"]
    first, second, third = str(caught.value).split("\n  ")
    assert first == "plugin 'mean' (acme 1.0) did not load: ZeroDivisionError: division by zero"
    assert second.startswith("no aggregator named 'mean'.")
    assert third.startswith("plugin 'broken' (broken 1.0) did not load")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import foo_that_is_not_there", "ModuleNotFoundError: No module named 'foo_that_is_not_there'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "RuntimeError: it exited: 3"),
        ("def", "SyntaxError: invalid syntax"),
    ],
)
def test_a_plugin_that_fails_is_reported_and_the_others_work(install: Install, code: str, reason: str) -> None:
    install("acme", claim("acme_mean"))
    install("broken", code)
    install("zeta", claim("zeta_mean"))
    assert {"acme_mean", "zeta_mean", "last_layer"} <= set(AGGREGATORS)
    (line,) = failures()
    assert line.startswith(f"plugin 'broken' (broken 1.0) did not load: {reason}")


def test_names_that_a_plugin_registered_before_it_failed_are_removed(install: Install) -> None:
    install("broken", claim("half_done") + "1 / 0")
    assert "half_done" not in AGGREGATORS
    assert set(METHODS) >= {"clip", "msci"}


def test_names_that_a_failed_plugin_registered_from_its_other_modules_are_removed_too(install: Install) -> None:
    install("broken", "import broken.parts; 1 / 0", module="broken.entry", **{"broken.parts": claim("half_done")})
    assert "half_done" not in AGGREGATORS


def test_names_of_a_plugin_that_a_failed_plugin_imported_stay(install: Install) -> None:
    install("broken", "import whole; 1 / 0")
    install("whole", claim("whole_mean"))
    assert AGGREGATORS["whole_mean"].__module__ == "whole"
    assert [line.split(" did")[0] for line in failures()] == ["plugin 'broken' (broken 1.0)"]


def test_a_plugin_is_imported_once(install: Install) -> None:
    folder = install("acme", "with open(__file__ + '.loads', 'a') as file: file.write('x')\n1 / 0")
    for look in (AGGREGATORS, METHODS, AGGREGATORS):
        assert len(look) == len(list(look))
    load_plugins()
    assert (folder / "acme.py.loads").read_text() == "x"


def test_an_interrupted_load_starts_over(install: Install) -> None:
    folder = install("acme", "raise KeyboardInterrupt")
    install("aaa_broken", "1 / 0")
    with pytest.raises(KeyboardInterrupt):
        list(AGGREGATORS)
    (folder / "acme.py").write_text(claim("acme_mean") + "# longer, so that Python sees that the file is another")
    assert "acme_mean" in AGGREGATORS
    assert len(failures()) == 1


def test_an_unknown_name_is_explained(install: Install) -> None:
    install("broken", "1 / 0")
    with pytest.raises(UnknownNameError) as caught:
        AGGREGATORS["low_hihg"]
    assert str(caught.value) == (
        "no aggregator named 'low_hihg'. Did you mean 'low_high'? Known: last_layer, low_high, mlp, pooled."
        "\n  plugin 'broken' (broken 1.0) did not load: ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize("name", ["Mine", "a b", "", "-x", "a/b", "a,b", "a=b", "é", "mine\n", "a.b", "train", "eval"])
def test_a_name_that_could_not_be_typed_is_refused(name: str) -> None:
    message = re.escape(
        f"aggregator name {name!r}: expected lower-case letters, digits, '_' and '-', and neither of train, eval"
    )
    with pytest.raises(ValueError, match=message):
        AGGREGATORS.register(name)


@pytest.mark.parametrize("thing", [int, len], ids=["class", "function"])
def test_only_classes_of_the_kind_are_taken(thing: type) -> None:
    with pytest.raises(
        TypeError, match=re.escape(f"aggregator 'mine': expected a subclass of Aggregator, got {thing!r}")
    ):
        AGGREGATORS.register("mine")(thing)


@pytest.mark.usefixtures("install")
def test_a_class_defined_again_replaces_the_first() -> None:
    def define() -> type[Aggregator]:
        @AGGREGATORS.register("again")
        class Again(Aggregator): ...

        return Again

    first, second = define(), define()
    assert AGGREGATORS["again"] is second is not first


@pytest.mark.usefixtures("install")
def test_a_second_class_cannot_take_a_name_and_the_first_keeps_it() -> None:
    @AGGREGATORS.register("held")
    class First(Aggregator): ...

    message = rf"aggregator 'held' is already registered by {__name__}; {__name__} cannot take the same name"
    with pytest.raises(NameTakenError, match=message):

        @AGGREGATORS.register("held")
        class Second(Aggregator): ...

    assert AGGREGATORS["held"] is First


def test_two_plugins_with_one_name_are_an_error_for_that_name_alone(install: Install) -> None:
    install("acme", claim("mean") + claim("acme_only", "Other"))
    install("rival", claim("mean") + claim("rival_only", "Other"))
    claims = "aggregator 'mean' is claimed by acme 1.0 (acme) and by rival 1.0 (rival)"
    for _ in range(2):
        with pytest.raises(NameTakenError, match=re.escape(f"{claims}; it works once one of the two is uninstalled")):
            AGGREGATORS["mean"]
    assert failures() == [claims]
    assert AGGREGATORS["acme_only"].__module__ == "acme"
    assert AGGREGATORS["rival_only"].__module__ == "rival"
    assert AGGREGATORS["last_layer"].__module__ == "czslkit.aggregators"


def test_a_name_that_a_failed_plugin_claimed_is_not_in_conflict(install: Install) -> None:
    install("acme", claim("mean"))
    install("broken", claim("mean") + "1 / 0")
    assert AGGREGATORS["mean"].__module__ == "acme"
    assert len(failures()) == 1


@pytest.mark.parametrize("name", ["last_layer", "low_high"])
def test_a_plugin_cannot_take_a_built_ins_name(install: Install, name: str) -> None:
    before = AGGREGATORS._items[name]
    install("acme", claim("acme_mean") + claim(name, "Shadow"))
    assert AGGREGATORS[name] is before
    assert "acme_mean" not in AGGREGATORS
    (line,) = failures()
    assert line == (
        f"plugin 'acme' (acme 1.0) did not load: NameTakenError: aggregator {name!r} is already registered by "
        f"{distribution_of_module(before.__module__)}; acme 1.0 (acme) cannot take the same name"
    )


def test_an_object_cannot_take_a_built_ins_name(install: Install) -> None:
    before = AGGREGATORS._items["low_high"]
    install("acme", claim("low_high"), entries="low_high = acme:Mine")
    assert AGGREGATORS["low_high"] is before
    assert "acme" not in sys.modules
    assert dict(AGGREGATORS.items())["low_high"] is before
    (line,) = failures()
    assert line.startswith(
        "plugin 'low_high' (acme 1.0) did not load: NameTakenError: aggregator 'low_high' is already"
    )


def test_code_imported_before_any_look_up_cannot_take_a_built_ins_name() -> None:
    code = claim("low_high")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "NameTakenError: aggregator 'low_high' is already registered by czslkit " in done.stderr
    assert "(czslkit_plugins.msci); __main__ cannot take the same name" in done.stderr


def test_code_that_takes_a_plugins_name_is_refused_and_the_plugin_keeps_it(install: Install) -> None:
    install("acme", claim("mean"))
    message = re.escape(f"aggregator 'mean' is already registered by acme 1.0 (acme); {__name__} cannot take")
    with pytest.raises(NameTakenError, match=message):

        @AGGREGATORS.register("mean")
        class Mine(Aggregator): ...

    assert AGGREGATORS["mean"].__module__ == "acme"


def test_a_plugin_that_is_imported_by_hand_is_registered_once(install: Install) -> None:
    install("acme", claim("mean"))
    importlib.import_module("acme")
    assert AGGREGATORS["mean"] is sys.modules["acme"].Mine
    assert failures() == []


def test_the_packages_own_plugins_come_first(install: Install) -> None:
    install("acme", "")
    dists = [plugin.dist for plugin in installed_plugins()]
    assert dists[0] == f"czslkit {czslkit.__version__}"
    assert dists[-1] == "acme 1.0"
    assert dists == sorted(dists, key=lambda dist: dist.startswith("acme"))


def test_a_module_is_named_with_its_distribution_if_a_plugin_ships_it(install: Install) -> None:
    install("acme", "", module="acme.entry")
    install("acme-more", "", module="acme.more.entry")
    assert distribution_of_module("acme.entry") == "acme 1.0 (acme.entry)"
    assert distribution_of_module("acme.methods.mean") == "acme 1.0 (acme.methods.mean)"
    assert distribution_of_module("acme.more.mean") == "acme-more 1.0 (acme.more.mean)"
    assert distribution_of_module("acme_else") == "acme_else"
    assert distribution_of_module("czslkit_plugins.csp") == f"czslkit {czslkit.__version__} (czslkit_plugins.csp)"


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize("name", ["mine.py", "MINE.PY"])
def test_a_file_of_code_is_loaded(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(claim("mine"))
    load_unpackaged(str(tmp_path / name))
    load_unpackaged(str(tmp_path / name))
    assert AGGREGATORS["mine"].__name__ == "Mine"


@pytest.mark.usefixtures("install")
def test_a_file_with_the_name_of_a_library_does_not_replace_it(tmp_path: Path) -> None:
    before = json
    (tmp_path / "json.py").write_text(claim("mine"))
    load_unpackaged(str(tmp_path / "json.py"))
    assert importlib.import_module("json") is before
    assert "mine" in AGGREGATORS


@pytest.mark.usefixtures("install")
def test_a_module_on_the_path_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unpackaged.py").write_text(claim("mine"))
    monkeypatch.syspath_prepend(tmp_path)
    load_unpackaged("unpackaged")
    assert AGGREGATORS["mine"].__module__ == "unpackaged"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (claim("low_high"), "NameTakenError: aggregator 'low_high' is already registered by czslkit "),
        (None, "FileNotFoundError: "),
    ],
)
@pytest.mark.usefixtures("install")
def test_code_that_fails_is_an_error_and_names_that_it_registered_are_removed(
    tmp_path: Path, code: str | None, reason: str
) -> None:
    file = tmp_path / "mine.py"
    if code:
        file.write_text(claim("half_done") + code)
    with pytest.raises(ConfigError, match=re.escape(f"plugin {file} did not load: {reason}")):
        load_unpackaged(str(file))
    assert "half_done" not in AGGREGATORS
    assert "low_high" in AGGREGATORS


def test_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"plugin foo\.bar did not load: ModuleNotFoundError: No module named 'foo'"):
        load_unpackaged("foo.bar")


def test_nothing_of_the_package_fails_to_load() -> None:
    assert failures() == []
    assert all(len(names) for names in REGISTRIES.values())
