from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.cli import main
from czslkit.data.layout import images_folder, metadata_file
from czslkit.doctor import checks, examine, subprocess_checks
from czslkit.doctor.findings import Findings, Problem


@pytest.fixture
def without_subprocess(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the checks in another process, which take seconds."""
    monkeypatch.setattr(subprocess_checks, "run_checks", lambda *_: {})


@pytest.fixture
def problems() -> list[Problem]:
    return []


@pytest.fixture
def report(problems: list[Problem]) -> Callable[[str, str], None]:
    return lambda *said: problems.append(Problem(*said))


@pytest.fixture
def torch_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Findings]:
    """Examine the machine while ``import torch`` runs a program."""

    def found(program: str) -> Findings:
        (tmp_path / "torch.py").write_text(program)
        monkeypatch.syspath_prepend(tmp_path)
        return examine(tmp_path)

    return found


def test_a_machine_without_problems_is_described(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data", str(toys), "--format", "json"]) == 0, capsys.readouterr().out
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["versions", "devices", "data", "weights", "plugins", "problems"]
    assert said["problems"] == []
    assert said["versions"]["torch"]
    assert said["devices"]["cpu"].endswith("GiB of memory")
    assert said["data"]["toys"] == f"complete, 37 images in {toys / 'toys'}"
    assert said["data"]["cgqa"] == "absent"
    assert "ViT-L-14-quickgelu/openai" in said["weights"]
    assert said["plugins"]["msci"].endswith("(czslkit_plugins.msci)")


def test_a_broken_plugin_is_a_problem_and_cached_and_absent_weights_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "site" / "czsl_sad-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: czsl-sad\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[czslkit.plugins]\nsad = czsl_sad\n")
    (tmp_path / "site" / "czsl_sad.py").write_text("print('hello')\nimport no_such_thing\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    snapshot = tmp_path / "hub" / "models--timm--vit_base_patch32_clip_224.openai"
    (snapshot / "snapshots" / "abc").mkdir(parents=True)
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text("abc")
    (snapshot / "snapshots" / "abc" / "open_clip_model.safetensors").touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    arguments = ["doctor", "--data", str(tmp_path / "data"), "--format", "json"]
    assert main([*arguments, "--backbone", "ViT-L-14-quickgelu/openai"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["weights"]["cache"] == str(tmp_path / "hub")
    assert said["weights"]["ViT-B-32-quickgelu/openai"].endswith("/abc/open_clip_model.safetensors")
    assert said["weights"]["ViT-L-14-quickgelu/openai"] == "not on this machine; the first use downloads it"
    assert said["plugins"]["sad"] == "czsl-sad 0.1 (czsl_sad)"
    assert [problem["what"] for problem in said["problems"]] == [
        "'ViT-L-14-quickgelu/openai' is neither a file nor among the weights on this machine",
        "plugin 'sad' (czsl-sad 0.1) did not load: ModuleNotFoundError: No module named 'no_such_thing'",
    ]


@pytest.mark.parametrize("content", [None, b"no weights"])
def test_a_file_of_weights_is_read(
    clip_file: Path, tmp_path: Path, content: bytes | None, problems: list[Problem], report: Callable[[str, str], None]
) -> None:
    file = tmp_path / "clip.pt"
    shutil.copyfile(clip_file, file)
    if content:
        file.write_bytes(content)
    rows = checks.weights(str(file), report)
    assert rows.get(str(file)) == (None if content else "98 tensors, 16 MiB")
    assert [f"{file} is not a readable weight file" in each.what for each in problems] == [True] * bool(content)


@pytest.mark.parametrize("setting", ["local-dir:{folder}", "ViT-B-32/openai/{folder}/clip.pt"])
def test_the_weights_of_a_folder_or_of_a_tag_are_read(
    clip_file: Path, problems: list[Problem], report: Callable[[str, str], None], setting: str
) -> None:
    setting = setting.format(folder=clip_file.parent)
    assert checks.weights(setting, report)[setting] == "98 tensors, 16 MiB"
    assert problems == []


def test_a_torch_that_does_not_import_is_a_problem(torch_that: Callable[[str], Findings]) -> None:
    (problem,) = torch_that("raise ImportError('libcudart.so.12: cannot open')").problems
    assert problem.what == "torch: ImportError: libcudart.so.12: cannot open"
    assert problem.remedy == "reinstall the packages that torch needs"


def test_a_torch_that_ends_the_process_is_a_problem(torch_that: Callable[[str], Findings]) -> None:
    (problem,) = torch_that("import os; os.abort()").problems
    assert problem.what == "the process that checked torch was ended by SIGABRT"


def test_a_process_that_ends_with_a_status_is_a_problem(torch_that: Callable[[str], Findings]) -> None:
    (problem,) = torch_that("import os, sys; print('no way', file=sys.stderr, flush=True); os._exit(3)").problems
    assert problem.what == "the process that checked torch ended with 3: no way"


def test_a_process_that_does_not_end_is_a_problem(
    torch_that: Callable[[str], Findings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess_checks, "_TIMEOUT", 0.1)
    (problem,) = torch_that("import time; time.sleep(60)").problems
    assert problem.what.startswith("the process that checked ")
    assert problem.what.endswith(" did not end within 0.1 s")


@pytest.mark.usefixtures("without_subprocess")
def test_packages_that_are_absent_or_too_old_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=99", "no-such-thing>1", "other>1; extra == 'dev'", "pillow"]
    monkeypatch.setattr(checks.metadata, "requires", lambda _: needs)
    monkeypatch.setattr(checks, "_version", {"numpy": "1.9", "czslkit": "0.1", "pillow-simd": "9.0"}.get)
    found = examine(tmp_path)
    assert found.problems == (
        Problem("numpy is 1.9, czslkit needs numpy>=99", "pip install 'numpy>=99'"),
        Problem("no-such-thing is not installed, czslkit needs no-such-thing>1", "pip install 'no-such-thing>1'"),
    )
    assert found.sections["versions"]["pillow"] == "not installed"
    assert found.sections["versions"]["pillow-simd"].startswith("9.0; resized images may differ from those of Pillow")


def test_a_dataset_that_is_not_complete_is_a_problem(
    toys: Path, tmp_path: Path, problems: list[Problem], report: Callable[[str, str], None]
) -> None:
    shutil.copytree(toys / "toys", tmp_path / "cgqa")
    metadata_file(tmp_path / "cgqa").unlink()
    shutil.copytree(toys / "toys", tmp_path / "mine")
    shutil.rmtree(images_folder(tmp_path / "mine"))
    checks.datasets(str(tmp_path), report)
    first, second = problems
    assert first.what.startswith(f"cgqa: {tmp_path / 'cgqa'} is not a complete dataset: no metadata_comp")
    assert second.what == f"mine: no images in {tmp_path / 'mine' / 'images'}"
    assert "czslkit data verify mine" in second.remedy


def test_unfinished_downloads_are_listed(
    tmp_path: Path, problems: list[Problem], report: Callable[[str, str], None]
) -> None:
    (tmp_path / ".downloads").mkdir()
    for name in ("a.zip", "b.zip"):
        (tmp_path / ".downloads" / name).write_bytes(bytes(2000))
    rows = checks.datasets(str(tmp_path), report)
    assert [rows[f"download {n}"].split(":")[0] for n in (1, 2)] == ["a.zip", "b.zip"]
    assert problems == []


def test_a_full_disk_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problems: list[Problem], report: Callable[[str, str], None]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, 1000))
    checks.datasets(str(tmp_path / "not" / "there"), report)
    (problem,) = problems
    assert problem.what.endswith(f" are free in {tmp_path}")


def test_a_file_in_place_of_the_folder_is_a_problem(
    tmp_path: Path, problems: list[Problem], report: Callable[[str, str], None]
) -> None:
    (tmp_path / "data").touch()
    checks.datasets(str(tmp_path / "data"), report)
    (problem,) = problems
    assert problem.what == f"{tmp_path / 'data'} is a file, expected the folder of the datasets"


@pytest.mark.usefixtures("without_subprocess")
def test_a_check_that_fails_is_a_problem_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "versions", lambda *_: 1 / 0)
    found = examine(tmp_path)
    assert found.problems == (
        Problem("versions: ZeroDivisionError: division by zero", "repair this, and run czslkit doctor again"),
    )
    assert found.sections["plugins"]


@pytest.mark.usefixtures("without_subprocess")
def test_the_page_ends_with_each_problem_and_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("\n\nnothing is wrong\n")
    found = Findings({"versions": {"python": "3.12"}}, (Problem("torch " + "is old " * 30, "install a new one"),))
    lines = found.to_text().splitlines()
    assert lines[:4] == ["versions", "  python  3.12", "", "what is wrong:"]
    assert lines[-1] == "    -> install a new one"
    assert max(map(len, lines)) <= 100
