from __future__ import annotations

from pathlib import Path

import pytest

from czslkit.cli import main
from czslkit.runner.plan import plan
from czslkit.runner.suite import load_suite


def test_the_written_suite_runs_on_the_demo_world(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "my.yaml"
    assert main(["init", str(file)]) == 0
    assert capsys.readouterr().out.endswith(f"Next:\n  czslkit bench {file}\n")
    suite = load_suite(file)
    assert suite.methods is not None
    specs = plan(suite.methods, suite.datasets, suite.worlds, suite.seeds)
    assert [(spec.name, spec.dataset, spec.seed) for spec in specs] == [
        ("csp", "demo", 0),
        ("MSCI", "demo", 0),
        ("MSCI with gated fusion", "demo", 0),
    ]
    assert suite.worlds == ("closed", "open")


def test_the_next_command_can_be_typed_as_it_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "my suite.yaml"
    assert main(["init", str(file)]) == 0
    assert capsys.readouterr().out.endswith(f"Next:\n  czslkit bench '{file}'\n")
    assert file.read_text().startswith(f"# A comparison of czslkit. Run it with: czslkit bench '{file}'\n")


def test_the_comments_of_the_written_suite_are_right_when_they_are_switched_on(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    main(["init", str(file)])
    text = file.read_text().replace("# set:", "set:").replace("#   train.", "  train.").replace("#   msci.", "  msci.")
    file.write_text(text.replace("# preset: paper", "preset: demo"))
    suite = load_suite(file)
    assert suite.methods is not None
    specs = plan(suite.methods, suite.datasets, settings={}, preset=suite.preset)
    assert {spec.train.epochs for spec in specs} == {3}
    assert [spec.train.lr for spec in specs[1:]] == [1e-3, 5e-3] * 2


def test_a_file_is_replaced_only_if_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text("mine")
    assert main(["init", str(file)]) == 1
    assert f"{file} exists: name another file, or replace this one with --force" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert main(["init", str(file), "--force"]) == 0
    assert load_suite(file).datasets == ("demo",)
    assert main(["init", str(tmp_path / "no" / "suite.yaml")]) == 1
    assert f"there is no folder {tmp_path / 'no'}: make it" in capsys.readouterr().err
