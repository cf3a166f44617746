"""Recipes of methods from plugins and from files, and recipes that a user gives."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import czslkit
from czslkit.data.make.mini import write_mini
from czslkit.errors import ConfigError
from czslkit.evaluation.evaluator import EvalOptions
from czslkit.method import METHODS
from czslkit.registry import load_unpackaged
from czslkit.report.table import Table
from czslkit.runner import recipes as recipe_files
from czslkit.runner.plan import Spec, plan
from czslkit.runner.recipes import parse_recipe_files, recipe_folders

CODE = """
from czslkit import METHODS
from czslkit_plugins.csp import Csp

@METHODS.register("mine")
class Mine(Csp):
    "CSP again."
"""
NUMBERS = "{S: 1, U: 2, H: 3, AUC: 4, source: my paper}"
RECIPE = f"""
method: mine
options: {{backbone: demo}}
train: {{epochs: 3}}
eval: {{bins: exact}}
expected: {{closed: {NUMBERS}}}
"""
Write = Callable[..., Path]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Load the method ``mine`` from a file, and return the folder of the file."""
    list(METHODS)
    monkeypatch.setattr(METHODS, "_items", dict(METHODS._items))
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.py").write_text(CODE)
    load_unpackaged(str(home / "mine.py"))
    return home


def write(folder: Path, text: str = RECIPE, name: str = "me2024_mine.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def planned(methods: str = "mine", dataset: str = "cgqa", preset: str | None = "paper", **recipes: str | Path) -> Spec:
    return plan(methods.split(","), [dataset], preset=preset, recipes=recipes)[-1]


def test_recipes_next_to_the_file_of_a_method_are_used_like_shipped_ones(mine: Path) -> None:
    for dataset in ("demo", "cgqa"):
        write(mine / "configs" / dataset)
    demo, paper = planned(dataset="demo", preset=None), planned()
    assert (demo.recipe, demo.train.epochs, demo.published) == ("demo/me2024_mine", 3, {})
    assert (paper.recipe, paper.evaluation.bins, paper.changed) == ("cgqa/me2024_mine", "exact", ())
    assert paper.published["closed"]["AUC"] == 4
    assert planned(preset=None).recipe is None


def test_recipes_in_the_top_level_package_of_a_method_are_used(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = mine / "czsl_with_recipes"
    (package / "methods").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "methods" / "again.py").write_text(CODE.replace('"mine"', '"again"'))
    write(package / "configs" / "cgqa", RECIPE.replace("mine", "again"), "me2024_again.yaml")
    monkeypatch.syspath_prepend(mine)
    load_unpackaged("czsl_with_recipes.methods.again")
    assert recipe_folders(METHODS["again"]) == [package / "configs"]
    assert planned("again").recipe == "cgqa/me2024_again"
    for name in [name for name in sys.modules if name.startswith("czsl_with_recipes")]:
        del sys.modules[name]


def test_a_method_without_a_file_has_no_folder_of_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # as in a notebook
    assert recipe_folders(type("Mine", (METHODS["csp"],), {"__module__": "__main__"})) == []


def test_a_method_without_a_recipe_runs_with_its_defaults_beside_published_recipes(mine: Path) -> None:
    csp, own = plan(["csp", "mine"], ["cgqa"], preset="paper")
    assert csp.recipe == "cgqa/nayak2023_csp"
    assert (own.recipe, own.train.lr) == (None, METHODS["mine"].recipe["lr"])
    assert own.evaluation == EvalOptions(infeasible="original", threshold="search")  # as the recipes of the dataset
    shared = ["eval.bins=original", "eval.feasibility=file", "eval.infeasible=original", "eval.threshold=search"]
    assert own.recipe_info("open") == {"preset": {"name": "paper", "shared": shared}}
    changes = {"eval.infeasible": "exclude", "eval.threshold": None}
    _, alone = plan(["csp", "mine"], ["cgqa"], preset="paper", settings=changes)
    assert (alone.evaluation.infeasible, alone.evaluation.threshold) == ("exclude", None)
    assert alone.recipe_info("open")["preset"]["shared"] == shared[:2]
    assert plan(["mine"], ["cgqa"])[0].recipe_info("open") == {}
    assert plan(["mine"], ["cgqa"])[0].evaluation == EvalOptions()


def test_no_threshold_is_searched_unless_most_recipes_of_the_dataset_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, threshold in (("a_csp", 0.4), ("b_clip", 0.5), ("c_coop", "search")):
        text = f"method: {name[2:]}\neval: {{infeasible: original, threshold: {threshold}}}\n"
        write(tmp_path / "toys", text, f"{name}.yaml")
    monkeypatch.setattr(recipe_files, "configs", lambda: tmp_path)
    assert recipe_files.shared_evaluation("toys") == {"infeasible": "original", "threshold": "search"}
    for name in ("d_dfsp-bif", "e_troika", "f_msci"):
        write(tmp_path / "toys", f"method: {name[2:]}\neval: {{infeasible: original}}\n", f"{name}.yaml")
    assert recipe_files.shared_evaluation("toys") == {"infeasible": "original"}
    assert recipe_files.shared_evaluation("mit-states") == {}


def test_the_preset_paper_needs_a_recipe_for_every_dataset(mine: Path) -> None:
    message = "preset 'paper': none of the methods (csp, mine) has a recipe for toys, configs/toys/*_METHOD.yaml. Leave"
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan(["csp", "mine"], ["cgqa", "toys"], preset="paper")


def test_two_recipes_of_a_method_for_a_dataset_are_an_error_that_names_both(mine: Path) -> None:
    first, second = (write(mine / "configs" / "cgqa", name=f"{name}_mine.yaml") for name in ("me2024", "you2025"))
    message = f"mine has 2 recipes for cgqa: {first}, {second}. Choose one with --recipe."
    with pytest.raises(ConfigError, match=re.escape(message)):
        planned()
    assert planned(mine=second).recipe == "cgqa/you2025_mine"


def test_a_recipe_that_is_given_replaces_the_others_on_every_dataset(tmp_path: Path) -> None:
    file = write(tmp_path / "cgqa", RECIPE.replace("mine", "csp"), "mine.yaml")
    for dataset in ("demo", "cgqa", "mit-states"):
        found = planned("csp", dataset, None, csp=file)
        assert (found.recipe, found.train.epochs) == ("cgqa/mine", 3)
        assert bool(found.published) is (dataset == "cgqa")
    assert not planned("csp", "mit-states", "paper", csp=file).published


def test_the_folder_of_a_given_recipe_counts_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "cgqa", RECIPE.replace("mine", "csp"))
    monkeypatch.chdir(file.parent)
    assert planned("csp", preset=None, csp=file.name).published


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ({"csp": "{file}"}, "{file}: its method is 'mine', but it was given for 'csp'"),
        ({"csp": "nowhere.yaml"}, "nowhere.yaml: cannot be read as YAML: "),
        ({"troika": "{file}"}, "recipe {file} is for troika, which is not among the methods"),
    ],
)
def test_a_recipe_that_does_not_fit_is_an_error(tmp_path: Path, recipes: dict[str, str], message: str) -> None:
    file = write(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message.format(file=file))):
        planned("csp", **{name: text.format(file=file) for name, text in recipes.items()})


def test_recipes_on_the_command_line_name_method_and_file() -> None:
    assert parse_recipe_files(["csp=a=b.yaml", " mine = c.yaml "]) == {"csp": Path("a=b.yaml"), "mine": Path("c.yaml")}
    with pytest.raises(ConfigError) as caught:
        parse_recipe_files(["a.yaml", "csp=a.yaml", "csp=b.yaml", "=c.yaml"])
    assert caught.value.problems == (
        "'a.yaml' is not METHOD=FILE.yaml",
        "csp has two recipes, a.yaml and b.yaml: give one",
        "'=c.yaml' is not METHOD=FILE.yaml",
    )


def test_a_table_names_methods_without_a_recipe_and_has_the_numbers_of_given_recipes(
    mine: Path, tmp_path: Path
) -> None:
    write_mini("mit-states", tmp_path / "data")
    file = write(tmp_path / "mit-states", RECIPE.replace("mine", "csp").replace("exact", "original"))
    result = czslkit.bench(
        "csp,mine",
        "mit-states",
        "closed",
        recipes={"csp": file},
        data=tmp_path / "data",
        runs=tmp_path / "runs",
        settings={"backbone": "demo", "train.epochs": 0},
        progress=False,
        log=lambda line: None,
    )
    assert result.failed == 0
    text = result.table().to_text()
    assert "mine on mit-states: no recipe; the defaults of the method, apart from settings that were given" in text
    assert "csp on mit-states: no recipe" not in text
    (published,) = [line for line in text.splitlines() if line.startswith("csp: published")]
    assert published.split()[2:] == ["1.0", "2.0", "3.0", "4.0"]


def test_a_method_without_a_recipe_ranks_feasible_pairs_and_its_note_names_the_settings_of_the_preset(
    mine: Path, tmp_path: Path
) -> None:
    write_mini("mit-states", tmp_path / "data")
    space = czslkit.load_dataset("mit-states", tmp_path / "data").space
    torch.save(
        torch.linspace(-1, 1, len(space.attrs) * len(space.objs)), tmp_path / "data" / "feasibility_mit-states.pt"
    )
    result = czslkit.bench(
        "csp,mine",
        "mit-states",
        "open",
        preset="paper",
        data=tmp_path / "data",
        runs=tmp_path / "runs",
        settings={"backbone": "demo", "train.epochs": 0},
        progress=False,
        log=lambda line: None,
    )
    assert result.failed == 0
    csp, own = result.results
    assert csp["protocol"]["threshold"] == 0.4069159426 and "preset" not in csp
    assert own["protocol"]["threshold_from"] == "searched on validation"
    note = (
        "mine on mit-states: no recipe; the defaults of the method, apart from settings that were given and those of "
        "the preset paper for the dataset: eval.bins=original, eval.feasibility=file, eval.infeasible=original, "
        "eval.threshold=search"
    )
    assert note in result.table().notes()
    assert note in Table([own]).notes()
