from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import czslkit
from czslkit.cli import main
from czslkit.cli.name_details import describe
from czslkit.cli.registered_names import RegisteredName, registered_names, source_file
from czslkit.data.datasets import DATASETS
from czslkit.entry_points import GROUP, installed_plugins
from czslkit.method import METHODS
from czslkit.registry import BUILTIN, REGISTRIES, load_plugins
from czslkit.runner.settings import SECTIONS
from czslkit.training.options import TrainOptions

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
    kinds = ["method", "backbone", "aggregator", "interaction", "head", "dataset", "logger"]
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


MINE = '''
from typing import Literal
from dataclasses import dataclass
from pathlib import Path
from czslkit import METHODS
from czslkit.options import option
from czslkit_plugins.clip import Clip

@METHODS.register("mine")
class Mine(Clip):
    """My method.

    More about it.
    """

    recipe = {"lr": 0.25}

    @dataclass(frozen=True)
    class Options(Clip.Options):
        sizes: tuple[int, ...] = option((4, 2), "widths of the layers", minimum=1, maximum=9)
        vectors: Path | None = option(None, "word vectors")
        fusion: Literal["sum", "gated"] = option("sum", "the fusion")
        share: float | None = option(0.5, "a share", maximum=1)
        deep: bool = option(False, "more layers")
        range: tuple[float, int] = option((0.5, 2), "a number and a whole number")
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with a method ``mine``, which has a recipe; the registry forgets the method after the test."""
    list(METHODS)  # every plugin is loaded, so that the copy below holds them all
    monkeypatch.setattr(METHODS, "_items", dict(METHODS._items))
    recipe = tmp_path / "configs" / "toys" / "me2026_mine.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("method: mine\noptions: {sizes: [1, 2]}\ntrain: {lr: 1e-3}\n")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_list_shows_what_a_file_registers_and_the_datasets_in_the_folder(
    mine: Path, toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(toys / "toys", data / "toys")
    (data / "ut-zap50k").mkdir()
    assert main(["list", "--plugins", str(mine), "--data", str(data)]) == 0
    lines = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert ["method", "mine", str(mine), "My method."] in lines
    assert lines[-1] == ["dataset", "toys", str(data / "toys"), "A dataset of your own, in the layout of the field."]
    assert not [line for line in lines if line[1] == "ut-zap50k"]


@pytest.mark.parametrize("arguments", [["list"], ["list", "csp"], ["data", "status"], ["data", "verify", "toys"]])
def test_a_file_that_cannot_be_imported_is_wrong_usage(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    assert main([*arguments, "--plugins", str(tmp_path / "broken.py")]) == 2
    error = f"plugin {tmp_path / 'broken.py'} did not load: ZeroDivisionError: division by zero"
    assert capsys.readouterr().err == f"czslkit: {error}\n"


def test_a_file_that_ends_the_process_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ends.py").write_text("import os; os._exit(3)")
    assert main(["list", "--plugins", str(tmp_path / "ends.py")]) == 2
    assert capsys.readouterr().err == (
        f"czslkit: --plugins {tmp_path / 'ends.py'} ended the process that loaded it: no message\n"
    )


def test_data_commands_know_the_datasets_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pets.py").write_text(
        "from czslkit import DATASETS, Dataset\n@DATASETS.register('pets-of-a-file')\nclass Pets(Dataset): ...\n"
    )
    where = ["--plugins", str(tmp_path / "pets.py"), "--data", str(tmp_path)]
    items = dict(DATASETS._items)
    try:
        assert main(["data", "status", *where]) == 0
        assert "pets-of-a-file  absent" in capsys.readouterr().out
        assert main(["data", "verify", "pets-of-a-file", *where]) == 1
        assert "pets-of-a-file is absent" in capsys.readouterr().out
        assert main(["list", "pets-of-a-file", *where]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "absent"
    finally:
        DATASETS._items = items


def test_the_settings_of_a_method_are_listed_with_types_ranges_defaults_and_recipes(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "mine", "--plugins", str(mine)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        f"method mine, from {mine}\nMy method.\n\nsettings, for czslkit bench --set KEY=VALUE or mine.KEY"
    )
    for expected in (
        "sizes: list of: whole number from 1 to 9; default [4, 2]\n    widths of the layers\n"
        "    set to [1, 2] by toys/me2026_mine\n",
        "vectors: path or null; default null\n    word vectors\n",
        "fusion: sum, gated; default sum\n",
        "share: number or null at most 1; default 0.5\n",
        "deep: true or false; default false\n",
        "range: list of 2 values: number, whole number; default [0.5, 2]\n",
        "train.lr: number at least 0; default 0.25\n    learning rate\n    set to 0.001 by toys/me2026_mine\n",
        "eval.bins: original, exact; default original\n",
    ):
        assert expected in out


def test_the_settings_of_every_method_can_be_listed() -> None:
    for name in METHODS:
        fields = [*dataclasses.fields(METHODS[name].Options), *dataclasses.fields(TrainOptions)]
        text = describe(name)
        assert all(f"{field.name}: " in text and str(field.metadata["help"]) in text for field in fields)


def test_the_settings_of_every_training_can_be_listed_without_a_method() -> None:
    assert describe("train").startswith("train settings of every method, for czslkit bench --set KEY=VALUE")
    for section, schema in SECTIONS.items():
        lines = [line for line in describe(section).splitlines() if line.startswith(f"{section}.")]
        assert [line.partition(":")[0] for line in lines] == [f"{section}.{f.name}" for f in dataclasses.fields(schema)]


def test_a_name_of_two_kinds_is_described_as_both(tmp_path: Path) -> None:
    lines = describe("demo", tmp_path).splitlines()
    assert [line for line in lines if ", from " in line] == [
        f"backbone demo, from czslkit {czslkit.__version__}",
        f"dataset demo, from czslkit {czslkit.__version__}",
    ]
    assert "absent" in lines


def test_a_component_is_described_with_the_arguments_of_its_class() -> None:
    assert describe("low_high").endswith(
        "arguments of its class:\n    dim: int\n    low: int = 4\n    high: int = 4\n    dropout: float = 0.1"
    )
    assert "arguments of its class" not in describe("last_layer")
    text = describe("timm/resnet18")
    assert text.startswith("backbone timm, from czslkit ")
    assert "``WEIGHTS`` is ``pretrained``" in text
    assert "Raises:" not in text


def test_a_dataset_is_described_with_its_folder_and_its_counts(toys: Path, tmp_path: Path) -> None:
    lines = describe("toys", toys).splitlines()
    assert lines[:2] == ["dataset toys", "A dataset of your own, in the layout of the field."]
    assert f"folder: {toys / 'toys'}" in lines
    assert lines[-1].startswith("counts: 3 attributes, 3 objects, ")
    zappos = describe("ut-zappos", tmp_path)
    assert "\nother names: ut-zap50k\npublished counts: 16 attributes, 12 objects," in zappos
    broken = tmp_path / "broken" / "compositional-split-natural"
    broken.mkdir(parents=True)
    (broken / "train_pairs.txt").write_text("one\n")
    assert "incomplete" in describe("broken", tmp_path)


def test_a_name_that_nothing_has_is_answered_with_a_similar_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "mcsi"]) == 2
    assert capsys.readouterr().err.startswith("czslkit: nothing is named 'mcsi'. Did you mean 'msci'")


def test_sources_are_found_without_importing_the_packages_they_are_in() -> None:
    assert source_file("czslkit.backbones") == Path(czslkit.__file__).parent / "backbones" / "__init__.py"
    for name in (*BUILTIN, *(plugin.module for plugin in installed_plugins() if plugin.builtin)):
        assert source_file(name).is_file()


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
