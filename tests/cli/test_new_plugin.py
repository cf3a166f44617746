"""The package that ``czslkit new-plugin`` writes, installed for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import czslkit
from czslkit.cli import _COMMANDS, main
from czslkit.cli.new_plugin import _FILES, _TEMPLATES, LONGEST_NAME, _filled, _words

LONG = "a" * LONGEST_NAME


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The written package of the method ``graph-prompt``."""
    folder = tmp_path_factory.mktemp("written") / "new"
    assert main(["new-plugin", "graph-prompt", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the written package."""
    source = shutil.copytree(package, tmp_path_factory.mktemp("source") / "new")  # pip writes into its source
    target = tmp_path_factory.mktemp("installed")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", target, source], check=True)
    return target


def python(*arguments: object, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the distribution in ``path`` installed."""
    found = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def test_the_package_is_listed_and_its_own_tests_pass(package: Path, installed: Path, tmp_path: Path) -> None:
    listed = python("-m", "czslkit", "list", path=installed, cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    (line,) = [line for line in listed.stdout.splitlines() if "graph-prompt" in line]
    assert line.split()[:4] == ["method", "graph-prompt", "czsl-graph-prompt", "0.1.0"]
    assert line.endswith("graph-prompt: learned words and a learned network on the image features.")
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", package, path=installed, cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "1 passed" in tested.stdout


@pytest.mark.skipif("check" not in [module.__name__.split(".")[-1] for module in _COMMANDS], reason="no such command")
def test_the_package_passes_czslkit_check_as_it_is_written(installed: Path, tmp_path: Path) -> None:
    done = python("-m", "czslkit", "check", "graph-prompt", path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_method_learns_with_its_recipe_for_the_demo_world(
    installed: Path, demo_world: Path, tmp_path: Path
) -> None:
    arguments = ["bench", "--methods", "graph-prompt", "--worlds", "closed", "--set", "train.epochs=1"]
    arguments += ["--data", str(demo_world)]
    done = python("-m", "czslkit", *arguments, path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("runs/demo/graph-prompt/*/closed.json")
    result = json.loads(file.read_text())
    assert result["recipe"] == {"name": "demo/own_graph-prompt", "changed": ["train.epochs"]}
    assert result["config"]["options"]["hidden"] == 64
    assert result["components"]["czsl_graph_prompt.graph_prompt"] == "czsl-graph-prompt 0.1.0"


@pytest.mark.parametrize("name", ["x", "graph-prompt", "graph_prompt2", LONG])
def test_the_package_is_formatted(name: str, tmp_path: Path) -> None:
    assert main(["new-plugin", name, "--out", str(tmp_path / "new")]) == 0
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "new")
        assert done.returncode == 0, done.stdout


def test_every_template_is_used_and_every_word_is_filled(package: Path) -> None:
    assert sorted(_FILES.values()) == sorted(path.name for path in _TEMPLATES.iterdir())
    written = [path for path in package.rglob("*") if path.is_file()]
    assert len(written) == len(_FILES)
    for path in written:
        assert "@" not in str(path.relative_to(package))
        assert not re.search(r"@[A-Za-z]+@", path.read_text())
    workflow = yaml.safe_load((package / ".github" / "workflows" / "ci.yml").read_text())
    assert {"run": "czslkit check graph-prompt"} in workflow["jobs"]["test"]["steps"]


def test_the_default_folder_has_the_name_of_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "graph_prompt"]) == 0
    assert (tmp_path / "czsl-graph-prompt" / "src" / "czsl_graph_prompt" / "graph_prompt.py").is_file()
    assert "  cd czsl-graph-prompt && pip install" in capsys.readouterr().out


def test_a_folder_that_exists_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "mine", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"czslkit: {tmp_path} exists: name a new folder with --out\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, f"{name!r} cannot be the name of a method: expected up to 30 lower-case letters") for name in
          ("Mine", "2d", "a b", "", "a-", "a--b", "a/b", "../a", "é", LONG + "a")),
        ("train", "train is a section of settings, as in train.batch_size: choose another name"),
        ("eval", "eval is a section of settings, as in eval.batch_size: choose another name"),
        ("lambda", "lambda is a name that the code of the package uses: choose another name"),
        ("soft-prompt", "soft-prompt is a name that the code of the package uses: choose another name"),
        ("csp", f"csp is already a method of czslkit {czslkit.__version__}: choose another name"),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_used_is_an_error(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-plugin", name, "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.startswith(f"czslkit: {message}")
    assert not (tmp_path / "new").exists()


def test_words_are_replaced_everywhere() -> None:
    assert _filled("@name@/@Class@ ${{ x }} a@b.c", _words("my-own_one")) == "my-own_one/MyOwnOne ${{ x }} a@b.c"


@pytest.mark.parametrize("name", ["on", "no", "null", "y", "off"])
def test_a_name_that_is_another_value_in_yaml_stays_a_name(name: str) -> None:
    recipe = (_TEMPLATES / "recipe.yaml.txt").read_text()
    assert yaml.safe_load(_filled(recipe, _words(name)))["method"] == name
