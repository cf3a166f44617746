"""The documentation site: its pages, the commands of its tutorials, and its notebook."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

import czslkit
from czslkit.cli import main

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
NOTEBOOK = ROOT / "docs" / "tutorials" / "demo.ipynb"


def commands(page: Path) -> list[str]:
    """Return the commands in the fences of a page."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


class Runner:
    """Runs commands in the folder of a test, on small data with the backbone of the demo world."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: list[str] = []

    def __call__(self, line: str) -> None:
        """Run a command with the changes that make it fast; its exit status must be 0."""
        words = shlex.split(line.partition(" > ")[0])
        assert words[0] == "czslkit", line
        name = " ".join(words[1:3])
        if name == "data download":  # a replica stands for the data of a download
            words[1:] = ["data", "mini", words[3], "--out", str(self.folder / "data")]
        if name == "data verify":
            words.append("--mini")
        if words[1] == "bench":
            small = ["backbone=demo", "train.epochs=0"]
            words = ["0" if word == "0-2" else word for word in words if not word.startswith("train.epochs=")]
            words += [] if "--set" in words else ["--set"]
            at = words.index("--set") + 1
            words[at:at] = small
            words += ["--workers", "0", *(() if "--preset" in words else ("--preset", "demo"))]
        assert main(words[1:]) == 0, line
        self.run.append(line)
        if words[1] == "init":  # the demo world has more pictures than a test needs
            file = self.folder / words[2]
            text = file.read_text().replace("datasets: [demo]", "datasets: [toys]")
            file.write_text(text.replace("worlds: [closed, open]", "worlds: [closed]"))


@pytest.fixture
def runner(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CZSLKIT_DATA", str(toys))
    return Runner(tmp_path)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_command_of_a_tutorial_runs(page: Path, runner: Runner) -> None:
    lines = commands(page)
    assert len(lines) >= 4
    for line in lines:
        runner(line)
    assert runner.run == lines
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        exec(block, {})


def test_the_notebook_runs(tmp_path: Path, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CZSLKIT_DATA", str(toys))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for old, new in {'dataset = "demo"': 'dataset = "toys"', "epochs = 3": "epochs = 0"}.items():
        assert old in notebook.cells[1].source
        notebook.cells[1].source = notebook.cells[1].source.replace(old, new)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "MSCI" in printed
    assert len(re.findall(r"predicted \w+ \w+", printed)) == 5


def test_the_notebook_is_stored_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    names = {n: f"czslkit.{home}" + f".{n}" * (n != home) for n, home in czslkit._HOME.items()}
    assert sorted(shown) == sorted(path for name, path in names.items() if not name.isupper())
    assert not [name for name in names if name.isupper() and f"`{name}`" not in page]


def test_every_page_of_the_docs_is_in_the_navigation_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(items: Any) -> list[str]:
        if isinstance(items, str):
            return [items]
        parts = items.values() if isinstance(items, dict) else items
        return [page for part in parts for page in pages(part)]

    written = {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md")}
    listed = set(pages(config["nav"]))
    assert len(listed) == len(pages(config["nav"]))
    assert {page for page in written if not page.startswith("decisions/")} <= listed
    assert listed - written == {"index.md", "changelog.md", "benchmarks.md", "tutorials/notebook.md"}
    assert config["theme"]["font"] is False  # no page asks another site for fonts


def test_the_citation_names_the_version_and_licence_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = dict(re.findall(r'^(version|license) = "(.+)"$', text, re.MULTILINE))  # Python 3.10 has no tomllib
    assert (citation["version"], citation["license"]) == (czslkit.__version__, project["license"])
    assert project["version"] == czslkit.__version__


def test_the_examples_in_the_page_on_suites_are_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "suite.yaml").write_text(block)
    suite = czslkit.load_suite(tmp_path / "suite.yaml", tmp_path)
    assert suite.methods is not None
    assert [variant.name for variant in suite.methods] == ["csp", "MSCI gated", "msci", "troika"]
    (python,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert ast.parse(python)
