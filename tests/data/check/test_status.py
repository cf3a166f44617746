from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from czslkit.cli import main
from czslkit.data.check.status import dataset_statuses, free_space, unfinished_downloads
from czslkit.data.layout import images_folder, metadata_file


def test_every_dataset_is_counted(pets: Path) -> None:
    held = {each.name: each for each in dataset_statuses(pets.parent)}
    assert set(held) >= {"mit-states", "ut-zappos", "cgqa", "demo", "pets"}
    size = sum(file.stat().st_size for file in images_folder(pets).rglob("*.jpg"))
    assert (held["pets"].state, held["pets"].folder, held["pets"].images, held["pets"].size) == (
        "complete",
        pets,
        14,
        size,
    )
    assert (held["cgqa"].state, held["cgqa"].images) == ("absent", 0)


def test_a_dataset_with_missing_files_is_incomplete(pets: Path) -> None:
    shutil.copytree(pets, pets.parent / "ut-zap50k")
    metadata_file(pets.parent / "ut-zap50k").unlink()
    shutil.rmtree(images_folder(pets))
    held = {each.name: each for each in dataset_statuses(pets.parent)}
    assert (held["pets"].state, held["pets"].problem) == ("incomplete", f"no images in {images_folder(pets)}")
    assert held["ut-zappos"].state == "incomplete"
    assert held["ut-zappos"].problem.endswith(
        "ut-zap50k is not a complete dataset: no metadata_compositional-split-natural.t7"
    )


def test_every_unfinished_download_is_a_line(tmp_path: Path) -> None:
    (tmp_path / ".downloads").mkdir()
    for name in ("cgqa.zip.partial", "b.zip.partial", "a.zip", "a.zip.refused", "a.zip.json", ".a.zip.lock"):
        (tmp_path / ".downloads" / name).write_bytes(bytes(2000))
    note = '{"url": "", "etag": "", "modified": "", "total": 5000000}'
    (tmp_path / ".downloads" / "cgqa.zip.partial.json").write_text(note)
    (tmp_path / ".mit-states.download").mkdir()
    assert unfinished_downloads(tmp_path) == [
        "a.zip: 2.0 kB, complete",
        "a.zip.refused: 2.0 kB, refused; you can delete it",
        "b.zip: 2.0 kB of an unknown size downloaded",
        "cgqa.zip: 2.0 kB of 5.0 MB downloaded",
        "mit-states: partly unpacked",
    ]
    assert unfinished_downloads(tmp_path / "nowhere") == []


def test_free_space_is_that_of_the_nearest_existing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or Free)
    assert free_space(tmp_path / "a" / "b") == f"{tmp_path}/a/b: 5.0 GB free"
    assert asked == [tmp_path]


class Free:
    free = 5_000_000_000


def test_status_needs_no_torch(pets: Path) -> None:
    metadata_file(pets).unlink()
    program = (
        "import sys; from czslkit.cli import main\n"
        f"status = main(['data', 'status', '--data', {str(pets.parent)!r}])\n"
        "print([name for name in ('torch', 'numpy') if name in sys.modules], status)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert ["pets", "incomplete", "14"] in [line.split()[:3] for line in lines]
    assert f"{pets} is not a complete dataset: no metadata_compositional-split-natural.t7" in lines
    assert lines[-1] == "[] 0", done.stderr


def test_a_download_of_nothing_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "download"]) == 2
    assert capsys.readouterr().err == "czslkit: nothing to download: name a dataset, all, or --glove\n"
