from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import czslkit
from czslkit.cli import list_names
from czslkit.cli.list_names import RegisteredName, registered_names
from czslkit.entry_points import GROUP, installed_plugins
from czslkit.registry import BUILTIN, REGISTRIES, load_plugins

MEAN = '''
from czslkit.components import AGGREGATORS, Aggregator

@AGGREGATORS.register("acme_mean")
class Mean(Aggregator):
    """The mean. More
    about it."""

    def forward(self, image):
        return image
'''


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the module file of an installed plugin of another distribution; it is never imported here."""
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nacme = acme.entry\n")
    (tmp_path / "acme").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "acme" / "entry.py"
    assert "acme.entry" not in sys.modules


def test_names_read_from_sources_are_those_that_are_registered() -> None:
    load_plugins()
    names, failures = registered_names()
    registered = {
        (kind, name, cls.__doc__.strip().split("\n")[0])
        for kind, registry in REGISTRIES.items()
        for name, cls in registry.items()
        if cls.__module__.startswith(("czslkit.", "czslkit_plugins."))
    }
    found = [name for name in names if name.dist.startswith("czslkit ")]
    assert {(name.kind, name.name, name.summary) for name in found} == registered
    assert len(found) == len(registered)
    assert [plugin for plugin in installed_plugins() if not plugin.builtin] or failures == []


def test_names_come_by_kind_and_then_by_name() -> None:
    names, _ = registered_names()
    kinds = ["method", "backbone", "aggregator", "interaction", "head", "dataset"]
    assert names == sorted(names, key=lambda name: (kinds.index(name.kind), name.name))
    assert {name.dist for name in names} == {f"czslkit {czslkit.__version__}"}
    assert {name.kind for name in names} == set(REGISTRIES)


def test_every_name_has_a_summary() -> None:
    assert [name.name for name in registered_names()[0] if not name.summary] == []


def test_a_plugin_of_another_distribution_is_loaded_elsewhere(acme: Path) -> None:
    acme.write_text(MEAN)
    names, failures = registered_names()
    assert RegisteredName("aggregator", "acme_mean", "acme 1.0", "The mean. More") in names
    assert len(names) == 1 + sum(map(len, REGISTRIES.values()))
    assert failures == []


def test_a_class_of_any_module_of_a_plugin_is_listed_with_its_distribution(acme: Path) -> None:
    (acme.parent / "means.py").write_text(MEAN)
    acme.write_text("import acme.means")
    assert "acme 1.0" in {name.dist for name in registered_names()[0] if name.name == "acme_mean"}


def test_a_kind_that_a_plugin_adds_comes_last(acme: Path) -> None:
    acme.write_text(
        "from czslkit.registry import Registry\n"
        "class Size: pass\n"
        "Registry('a size', Size).register('small')(type('Small', (Size,), {'__module__': __name__}))\n"
    )
    assert registered_names()[0][-1] == RegisteredName("a size", "small", "acme 1.0", "")


def test_a_plugin_that_does_not_load_is_a_line_and_the_rest_is_listed(acme: Path) -> None:
    acme.write_text(MEAN + "import foo_that_is_not_there")
    names, failures = registered_names()
    assert failures == [
        "plugin 'acme' (acme 1.0) did not load: ModuleNotFoundError: No module named 'foo_that_is_not_there'"
    ]
    assert len(names) == sum(map(len, REGISTRIES.values()))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(0)", "no message"),
        ("import os, sys; print('out of memory', file=sys.stderr, flush=True); os._exit(1)", "out of memory"),
    ],
)
def test_a_plugin_that_ends_the_process_is_a_line_and_the_rest_is_listed(acme: Path, code: str, reason: str) -> None:
    acme.write_text(code)
    names, failures = registered_names()
    assert failures == [f"plugin 'acme' (acme 1.0) ended the process that loaded it: {reason}"]
    assert len(names) == sum(map(len, REGISTRIES.values()))


def test_a_plugin_may_print(acme: Path) -> None:
    acme.write_text(MEAN + "import atexit\nprint('hello', end='')\natexit.register(print, 'bye')")
    names, failures = registered_names()
    assert "acme_mean" in [name.name for name in names]
    assert failures == []


def test_files_of_the_current_folder_are_not_imported(
    acme: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme.write_text(MEAN)
    folder = tmp_path_factory.mktemp("here")
    (folder / "json.py").write_text("1 / 0")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    assert registered_names()[1] == []


def test_sources_are_found_without_importing_the_packages_they_are_in() -> None:
    assert list_names._source_file("czslkit.backbones") == Path(czslkit.__file__).parent / "backbones" / "__init__.py"
    for name in (*BUILTIN, *(plugin.module for plugin in installed_plugins() if plugin.builtin)):
        assert list_names._source_file(name).is_file()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["list"], ["bench", "--help"], ["table", "--help"]], ids=" ".join
)
def test_the_command_line_answers_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys, czslkit.cli\n"
        "try: status = czslkit.cli.main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        "print('loaded:', [name for name in ('torch', 'open_clip', 'timm', 'pandas') if name in sys.modules], status)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded: [] 0", done.stderr
