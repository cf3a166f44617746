"""Suites: files that hold a whole comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import czslkit
from czslkit import Grid, Variant
from czslkit.cli import main
from czslkit.errors import ConfigError
from czslkit.method import METHODS
from czslkit.report.asked import read_asked
from czslkit.runner.plan import plan
from czslkit.runner.request import Request
from czslkit.runner.suite import Suite, load_suite

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a suite and return its file."""

    def go(text: str) -> Path:
        file = tmp_path / "suite.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return go


COMPARISON = """
methods:
  - clip
  - method: csp
    label: CSP, little dropout
    set: {word_dropout: 0.1, train.epochs: 2}
  - method: csp
    label: CSP
datasets: toys
worlds: [closed]
seeds: 0-1
set:
  train.epochs: 1
  backbone: "%s"
"""


def planned(suite: Path, data: Path, **given: Any) -> list[Any]:
    """Return the trainings that a suite asks for."""
    found = load_suite(suite, data)
    request = Request(found.choose(given.pop("methods", None)), found.datasets, found.worlds, found.seeds, data=data)
    return [job.spec for job in Request(**{**vars(request), "preset": found.preset, **given}).jobs(lambda line: None)]


def test_a_suite_asks_for_the_cells_of_the_same_command_line(write: Write, toys: Path, clip_file: Path) -> None:
    specs = planned(write(COMPARISON % clip_file), toys)
    settings = {"train.epochs": 1, "backbone": str(clip_file)}
    plain = plan(["clip", "csp"], ["toys"], ["closed"], [0, 1], settings)
    changed = plan(["csp"], ["toys"], ["closed"], [0, 1], {**settings, "word_dropout": 0.1, "train.epochs": 2})
    expected = [plain[0], plain[1], changed[0], changed[1], plain[2], plain[3]]
    assert [spec.cell("closed") for spec in specs] == [spec.cell("closed") for spec in expected]
    assert [spec.name for spec in specs[::2]] == ["clip", "CSP, little dropout", "CSP"]


def test_options_of_the_command_line_override_a_suite(write: Write, toys: Path, clip_file: Path) -> None:
    suite = write(COMPARISON % clip_file)
    specs = planned(suite, toys, settings={"train.epochs": 0}, seeds=(3,))
    assert {(spec.seed, spec.train.epochs) for spec in specs} == {(3, 0)}
    assert [spec.name for spec in planned(suite, toys, methods="csp", seeds=(0,))] == ["CSP, little dropout", "CSP"]
    (coop,) = planned(suite, toys, methods="coop", seeds=(0,))  # not in the suite: with its settings of all methods
    assert (coop.train.epochs, coop.backbone) == (1, str(clip_file))
    (one,) = planned(suite, toys, methods=["CSP"], seeds=(0,))
    assert one.label == "CSP"


def test_several_values_in_a_suite_are_read_as_on_the_command_line(write: Write) -> None:
    suite = load_suite(write('methods: [csp]\nset:\n  csp.train.lr: 1e-3,5e-3\n  backbone: \'"demo","other"\'\n'))
    assert suite.methods is not None
    assert suite.methods[0].settings == {"backbone": Grid(["demo", "other"]), "train.lr": "1e-3,5e-3"}
    assert [s.train.lr for s in plan([Variant("csp", {"train.lr": "1e-3,5e-3"}, "x")], ["demo"])] == [1e-3, 5e-3]
    assert [s.name for s in plan([Variant("csp", {"train.lr": "1e-3,5e-3"}, "x")], ["demo"])] == [
        "x train.lr=0.001",
        "x train.lr=0.005",
    ]


def test_the_settings_of_an_entry_override_those_of_all_methods(write: Write) -> None:
    text = "methods:\n  - method: csp\n    set: {train.lr: 3}\n  - msci\nset: {csp.train.lr: 2, train.lr: 1}\n"
    suite = load_suite(write(text))
    assert suite.methods is not None
    assert [variant.settings["train.lr"] for variant in suite.methods] == [3, 1]


WRONG = """\
methods:
  - csp
  - method: msci
    label: ""
    set:
      fusion: gatd
      csp.lr: 3
  - method: msci
    lable: x
    recipe: 3
  - mcsi
  - 5
datasets: [dmo]
worlds: closd
seeds: 2-0
prest: paper
preset: papre
set:
  train:
    epochs: 1
"""


def test_every_mistake_in_a_suite_is_reported_with_its_line(write: Write, tmp_path: Path) -> None:
    file = write(WRONG)
    with pytest.raises(ConfigError) as caught:
        czslkit.bench(suite=file, runs=tmp_path / "runs", data=tmp_path)
    found = {}
    for problem in caught.value.problems:
        place, _, rest = problem.partition(": ")
        found[place.removeprefix(f"{file}, ")] = rest
    expected = {
        "line 4": "label is '', expected a text in one line with at most 60 characters",
        "line 6": "msci: fusion is 'gatd', expected one of weighted_sum, gated. Did you mean 'gated'?",
        "line 7": "csp.lr has the name of a method, expected lr in an entry of msci",
        "line 9": "lable is not part of a method in a suite. Did you mean 'label'?",
        "line 10": "recipe is 3, expected a path",
        "line 11": "no method named 'mcsi'. Did you mean 'msci'?",
        "line 12": "method is 5, expected the name of a method, such as 'method: csp'",
        "line 13": "no dataset named 'dmo'. Did you mean 'demo'?",
        "line 14": "no world named 'closd'. Did you mean 'closed'?",
        "line 15": "'2-0' counts down: write 0-2, expected a list such as [0, 1, 2], or a range such as 0-2",
        "line 16": "prest is not part of a suite. Did you mean 'preset'",
        "line 17": "no preset named 'papre'. Did you mean 'paper'? Known: demo, paper.",
        "line 19": "train has keys below it, expected one line for each: train.epochs: ...",
    }
    assert found.keys() == expected.keys()
    assert not [line for line, start in expected.items() if not found[line].startswith(start)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [csp\n", "suite.yaml, line 2: expected ',' or ']'"),
        ("methods: [csp]\nset:\n  a: 1\n  a: 2\n", "line 4: a is there twice, first in line 3"),
        ("methods: &a [csp]\ndatasets: *a\n", "suite.yaml, it has the alias \\*a; write the value where it is used"),
        ("- csp\n", r"suite.yaml is \['csp'\], expected a suite with methods, datasets, worlds, seeds, preset, set"),
        ("methods: [csp]\nseeds: []\n", "line 2: no seed, expected a list"),
        ("methods: [csp]\nseeds: [-1]\n", "line 2: seed -1 is not a whole number"),
        ("methods: [csp]\nset: 3\n", "line 2: set is 3, expected settings such as"),
        ("methods: [csp]\nworlds: {}\n", r"line 2: worlds is {}, expected a list of names, such as \[closed, open\]"),
        ("datasets: demo\n", "line 1: no methods, expected a list with a method in each line, such as '- csp'"),
        ("methods: csp\n", "line 1: methods is 'csp', expected a list"),
        (
            "methods:\n  - {method: csp, checkpoint: a, set: {train.lr: 1}}\n",
            "line 2: train.lr does nothing: a method of a checkpoint is not trained",
        ),
        (
            "methods:\n  - {method: csp, label: a}\n  - {method: clip, label: a}\n",
            "line 3: label 'a' is given twice, first in .*suite.yaml, line 2",
        ),
    ],
)
def test_a_file_that_is_no_suite_is_refused(write: Write, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_suite(write(text))


def test_a_missing_suite_and_one_after_another_option_are_explained(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(tmp_path / "csp")]) == 2
    assert "there is no file" in (err := capsys.readouterr().err)
    assert "methods are given as --methods NAME" in err
    assert main(["bench", "--methods", "csp", "my.yaml"]) == 2
    expected = "my.yaml is given to --methods; write the suite first: czslkit bench my.yaml --methods ..."
    assert expected in capsys.readouterr().err


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"suite.yaml cannot be read as YAML"):
        load_suite(tmp_path / "suite.yaml")


def test_two_rows_with_the_same_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="b has the same settings as a on demo: change or leave out one"):
        plan([Variant("csp", {}, "a"), Variant("csp", {"train.lr": 0.01}, "b")], ["demo"], settings={"train.lr": 0.1})
    with pytest.raises(ConfigError, match="label 'a' is given twice"):
        plan([Variant("csp", {}, "a"), Variant("clip", {}, "a")], ["demo"])


def test_a_checkpoint_of_a_row_is_read_with_its_method(toys: Path, clip_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"row 3: .*nowhere"):
        plan([Variant("csp", checkpoint=tmp_path / "nowhere", places={"": "row 3"})], ["demo"])
    settings = {"backbone": str(clip_file), "train.epochs": 0}
    where: dict[str, Any] = {"data": toys, "runs": tmp_path, "log": lambda line: None, "progress": False}
    result = czslkit.bench("csp", "toys", "closed", settings=settings, **where)
    assert result.store is not None
    folder = result.store.folder(result.results[0]["cell"])
    with pytest.raises(ConfigError, match="which is evaluated for one seed, not for 2 seeds"):
        plan([Variant("csp", checkpoint=folder)], ["demo"], seeds=[0, 1])
    with pytest.raises(ConfigError, match="holds csp, expected coop"):
        plan([Variant("coop", checkpoint=folder)], ["demo"])
    (again,) = czslkit.bench([Variant("csp", label="kept", checkpoint=folder)], "toys", "closed", **where).results
    assert again["metrics"] == result.results[0]["metrics"]


def test_labels_name_the_rows_of_tables_and_frames(
    write: Write, toys: Path, clip_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write(COMPARISON.replace("0-1", "[0]") % clip_file)
    runs = tmp_path / "runs"
    where: dict[str, Any] = {"data": toys, "runs": runs, "progress": False}
    lines: list[str] = []
    plain = czslkit.bench(
        "csp", "toys", "closed", settings={"backbone": str(clip_file), "train.epochs": 1}, log=lines.append, **where
    )
    assert plain.table().labels == ["csp"]
    result = czslkit.bench(suite=suite, log=lines.append, **where)
    assert any("CSP on toys, seed 0: done before" in line for line in lines)
    labels = ["clip", "CSP, little dropout", "CSP"]
    assert list(result.table().arrangement.rows) == labels
    assert result.to_frame()["label"].tolist() == labels
    assert sorted(czslkit.results(runs)["label"]) == sorted(labels)
    assert set(read_asked(runs, print).labels.values()) == {*labels} - {"clip"}
    assert r"CSP, little dropout~\cite{nayak2023csp}" in result.to_latex()
    assert {row["method"] for row in json.loads(result.to_json())["rows"]} == {*labels}
    capsys.readouterr()
    assert main(["table", str(runs), "--format", "json"]) == 0
    assert {row["method"] for row in json.loads(capsys.readouterr().out)["rows"]} == {*labels}


def test_methods_that_a_suite_lacks_have_its_settings_but_for_those_of_other_methods() -> None:
    suite = Suite((Variant("csp"), Variant("msci")), settings={"msci.fusion": "gated", "train.epochs": 1})
    assert suite.choose("troika") == [Variant("troika", {"train.epochs": 1})]
    chosen = suite.choose("all")
    assert chosen is not None and len(chosen) == len(METHODS)
    assert {"csp", "msci", "troika"} <= {variant.method for variant in chosen if isinstance(variant, Variant)}
