"""Paths on the command line and in Python: the home folder for ``~``, and no empty paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import czslkit
from czslkit.backbones import resolve
from czslkit.cli import main
from czslkit.errors import ConfigError
from czslkit.runner.recipes import parse_recipe_files
from czslkit.weights import read_tensors


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of the test; the current folder is another one."""
    folder, here = tmp_path / "home", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.chdir(here)
    return folder


def test_results_data_caches_and_weights_are_found_in_the_home_folder(
    home: Path, toys: Path, clip_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "data").symlink_to(toys)
    (home / "clip.pt").symlink_to(clip_file)
    where = ["--data=~/data", "--runs=~/runs", "--cache=~/cache", "--set", "backbone=~/clip.pt"]
    assert main(["bench", "--methods", "clip", "--datasets", "toys", "--worlds", "closed", *where]) == 0
    assert (home / "runs" / "table.md").is_file()
    assert (home / "cache").is_dir()
    assert not list(Path().iterdir())
    assert main(["table", "~/runs"]) == 0
    assert "clip" in capsys.readouterr().out
    assert list(czslkit.results("~/runs")["method"]) == ["clip"]


def test_every_path_in_python_may_start_in_the_home_folder(home: Path) -> None:
    assert parse_recipe_files(["csp=~/csp.yaml"]) == {"csp": home / "csp.yaml"}
    (home / "clip.pt").touch()
    assert resolve("~/clip.pt") == ("open_clip", str(home / "clip.pt"))
    with pytest.raises(ConfigError, match=f"{home}/absent.pt is not a readable weight file"):
        read_tensors("~/absent.pt")


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "--methods", "clip", "--runs", ""],
        ["bench", "--methods", "clip", "--data", " "],
        ["bench", "--methods", "clip", "--cache", ""],
        ["bench", "--checkpoint", ""],
        ["bench", "--methods", "clip", "--plugins", ""],
        ["check", "clip", "--json", ""],
        ["table", ""],
        ["data", "import", "", "--name", "mine"],
        ["data", "mini", "cgqa", "--out", ""],
        ["evaluate", "scores.npz", "--pairs", "", "--seen", "seen.txt"],
        ["explain", "", "--checkpoint", "runs"],
        ["convert", "a.pt", "out", "--method", "csp", "--dataset", "cgqa", "--config", ""],
    ],
)
def test_an_empty_path_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "is not a path, expected the path of a file or folder" in capsys.readouterr().err


@pytest.mark.parametrize("where", [{"runs": ""}, {"data": ""}, {"cache": ""}])
def test_an_empty_path_is_refused_in_python(where: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'' is not a path, expected the path of a file or folder"):
        czslkit.bench("clip", "mine", "closed", **({"runs": tmp_path, "data": tmp_path} | where))


def test_an_empty_recipe_feasibility_or_backbone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--methods", "clip", "--recipe", "clip="]) == 2
    assert "'clip=' is not METHOD=FILE.yaml" in capsys.readouterr().err
    assert main(["bench", "--methods", "clip", "--set", "eval.feasibility=''"]) == 2
    assert "feasibility is '', expected file, clip, method or the path of" in capsys.readouterr().err
    assert main(["bench", "--methods", "clip", "--set", 'backbone=""']) == 2
    assert (
        capsys.readouterr().err
        == "czslkit: clip: backbone is '', expected the name of a backbone or the path of a file\n"
    )


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of ``czslkit evaluate`` for two images of seen pairs; the current folder has the files."""
    monkeypatch.chdir(tmp_path)
    np.savez("scores.npz", scores=np.eye(2, 4, dtype="f4"), attr=np.array([0, 1]), obj=np.array([0, 0]))
    Path("SCORES.NPZ").write_bytes(Path("scores.npz").read_bytes())
    Path("pairs.txt").write_text("dry cat\nwet cat\ndry dog\nwet dog\n")
    Path("seen.txt").write_text("dry cat\nwet cat\ndry dog\n")
    return ["--pairs", "pairs.txt", "--seen", "seen.txt"]


@pytest.mark.parametrize("out", [".", "new/"])
def test_a_folder_is_no_file_to_write(out: str, scores: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "scores.npz", *scores, "--out", out])
    assert f"'{out}' is a folder, expected the path of a file to write" in capsys.readouterr().err


def test_suffixes_may_be_in_capitals(scores: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "SCORES.NPZ", *scores]) == 0
    assert "2 images of seen pairs" in capsys.readouterr().out


def test_undefined_numbers_of_a_score_file_are_dashes_with_their_reason(
    scores: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "scores.npz", *scores, "--out", "found.json"]) == 0
    head, numbers, *caption = capsys.readouterr().out.splitlines()
    found = dict(zip(head.replace("AUC ", "AUC-").replace("bias of H", "bias").split(), numbers.split(), strict=True))
    assert [found[name] for name in ("S", "U", "H", "AUC-original", "AUC-exact", "bias")] == ["-"] * 6
    assert found["attr"] == "100.00"
    assert "A dash marks undefined numbers: no image shows an unseen pair." in caption
    text = Path("found.json").read_text()
    assert '"auc": null' in text and '"attr_acc": 1.0' in text
