from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import czslkit
from czslkit.cli import list_names as module
from czslkit.cli.list_names import Entry, catalog
from czslkit.registry import GROUP, REGISTRIES, installed_plugins, load_plugins

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
    """The module file of an installed plugin of another distribution; never imported here."""
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nacme = acme.entry\n")
    (tmp_path / "acme").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "acme" / "entry.py"
    assert "acme.entry" not in sys.modules


def test_what_is_read_from_sources_is_what_is_registered() -> None:
    load_plugins()
    entries, failures = catalog()
    registered = {
        (kind, name, cls.__doc__.strip().split("\n")[0])
        for kind, names in REGISTRIES.items()
        for name, cls in names._items.items()
        if cls.__module__.startswith(("czslkit.", "czslkit_plugins."))
    }
    found = [entry for entry in entries if entry.dist.startswith("czslkit ")]
    assert {(entry.kind, entry.name, entry.summary) for entry in found} == registered
    assert len(found) == len(registered)
    assert [plugin for plugin in installed_plugins() if not plugin.builtin] or failures == []


def test_entries_come_by_kind_and_then_by_name() -> None:
    entries, _ = catalog()
    kinds = ["method", "backbone", "aggregator", "interaction", "head", "dataset"]
    assert entries == sorted(entries, key=lambda entry: (kinds.index(entry.kind), entry.name))
    assert {entry.dist for entry in entries} == {f"czslkit {czslkit.__version__}"}
    assert {entry.kind for entry in entries} == set(REGISTRIES)


def test_every_entry_says_what_it_is() -> None:
    assert [entry.name for entry in catalog()[0] if not entry.summary] == []


def test_a_plugin_of_another_distribution_is_loaded_elsewhere(acme: Path) -> None:
    acme.write_text(MEAN)
    entries, failures = catalog()
    assert Entry("aggregator", "acme_mean", "acme 1.0", "The mean. More") in entries
    assert len(entries) == 1 + sum(map(len, REGISTRIES.values()))
    assert failures == []


def test_a_class_is_its_distributions_whichever_of_its_modules_it_is_in(acme: Path) -> None:
    (acme.parent / "means.py").write_text(MEAN)
    acme.write_text("import acme.means")
    assert "acme 1.0" in {entry.dist for entry in catalog()[0] if entry.name == "acme_mean"}


def test_a_kind_that_a_plugin_adds_comes_last(acme: Path) -> None:
    acme.write_text(
        "from czslkit.registry import Registry\n"
        "class Size: pass\n"
        "Registry('a size', Size).register('small')(type('Small', (Size,), {'__module__': __name__}))\n"
    )
    assert catalog()[0][-1] == Entry("a size", "small", "acme 1.0", "")


def test_a_plugin_that_does_not_load_is_a_line_and_the_rest_is_listed(acme: Path) -> None:
    acme.write_text(MEAN + "import foo_that_is_not_there")
    entries, failures = catalog()
    assert failures == [
        "plugin 'acme' (acme 1.0) did not load: ModuleNotFoundError: No module named 'foo_that_is_not_there'"
    ]
    assert len(entries) == sum(map(len, REGISTRIES.values()))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(0)", "no message"),
        ("import os, sys; print('out of memory', file=sys.stderr, flush=True); os._exit(1)", "out of memory"),
    ],
)
def test_a_plugin_that_ends_the_process_is_a_line_and_the_rest_is_listed(acme: Path, code: str, reason: str) -> None:
    acme.write_text(code)
    entries, failures = catalog()
    assert failures == [f"plugin 'acme' (acme 1.0) ended the process that loaded it: {reason}"]
    assert len(entries) == sum(map(len, REGISTRIES.values()))


def test_a_plugin_may_print(acme: Path) -> None:
    acme.write_text(MEAN + "import atexit\nprint('hello', end='')\natexit.register(print, 'bye')")
    entries, failures = catalog()
    assert "acme_mean" in [entry.name for entry in entries]
    assert failures == []


def test_files_of_the_folder_one_stands_in_are_not_imported(
    acme: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme.write_text(MEAN)
    folder = tmp_path_factory.mktemp("here")
    (folder / "json.py").write_text("1 / 0")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert catalog()[1] == []


def test_sources_are_found_without_importing_the_packages_they_are_in() -> None:
    assert module._source("czslkit.backbones") == Path(czslkit.__file__).parent / "backbones" / "__init__.py"
    for name in (*module.BUILTIN, *(plugin.module for plugin in installed_plugins() if plugin.builtin)):
        assert module._source(name).is_file()


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
