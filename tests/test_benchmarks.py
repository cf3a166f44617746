"""The program that measures a GPU runs here at tiny sizes on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpu_speed(monkeypatch):
    """The program, with one timed step in a training."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_speed
    import gpu_speed_work

    monkeypatch.setattr(gpu_speed_work, "STEPS", 1)
    return gpu_speed


def measured(gpu_speed, folder: Path, *arguments: str) -> dict[tuple[str, str, str], dict]:
    """Return the rows of a tiny run, by work and way."""
    gpu_speed.main(["--tiny", "--out", str(folder / "speed.md"), *arguments])
    rows = [json.loads(line) for line in (folder / "speed.jsonl").read_text().splitlines()]
    return {(row["work"], row["whose"], row["precision"]): row for row in rows}


def test_every_way_is_measured_and_agrees_with_the_authors(gpu_speed, tmp_path):
    rows = measured(gpu_speed, tmp_path, "--rounds", "1", "--rows", "msci, 4")
    works = {work for work, *_ in rows}
    assert works == {"train step, msci, 4 images, 12 pairs", "open-world scoring, msci, 4 images, 1,056 pairs"}
    for row in rows.values():
        assert row["seconds"] > 0 and row["operations"] > 0 and row["rate_share"] > 0 and row["runs"] >= 1
        assert row["difference"] <= {"fp32": 1e-5, "tf32": 1e-5, "bf16": 0.1}[row["precision"]]
        assert (row["text_seconds"] is None) == row["work"].startswith("train")
    assert len(rows) == 2 * 4
    for work in works:  # the authors project all layers, and encode whole prompts
        operations = {whose: row["operations"] for (name, whose, _), row in rows.items() if name == work}
        assert operations["authors"] > 1.1 * operations["ours"]
    page = (tmp_path / "speed.md").read_text()
    assert "It is no measurement" in page and page.count("| authors'") == 2 and page.count("| ours, bf16") == 2


def test_scores_that_do_not_fit_into_memory_are_made_for_fewer_images_at_a_time(gpu_speed, tmp_path, monkeypatch):
    needs_memory(gpu_speed, monkeypatch, lambda way, size: way.whose == "authors" and size > 1)
    rows = measured(gpu_speed, tmp_path, "--rounds", "1", "--rows", "scoring, csp, 4 images, 1,056")
    assert {whose: row["images_at_a_time"] for (_, whose, _), row in rows.items()} == {"authors": 1, "ours": 4}
    assert rows["open-world scoring, csp, 4 images, 1,056 pairs", "ours", "fp32"]["difference"] < 1e-5
    assert "authors', 1 images at a time" in (tmp_path / "speed.md").read_text()


def test_a_step_that_does_not_fit_into_memory_is_a_row_that_says_so(gpu_speed, tmp_path, monkeypatch):
    needs_memory(gpu_speed, monkeypatch, lambda way, size: way.whose == "authors")
    rows = measured(gpu_speed, tmp_path, "--rounds", "1", "--rows", "train step, csp")
    work = "train step, csp, 4 images, 12 pairs"
    assert rows[work, "authors", "fp32"]["seconds"] is None
    assert rows[work, "ours", "fp32"]["seconds"] > 0 and rows[work, "ours", "fp32"]["difference"] < 1e-5
    assert "| out of memory |" in " ".join((tmp_path / "speed.md").read_text().split())


def needs_memory(gpu_speed, monkeypatch, is_too_much) -> None:
    """Let runs fail for lack of memory."""
    run = gpu_speed.Task.run

    def limited(task, way, batch_size, *, count=False):
        if is_too_much(way, batch_size):
            raise torch.OutOfMemoryError("the device is full")
        return run(task, way, batch_size, count=count)

    monkeypatch.setattr(gpu_speed.Task, "run", limited)


def test_a_way_with_other_numbers_than_the_authors_is_named_and_not_measured(gpu_speed, tmp_path, monkeypatch):
    monkeypatch.setitem(gpu_speed.TOLERANCES, gpu_speed.Way("ours", "bf16"), 1e-9)
    with pytest.raises(
        SystemExit, match=r"differ too much .* train step, csp, 4 images, 12 pairs, ours in bf16: .e-03"
    ):
        measured(gpu_speed, tmp_path, "--rounds", "1", "--rows", "train step, csp")
    rows = [json.loads(line) for line in (tmp_path / "speed.jsonl").read_text().splitlines()]
    assert [row["precision"] for row in rows if row["seconds"] is None] == ["bf16"]


def test_nothing_is_started_after_the_time(gpu_speed, capsys):
    gpu_speed.main(["--tiny", "--minutes", "0"])
    assert "train step" not in capsys.readouterr().out


def test_a_missing_gpu_is_told(gpu_speed, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu_speed.main([])
    assert "there is no GPU; --tiny shows on a CPU that the program runs" in capsys.readouterr().err
