"""Results of plugins are stale if the code or the files behind them change, and only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import czslkit
from czslkit import provenance
from czslkit.errors import ConfigError, DataError
from czslkit.method import METHODS
from czslkit.registry import load_unpackaged
from czslkit.result_store import Store
from czslkit.runner import run_jobs

METHOD = '''"""A method."""
from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import SoftPrompt
from borrowed import Passed, Rule, double
from . import words
from .numbers import dropout

@dataclass(frozen=True)
class MineOptions:
    backbone: str = option("demo", "CLIP")
    vectors: Path | None = option(None, "word vectors")
    more: tuple[Path, ...] = option((), "other files")
    table: str = option("", "a table")

@METHODS.register("mine")
class Mine(Method):
    Options = MineOptions
    def __init__(self, options, space):
        backbone = load_backbone(options.backbone)
        prompt = SoftPrompt(backbone, space, dropout=dropout())
        head = CosineHead(backbone.scale)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=head, aggregator=Passed())
        self.rule, self.double = Rule(), double
'''
BORROWED = """from dataclasses import replace
from czslkit.components import Aggregator
class Passed(Aggregator):
    def layers(self, depth):
        return ()
    def forward(self, image):
        return replace(image, levels=())
class Rule:
    limit = 1
def double(x):
    return 2 * x
"""
DATASET = '''from czslkit.data.datasets import DATASETS, Dataset
@DATASETS.register("toys")
class Toys(Dataset):
    """Toys."""
    def listing(self, folder):
        return kept(super().listing(folder))
'''
KEPT = "def kept(listing):\n    return listing\n"
FILES = {
    "mine/__init__.py": "from . import method\n",
    "mine/method.py": METHOD,
    "mine/words.py": "COUNT = 1\n",
    "mine/numbers.py": "from .constants import RATE\ndef dropout():\n    return RATE\n",
    "mine/constants.py": "RATE = 0.3\n",
    "borrowed.py": BORROWED,
}


@pytest.fixture
def ran(bench_toys: Any, package: Any) -> Any:
    """Run the method ``mine``, after changes of its files; return the reason why its result was stale."""

    def go(changes: dict[str, str] | None = None, worlds: str = "closed", **arguments: Any) -> str:
        package(FILES | (changes or {}))
        result = bench_toys("mine", worlds, **arguments)
        assert result.failed == 0, result.results[0]["error"]
        reasons = [line.partition("stale because ")[2] for line in bench_toys.log_lines]
        done = bench_toys.log_lines[-1].endswith("done before")
        assert done == (not any(reasons)) or len(Store(result.store.root).results()) == 1
        return "; ".join(filter(None, reasons))

    return go


def installed(monkeypatch: pytest.MonkeyPatch, distributions: dict[str, list[str]], *, editable: bool = False) -> None:
    """Pretend that top-level packages belong to distributions."""
    monkeypatch.setattr(provenance, "_distributions", lambda: distributions)
    monkeypatch.setattr(provenance, "_is_editable", lambda name: editable)


@pytest.mark.parametrize("editable", [False, True])
@pytest.mark.parametrize(
    "changed",
    [
        {"mine/method.py": METHOD.replace("CosineHead(backbone.scale)", "CosineHead(backbone.scale + 0)")},
        {"mine/numbers.py": FILES["mine/numbers.py"].replace("return RATE", "return RATE / 2")},
        {"mine/constants.py": "RATE = 0.4\n"},  # imported by a module that the method's module imports
        {"mine/words.py": "COUNT = 2\n"},
    ],
    ids=["method", "functions", "constants", "module"],
)
def test_a_change_of_code_that_a_method_uses_makes_it_stale(
    ran: Any, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], editable: bool
) -> None:
    if editable:
        installed(monkeypatch, {"mine": ["filelock"]}, editable=True)
    assert ran() == ""
    assert ran() == ""
    assert "code: mine.method:Mine changed" in ran(changed)


def test_a_file_that_is_changed_during_a_benchmark_is_not_taken_for_the_code_that_ran(
    ran: Any, bench_toys: Any, package: Any, tmp_path: Path
) -> None:
    package(FILES)
    constants = tmp_path / "packages" / "mine" / "constants.py"

    def edit(line: str) -> None:
        if line.startswith("[1/2] clip on toys, seed 0: running"):
            constants.write_text("RATE = 0.4\n")

    assert bench_toys("clip,mine", log=edit).failed == 0
    assert ran({"mine/constants.py": "RATE = 0.3\n"}) == ""
    assert "code: mine.method:Mine changed" in ran({"mine/constants.py": "RATE = 0.4\n"})


def test_comments_docstrings_and_unrelated_modules_make_nothing_stale(ran: Any) -> None:
    assert ran() == ""
    commented = METHOD.replace('"""A method."""', '"""Another text."""\n# a comment').replace(
        "    Options = ", '    """Mine."""\n\n    Options = '
    )
    assert commented.count("Mine.") == 1
    assert ran({"mine/method.py": commented, "mine/other.py": "X = 1\n"}) == ""
    assert ran({"mine/__init__.py": "from . import method, other\n", "mine/other.py": "X = 2\n"}) == ""


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (BORROWED.replace("levels=()", "levels=tuple(())"), "borrowed:Passed"),
        (BORROWED.replace("limit = 1", "limit = 2"), "borrowed:Rule"),
        (BORROWED.replace("2 * x", "x + x"), "borrowed:double"),
    ],
)
def test_changed_code_that_is_borrowed_from_another_file_makes_a_method_stale(
    ran: Any, monkeypatch: pytest.MonkeyPatch, changed: str, name: str
) -> None:
    """The method itself is installed, so only what it holds shows the change."""
    installed(monkeypatch, {"mine": ["filelock"]})
    ran()
    assert f"code: {name} changed" in ran({"borrowed.py": changed}).replace("; ", "; code: ")


def test_another_version_of_the_distribution_of_a_component_makes_a_method_stale(
    ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, {"mine": ["filelock"], "borrowed": ["tqdm"]})
    ran()
    installed(monkeypatch, {"mine": ["filelock"], "borrowed": ["jinja2"]})
    assert ran() == "code: borrowed:Passed changed; borrowed:Rule changed; borrowed:double changed".replace(
        "; ", "; code: "
    )


def test_a_changed_module_of_a_dataset_makes_results_stale(ran: Any, package: Any, bench_toys: Any) -> None:
    changed = {"own_toys/__init__.py": "from .kept import kept\n" + DATASET, "own_toys/kept.py": KEPT}
    assert ran(changed) == ""
    assert ran(changed | {"own_toys/kept.py": '"""Text."""\n' + KEPT}) == ""
    assert ran({"own_toys/kept.py": KEPT.replace("return listing", "x = 1\n    return listing")}) == (
        "code: own_toys:Toys changed"
    )


def test_a_changed_file_with_a_dataset_makes_results_stale_in_the_same_process(
    bench_toys: Any, tmp_path: Path, own_registrations: None
) -> None:
    """A notebook imports a file again after it was changed."""
    file = tmp_path / "own_toys.py"
    file.write_text(KEPT + DATASET)
    load_unpackaged(str(file))
    bench_toys("clip")
    load_unpackaged(str(file))
    bench_toys("clip")
    assert bench_toys.log_lines[-1].endswith("done before")
    file.write_text(KEPT.replace("return listing", "x = 1\n    return listing") + DATASET)
    load_unpackaged(str(file))
    bench_toys("clip")
    assert any("stale because code: czslkit_file_own_toys:Toys changed" in line for line in bench_toys.log_lines)


def test_a_dataset_that_is_read_by_another_class_makes_results_stale(bench_toys: Any, package: Any) -> None:
    bench_toys("clip")
    package({"own_toys.py": KEPT + DATASET})
    bench_toys("clip")
    assert any("stale because code: own_toys:Toys added" in line for line in bench_toys.log_lines)


@pytest.mark.parametrize("option", ["vectors", "more", "table"])
def test_a_changed_file_behind_an_option_makes_a_result_stale(ran: Any, tmp_path: Path, option: str) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("wet 1 0\n")
    settings = {option: [str(file)] if option == "more" else str(file)}
    assert ran(settings=settings) == ""
    (result,) = Store(tmp_path / "runs").results()
    assert result["depends"]["training"]["files"].keys() == {option}
    assert ran(settings=settings) == ""
    file.write_text("wet 0 1\n")
    assert ran(settings=settings) == f"files: {option} changed"


def test_a_folder_behind_an_option_counts_by_all_of_its_files(ran: Any, tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.txt").write_text("1")
    settings = {"vectors": str(folder)}
    assert ran(settings=settings) == ""
    (folder / "deep" / "a.txt").rename(folder / "deep" / "b.txt")
    assert ran(settings=settings) == "files: vectors changed"
    (folder / "c.txt").write_text("2")
    assert ran(settings=settings) == "files: vectors changed"


def test_without_a_file_nothing_is_recorded(ran: Any, tmp_path: Path) -> None:
    ran(settings={"table": "a/table/that/is/not/there"})
    (result,) = Store(tmp_path / "runs").results()
    assert result["depends"]["training"].keys() == {"data", "weights", "code"}
    assert "vectors" in result["config"]["options"]


def test_a_missing_file_is_named_with_its_option_before_anything_runs(
    bench_toys: Any, package: Any, tmp_path: Path
) -> None:
    package(FILES)
    with pytest.raises(ConfigError, match=rf"^mine: vectors is {tmp_path}/no\.txt, which does not exist$"):
        bench_toys("mine", settings={"vectors": str(tmp_path / "no.txt")})
    options = METHODS["mine"].Options(vectors=tmp_path / "no.txt")
    with pytest.raises(DataError, match=rf"^mine: vectors is {tmp_path}/no\.txt, which does not exist$"):
        provenance.option_digests(options, where="mine")


def test_a_file_that_is_lost_during_a_benchmark_keeps_what_was_measured(
    ran: Any, bench_toys: Any, package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "glove.txt"
    file.write_text("wet 1 0\n")
    ran(settings={"vectors": str(file)})
    real = run_jobs.run_job

    def lost(job: Any) -> Any:
        file.unlink(missing_ok=True)
        return real(job)

    monkeypatch.setattr(run_jobs, "run_job", lost)
    result = bench_toys("mine", "closed,open", settings={"vectors": str(file)})
    assert [found["status"] for found in result.results] == ["done", "failed"]
    assert f"mine: vectors is {file}, which does not exist" in result.results[1]["error"]["message"]


def test_a_trained_method_finds_the_files_of_its_options_from_every_folder(
    ran: Any, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("glove.txt").write_text("wet 1 0\n")
    ran(settings={"vectors": "glove.txt"})
    (result,) = Store(tmp_path / "runs").results()
    assert result["config"]["options"]["vectors"] == "glove.txt"
    (folder,) = (tmp_path / "runs").rglob("training")
    monkeypatch.chdir(tmp_path / "runs")
    evaluated = czslkit.bench(None, "toys", "closed", checkpoints=[folder], data=toys, runs=tmp_path / "again", log=str)
    assert evaluated.failed == 0
    assert evaluated.results[0]["metrics"] == result["metrics"]
