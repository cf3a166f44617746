"""Listing, removing and pruning stored results: only what czslkit wrote, and no cell that a process holds."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

import czslkit
from czslkit.cli import main
from czslkit.errors import ConfigError, CzslkitError
from czslkit.files import file_lock
from czslkit.report.asked import Command, remember
from czslkit.result_store import Store


def cell(**changes: Any) -> dict[str, Any]:
    return {"method": "csp", "dataset": "demo", "world": "closed", "seed": 0, "config_id": "aaaaaaaa", **changes}


def put(runs: Path, status: str = "done", key: str = "k1", **changes: Any) -> Path:
    """Store a result with the files of a run, and return the folder of its cell."""
    store, error = Store(runs), {"type": "DataError", "message": "absent", "traceback": "..."}
    where = cell(**changes)
    result = {"cell": where, "status": status, "config": {}, "protocol": {}, "depends": {}, "metrics": {}}
    store.put(result | ({"error": error} if status == "failed" else {"training_key": key}))
    store.attach(where, {"error.txt": b"..."} if status == "failed" else {"curve.csv": b"x", "images.npz": b"y"})
    (store.folder(where) / ".lock").touch()
    return store.folder(where)


def train(folder: Path, key: str = "k1", *, finished: bool = True, name: str = "training") -> Path:
    """Write a training into the folder of a cell."""
    training = folder / name
    training.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"key": key}}).encode()
    (training / "last.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    if finished:
        (training / "method.json").write_text(json.dumps({"training_key": key}))
        (training / "weights.safetensors").write_bytes(b"w" * 1000)
    return training


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder with two worlds of one training, a failed cell, and another method and dataset."""
    runs = tmp_path / "runs"
    put(runs, world="open")
    train(put(runs))
    put(runs, "failed", config_id="bbbbbbbb")
    put(runs, method="clip", dataset="cgqa", seed=1, key="k2")
    return runs


def names(runs: Path) -> set[tuple[str, ...]]:
    return {(i.dataset, i.method, str(i.seed), i.config_id, i.what, i.status) for i in czslkit.list_runs(runs)}


CLOSED, OPEN, TRAINED, FAILED, OTHER = (
    ("demo", "csp", "0", "aaaaaaaa", "closed", "done"),
    ("demo", "csp", "0", "aaaaaaaa", "open", "done"),
    ("demo", "csp", "0", "aaaaaaaa", "training", "trained"),
    ("demo", "csp", "0", "bbbbbbbb", "closed", "failed"),
    ("cgqa", "clip", "1", "aaaaaaaa", "closed", "done"),
)


def test_results_and_trainings_are_listed_with_their_sizes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert names(runs) == {CLOSED, OPEN, TRAINED, FAILED, OTHER}
    sizes = {i.what: i.size for i in czslkit.list_runs(runs) if i.config_id == "aaaaaaaa" and i.dataset == "demo"}
    files = [p for p in (runs / "demo/csp/seed0-aaaaaaaa").rglob("*") if p.is_file() and p.name != ".lock"]
    assert sum(sizes.values()) == sum(p.stat().st_size for p in files)
    assert main(["runs", str(runs), "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and lines[0].split()[:6] == ["dataset", "method", "seed", "config", "what", "status"]


def test_stale_and_damaged_files_are_marked(runs: Path) -> None:
    folder = runs / "demo/csp/seed0-aaaaaaaa"
    (folder / "closed.json").rename(folder / "closed.stale.json")
    (folder / "open.json").write_text("{")
    train(folder, "old", name="training.stale")
    found = {(what, status) for _, _, _, config, what, status in names(runs) if config == "aaaaaaaa" and what != "x"}
    assert {("closed", "stale"), ("open", "damaged"), ("training", "stale"), ("training", "trained")} <= found


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        ({"failed": True}, {CLOSED, OPEN, TRAINED, OTHER}),
        ({"worlds": ["open"]}, {CLOSED, TRAINED, FAILED, OTHER}),
        ({"methods": ["csp"]}, {OTHER}),
        ({"datasets": ["demo"], "config_ids": ["aaaaaaaa"]}, {FAILED, OTHER}),
        ({"seeds": [1]}, {CLOSED, OPEN, TRAINED, FAILED}),
        ({"methods": ["clip"], "failed": True}, {CLOSED, OPEN, TRAINED, FAILED, OTHER}),
        ({"worlds": ["closed", "open"], "datasets": ["demo"]}, {OTHER}),
    ],
)
def test_a_selection_removes_its_results_and_trainings_without_results(
    selection: dict[str, Any], left: set[Any], runs: Path
) -> None:
    planned = czslkit.remove_runs(runs, **selection, dry_run=True)
    assert names(runs) == {CLOSED, OPEN, TRAINED, FAILED, OTHER}
    assert czslkit.remove_runs(runs, **selection) == planned
    assert names(runs) == left
    assert not planned.kept
    assert not [path for path in runs.rglob("*") if path.is_dir() and not any(path.iterdir())]


def test_removing_without_a_selection_or_of_unknown_names_is_refused(runs: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is selected"):
        czslkit.remove_runs(runs)
    with pytest.raises(ConfigError, match=r"has no method cps\. Known: clip, csp"):
        czslkit.remove_runs(runs, methods=["cps"])
    with pytest.raises(CzslkitError, match=r"no folder .*nowhere"):
        czslkit.prune_runs(runs / "nowhere")
    assert names(runs) == {CLOSED, OPEN, TRAINED, FAILED, OTHER}


def test_a_cell_that_a_process_holds_is_skipped_and_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = runs / "demo/csp/seed0-aaaaaaaa/.lock"
    with file_lock(lock, print):
        assert main(["runs", str(runs), "remove", "--datasets", "demo"]) == 0
    assert names(runs) == {CLOSED, OPEN, TRAINED, OTHER}
    assert (
        f"kept: csp on demo (closed, seed 0, config aaaaaaaa): done: a process holds {lock}" in capsys.readouterr().out
    )


def test_files_that_czslkit_did_not_write_stay_and_are_named(runs: Path) -> None:
    folder = runs / "demo/csp/seed0-aaaaaaaa"
    (folder / "notes.txt").write_text("mine")
    (folder / "training" / "mine.pt").write_text("mine")
    done = czslkit.remove_runs(runs, config_ids=["aaaaaaaa"], methods=["csp"])
    assert f"{folder / 'notes.txt'}: czslkit did not write it" in done.kept
    assert (folder / "notes.txt").read_text() == (folder / "training" / "mine.pt").read_text() == "mine"


@pytest.mark.parametrize("level", ["dataset", "method", "cell", "training", "file"])
def test_nothing_outside_is_removed_through_a_link(level: str, runs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    folder = runs / "demo/csp/seed0-aaaaaaaa"
    linked = {
        "dataset": folder.parent.parent,
        "method": folder.parent,
        "cell": folder,
        "training": folder / "training",
        "file": folder / "closed.json",
    }[level]
    linked.rename(outside)
    linked.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    czslkit.remove_runs(runs, methods=["clip"])
    if level != "dataset":
        czslkit.remove_runs(runs, failed=True) if level == "cell" else None
    if level in ("training", "file"):
        czslkit.remove_runs(runs, config_ids=["aaaaaaaa"])
    czslkit.prune_runs(runs, cache=True)
    assert outside.exists() and sorted(outside.rglob("*")) == before


def test_pruning_removes_stale_files_and_trainings_that_no_result_refers_to(runs: Path) -> None:
    folder = runs / "demo/csp/seed0-aaaaaaaa"
    (folder / "closed.stale.json").write_text((folder / "closed.json").read_text())
    train(folder, "old", name="training.stale")
    train(runs / "demo/csp/seed5-aaaaaaaa", "orphan")
    train(runs / "demo/csp/seed6-aaaaaaaa", "killed", finished=False)
    train(runs / "demo/csp/seed7-aaaaaaaa", "k1")  # another cell's result refers to it
    remember(runs, Command((("demo", "csp", "aaaaaaaa"),), (6,), ("closed",)), {}, print)
    done = czslkit.prune_runs(runs)
    assert len(done.removed) == 3
    assert ["seed 6" in line and "no result refers to it" in line for line in done.kept] == [True]
    kept = {("demo", "csp", "6", "aaaaaaaa", "training", "unfinished"), ("demo", "csp", "7", *TRAINED[3:])}
    assert names(runs) == {CLOSED, OPEN, TRAINED, FAILED, OTHER} | kept


def test_pruning_removes_old_unfinished_files_and_asked_for_caches(runs: Path) -> None:
    (runs / "cache").mkdir()
    old = [runs / ".table.md.99.tmp", runs / "demo/csp/seed0-aaaaaaaa/training/.last.safetensors.tmp"]
    young, cached, foreign = runs / ".new.99.tmp", runs / "cache/features-test-1-2.safetensors", runs / "cache/mine.txt"
    for path in (*old, young, cached, foreign):
        path.write_text("x")
    for path in old:
        os.utime(path, (0, 0))
    czslkit.prune_runs(runs, dry_run=True)
    assert all(path.exists() for path in old)
    czslkit.prune_runs(runs)
    assert [path.exists() for path in (*old, young, cached, foreign)] == [False, False, True, True, True]
    czslkit.prune_runs(runs, cache=True)
    assert [path.exists() for path in (young, cached, foreign)] == [True, False, True]


def test_a_pipe_in_the_place_of_a_state_is_not_opened(runs: Path) -> None:
    training = train(put(runs, config_id="cccccccc"))
    (training / "last.safetensors").unlink()
    os.mkfifo(training / "last.safetensors")
    (item,) = [item for item in czslkit.list_runs(runs) if item.folder == training.parent and item.what == "training"]
    assert (item.status, item.keys) == ("trained", ("k1",))


def test_a_repeated_option_of_the_command_selects_more(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--methods", "csp", "--methods", "clip", "--config=aaaaaaaa", "--config=bbbbbbbb", "--seeds=0", "--seeds=1"]
    assert main(["runs", str(runs), "remove", "--dry-run", *both]) == 0
    assert "clip on cgqa" in (printed := capsys.readouterr().out)
    assert "csp on demo" in printed


def test_the_command_says_what_it_removes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(runs), "remove", "--failed", "--dry-run"]) == 0
    line = "csp on demo (closed, seed 0, config bbbbbbbb): failed"
    assert f"would remove: {line}\n1 to remove, " in capsys.readouterr().out
    assert main(["runs", str(runs), "remove", "--failed"]) == 0
    assert f"removed: {line}" in capsys.readouterr().out
    assert main(["runs", str(runs), "remove"]) == 2
    assert main(["runs", str(runs), "prune"]) == 0
