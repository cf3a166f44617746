from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from czslkit.cli import main
from czslkit.data.check.verification import Verification, verify
from czslkit.data.datasets import DATASETS
from czslkit.data.layout import images_folder, metadata_file, pairs_file
from czslkit.data.make.mini import MINI_COUNTS, REPLICAS, write_mini
from czslkit.data.published import BENCHMARKS
from czslkit.errors import UnknownNameError

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


def verified(folder: Path) -> Verification:
    return verify(folder.name, folder.parent, workers=2)


def kinds(folder: Path) -> dict[str, str]:
    """Severity of each kind of finding."""
    return {finding.kind: finding.severity for finding in verified(folder).findings}


@pytest.fixture(scope="module")
def minis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("minis")
    for name in REPLICAS:
        write_mini(name, root)
    return root


def test_replicas_of_all_datasets_pass(minis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "all", "--mini", "--data", str(minis)]) == 0
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if line.endswith(": no errors or warnings")] == [
        f"{name}: no errors or warnings" for name in BENCHMARKS
    ]
    assert said.err == "", "a bar is for terminals"


@pytest.mark.parametrize("name", ["vaw-czsl", "clothing16k"])
def test_what_is_not_published_about_a_dataset_is_a_note(
    name: str, minis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verify", name, "--mini", "--data", str(minis)]) == 0
    assert DATASETS[name].unpublished not in capsys.readouterr().out
    findings = verify(name, minis, workers=2).findings
    assert [f.severity for f in findings if f.what == DATASETS[name].unpublished] == ["note"]
    assert [f.kind for f in findings if f.severity == "error"] == ([] if DATASETS[name].counts is None else ["counts"])


def test_a_replica_without_its_lists_holds_more_pairs(minis: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cgqa"
    shutil.copytree(minis / "cgqa", folder)
    shutil.rmtree(pairs_file(folder, "train").parent)
    finding = verify("cgqa", tmp_path, expected=MINI_COUNTS).findings[0]
    assert finding.where == (
        "pairs 39 instead of 36",
        "train pairs 27 instead of 24",
        "train images 147 instead of 144",
    )


def test_a_replica_does_not_have_the_published_counts(minis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "all", "--data", str(minis), "--format", "json"]) == 1
    reports = json.loads(capsys.readouterr().out)
    assert [report["dataset"] for report in reports] == list(BENCHMARKS)
    zappos = reports[1]
    assert (zappos["sound"], zappos["expected"]["attributes x objects"]) == (False, 192)
    assert "test images 48 instead of 2,914" in zappos["findings"][0]["where"]


def test_a_correct_dataset_has_no_findings(pets: Path) -> None:
    result = verified(pets)
    assert result.findings == ()
    assert result.to_text().splitlines()[0] == f"pets in {pets}"
    assert result.to_text().splitlines()[-1] == "pets: no errors or warnings"


def test_of_many_places_five_are_shown_and_all_are_in_the_json(pets: Path) -> None:
    shutil.rmtree(images_folder(pets))
    result = verified(pets)
    text = result.to_text()
    assert text.count(".jpg") == 5
    assert "    and 9 more\n" in text
    assert len(result.to_json()["findings"][0]["where"]) == 14


def test_errors_come_first_and_warnings_before_notes(pets: Path, edit: Edit) -> None:
    (images_folder(pets) / "more.jpg").touch()
    edit(lambda entries: entries.append(dict(entries[0])))
    edit(lambda entries: entries.append({**entries[0], "image": "gone.jpg"}))
    assert kinds(pets) == {"missing": "error", "repeated": "warning", "unreferenced": "note"}
    assert verified(pets).to_text().endswith("pets: 1 error and 1 warning")


def test_lists_that_cannot_be_read_are_an_error(pets: Path) -> None:
    metadata_file(pets).write_bytes(b"nonsense")
    result = verified(pets)
    assert [finding.kind for finding in result.findings] == ["malformed"]
    assert "is refused, and nothing in it was run" in result.to_text()
    assert result.to_json()["found"] is None


def test_an_absent_dataset_is_an_error_with_where_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "cgqa", "--data", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "error: cgqa is absent: looked for" in out
    assert out.endswith("cgqa: 1 error\n")


def test_an_unknown_name_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match="no dataset named 'cgq'"):
        verify("cgq", tmp_path)
    assert main(["data", "verify", "cgq", "--data", str(tmp_path)]) == 2
    assert "Did you mean 'cgqa'?" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_workers_are_a_number_above_zero(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["data", "verify", "demo", "--workers", workers])
    assert f"{workers!r} is not a whole number above 0" in capsys.readouterr().err


def test_missing_images_come_with_a_remedy(pets: Path) -> None:
    next((pets / "images").rglob("*.jpg")).unlink()
    assert (
        "-> unpack the images again, or remove images that do not exist from the metadata" in verified(pets).to_text()
    )
