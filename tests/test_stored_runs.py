"""Listing, removing and pruning stored results: only what czslkit wrote, and no cell that a process holds."""

from __future__ import annotations

import errno
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
from czslkit.options import config_id
from czslkit.report.asked import Command, remember
from czslkit.result_store import Store

CONFIGS = {config_id(config): config for config in ({}, {"options": {"backbone": "x"}})}  # 44136fa3 and d9be7d34


def cell(**changes: Any) -> dict[str, Any]:
    return {"method": "csp", "dataset": "demo", "world": "closed", "seed": 0, "config_id": "44136fa3", **changes}


def put(runs: Path, status: str = "done", key: str = "k1", **changes: Any) -> Path:
    """Store a result with the files of a run, and return the folder of its cell."""
    store, error = Store(runs), {"type": "DataError", "message": "absent", "traceback": "..."}
    where = cell(**changes)
    result = {
        "cell": where,
        "status": status,
        "config": CONFIGS[where["config_id"]],
        "protocol": {},
        "depends": {},
        "metrics": {},
    }
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
    put(runs, "failed", config_id="d9be7d34")
    put(runs, method="clip", dataset="cgqa", seed=1, key="k2")
    return runs


def names(runs: Path) -> set[tuple[str, ...]]:
    return {(i.dataset, i.method, str(i.seed), i.config_id, i.what, i.status) for i in czslkit.list_runs(runs)}


CLOSED, OPEN, TRAINED, FAILED, OTHER = (
    ("demo", "csp", "0", "44136fa3", "closed", "done"),
    ("demo", "csp", "0", "44136fa3", "open", "done"),
    ("demo", "csp", "0", "44136fa3", "training", "trained"),
    ("demo", "csp", "0", "d9be7d34", "closed", "failed"),
    ("cgqa", "clip", "1", "44136fa3", "closed", "done"),
)


def test_results_and_trainings_are_listed_with_their_sizes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert names(runs) == {CLOSED, OPEN, TRAINED, FAILED, OTHER}
    sizes = {i.what: i.size for i in czslkit.list_runs(runs) if i.config_id == "44136fa3" and i.dataset == "demo"}
    files = [p for p in (runs / "demo/csp/seed0-44136fa3").rglob("*") if p.is_file() and p.name != ".lock"]
    assert sum(sizes.values()) == sum(p.stat().st_size for p in files)
    assert main(["runs", str(runs), "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and lines[0].split()[:6] == ["dataset", "method", "seed", "config", "what", "status"]


def test_stale_and_damaged_files_are_marked(runs: Path) -> None:
    folder = runs / "demo/csp/seed0-44136fa3"
    (folder / "closed.json").rename(folder / "closed.stale.json")
    (folder / "open.json").write_text("{")
    train(folder, "old", name="training.stale")
    found = {(what, status) for _, _, _, config, what, status in names(runs) if config == "44136fa3" and what != "x"}
    assert {("closed", "stale"), ("open", "damaged"), ("training", "stale"), ("training", "trained")} <= found


@pytest.mark.parametrize(
    ("selection", "left"),
    [
        ({"failed": True}, {CLOSED, OPEN, TRAINED, OTHER}),
        ({"worlds": ["open"]}, {CLOSED, TRAINED, FAILED, OTHER}),
        ({"methods": ["csp"]}, {OTHER}),
        ({"datasets": ["demo"], "config_ids": ["44136fa3"]}, {FAILED, OTHER}),
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
    lock = runs / "demo/csp/seed0-44136fa3/.lock"
    with file_lock(lock, print):
        assert main(["runs", str(runs), "remove", "--datasets", "demo"]) == 0
    assert names(runs) == {CLOSED, OPEN, TRAINED, OTHER}
    assert (
        f"kept: csp on demo (closed, seed 0, config 44136fa3): done: a process holds {lock}" in capsys.readouterr().out
    )


def test_the_log_of_a_training_goes_with_its_cell(runs: Path) -> None:
    folder = runs / "demo/csp/seed0-44136fa3"
    (folder / "log.txt").write_text("running")
    czslkit.remove_runs(runs, config_ids=["44136fa3"], methods=["csp"])
    assert not folder.exists()


@pytest.mark.parametrize("name", ["calibration.json", "loggers.json", "backbone.safetensors"])
def test_every_file_of_a_training_goes_with_it(name: str, runs: Path) -> None:
    folder = runs / "demo/csp/seed0-44136fa3"
    (folder / "training" / name).write_text("{}")
    czslkit.remove_runs(runs, config_ids=["44136fa3"], methods=["csp"])
    assert not folder.exists()


def test_files_that_czslkit_did_not_write_stay_and_are_named(runs: Path) -> None:
    folder = runs / "demo/csp/seed0-44136fa3"
    (folder / "notes.txt").write_text("mine")
    (folder / "training" / "mine.pt").write_text("mine")
    done = czslkit.remove_runs(runs, config_ids=["44136fa3"], methods=["csp"])
    assert f"{folder / 'notes.txt'}: czslkit did not write it" in done.kept
    assert (folder / "notes.txt").read_text() == (folder / "training" / "mine.pt").read_text() == "mine"


@pytest.mark.parametrize("level", ["dataset", "method", "cell", "training", "file"])
def test_nothing_outside_is_removed_through_a_link(level: str, runs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    folder = runs / "demo/csp/seed0-44136fa3"
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
        czslkit.remove_runs(runs, config_ids=["44136fa3"])
    czslkit.prune_runs(runs, cache=True)
    assert outside.exists() and sorted(outside.rglob("*")) == before


def test_pruning_removes_stale_files_and_trainings_that_no_result_refers_to(runs: Path) -> None:
    folder = runs / "demo/csp/seed0-44136fa3"
    (folder / "closed.stale.json").write_text((folder / "closed.json").read_text())
    train(folder, "old", name="training.stale")
    train(runs / "demo/csp/seed5-44136fa3", "orphan")
    train(runs / "demo/csp/seed6-44136fa3", "killed", finished=False)
    train(runs / "demo/csp/seed7-44136fa3", "k1")  # another cell's result refers to it
    remember(runs, Command((("demo", "csp", "44136fa3"),), (6,), ("closed",)), {}, print)
    done = czslkit.prune_runs(runs)
    assert len(done.removed) == 3
    assert ["seed 6" in line and "no result refers to it" in line for line in done.kept] == [True]
    kept = {("demo", "csp", "6", "44136fa3", "training", "unfinished"), ("demo", "csp", "7", *TRAINED[3:])}
    assert names(runs) == {CLOSED, OPEN, TRAINED, FAILED, OTHER} | kept


def test_pruning_removes_old_unfinished_files_and_asked_for_caches(runs: Path) -> None:
    (runs / "cache").mkdir()
    old = [
        runs / ".table.md.01234567-99-1-01234567.tmp",
        runs / "demo/csp/seed0-44136fa3/training/.last.safetensors.tmp",
    ]
    young, cached, foreign = runs / ".new.99.tmp", runs / "cache/features-test-1-2.safetensors", runs / "cache/mine.txt"
    for path in (*old, young, cached, foreign):
        path.write_text("x")
    os.utime(old[0], (0, 0))  # of another container, and without a lock: it is left when it is a day old
    czslkit.prune_runs(runs, dry_run=True)
    assert all(path.exists() for path in old)
    czslkit.prune_runs(runs)
    assert [path.exists() for path in (*old, young, cached, foreign)] == [False, False, True, True, True]
    czslkit.prune_runs(runs, cache=True)
    assert [path.exists() for path in (young, cached, foreign)] == [True, False, True]


def test_a_pipe_in_the_place_of_a_state_is_not_opened(runs: Path) -> None:
    training = train(put(runs, seed=7))
    (training / "last.safetensors").unlink()
    os.mkfifo(training / "last.safetensors")
    (item,) = [item for item in czslkit.list_runs(runs) if item.folder == training.parent and item.what == "training"]
    assert (item.status, item.keys) == ("trained", ("k1",))


def test_a_repeated_option_of_the_command_selects_more(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--methods", "csp", "--methods", "clip", "--config=44136fa3", "--config=d9be7d34", "--seeds=0", "--seeds=1"]
    assert main(["runs", str(runs), "remove", "--dry-run", *both]) == 0
    assert "clip on cgqa" in (printed := capsys.readouterr().out)
    assert "csp on demo" in printed


def test_the_command_says_what_it_removes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(runs), "remove", "--failed", "--dry-run"]) == 0
    line = "csp on demo (closed, seed 0, config d9be7d34): failed"
    assert f"would remove: {line}\n1 to remove, " in capsys.readouterr().out
    assert main(["runs", str(runs), "remove", "--failed"]) == 0
    assert f"removed: {line}" in capsys.readouterr().out
    assert main(["runs", str(runs), "remove"]) == 2
    assert main(["runs", str(runs), "prune"]) == 0


def test_a_changed_result_is_damaged_as_in_tables(runs: Path) -> None:
    file = runs / "demo/csp/seed0-44136fa3/open.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed":  0'))
    assert (*OPEN[:5], "damaged") in names(runs)
    store = Store(runs)
    assert len(store.results()) == 3 and str(file) in store.problems[0]


def test_the_training_of_a_result_without_its_key_stays(runs: Path) -> None:
    """Results of format 1 have no key of their training."""
    for file in (runs / "demo/csp/seed0-44136fa3").glob("*.json"):
        content = json.loads(file.read_text())
        del content["digest"], content["training_key"]
        file.write_text(json.dumps({**content, "format": 1}))
    before = names(runs)
    done = czslkit.prune_runs(runs)
    assert before == names(runs) and TRAINED in before and not done.removed
    assert "trained: the result beside it does not name it" in done.kept[0]


@pytest.mark.parametrize("name", ["training", "training.stale"])
def test_trainings_beside_a_damaged_result_stay(name: str, runs: Path) -> None:
    training = train(put(runs, method="clip", key="k3"), "k3", name=name)
    assert czslkit.prune_runs(runs, dry_run=True).removed == ()
    (training.parent / "closed.json").write_text("{")
    done = czslkit.prune_runs(runs)
    assert (training / "method.json").exists()
    assert "the result beside it is damaged, and may refer to it" in done.kept[0]


def test_a_training_without_a_result_stays_if_the_record_of_commands_cannot_be_read(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = train(runs / "demo/csp/seed6-44136fa3", "killed", finished=False)
    (runs / "bench.json").write_text("{")
    assert "but bench.json, which tells whether it was asked for, cannot be read" in czslkit.prune_runs(runs).kept[0]
    assert training.exists() and "bench.json cannot be used" in capsys.readouterr().err
    (runs / "bench.json").unlink()
    czslkit.prune_runs(runs)
    assert not training.exists()


@pytest.mark.parametrize("finished", [True, False])
def test_the_training_of_a_failed_cell_stays_and_is_named(finished: bool, runs: Path) -> None:
    training = train(runs / "demo/csp/seed0-d9be7d34", "k4", finished=finished)
    done = czslkit.remove_runs(runs, failed=True)
    assert (training / "last.safetensors").exists() and FAILED not in names(runs)
    assert len(done.removed) == 1
    assert done.kept[0].endswith(": the next run of its cell goes on with it")


def test_a_cell_that_a_process_holds_by_a_claim_stays(runs: Path) -> None:
    folder = runs / "demo/csp/seed0-44136fa3"
    train(folder, "old", name="training.stale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("czslkit.locks.holds_on_one_host_only", lambda path: True)
        (folder / ".lock").unlink()
        with file_lock(folder / ".lock", print):
            patch.undo()
            before = sorted(runs.rglob("*"))
            for done in (czslkit.remove_runs(runs, config_ids=["44136fa3"], methods=["csp"]), czslkit.prune_runs(runs)):
                assert not done.removed and f"a process holds {folder / '.lock'}" in done.kept[0]
            assert {*before} <= {*runs.rglob("*")}
    assert len(czslkit.prune_runs(runs).removed) == 1


def no_service(*_: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("replaced", [("fcntl.flock", no_service), ("czslkit.locks.fcntl", None)])
def test_an_emptied_cell_keeps_no_file_of_any_lock(
    replaced: tuple[str, Any], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs / "demo/csp/seed0-44136fa3/.lock-7-free").touch()
    monkeypatch.setattr(*replaced)
    assert not czslkit.remove_runs(runs, datasets=["demo"]).kept
    assert not (runs / "demo").exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_looking_at_a_cell_leaves_no_lock_in_it(dry_run: bool, runs: Path) -> None:
    for lock in runs.rglob(".lock"):
        lock.unlink()
    before = sorted(runs.rglob("*"))
    czslkit.prune_runs(runs, dry_run=dry_run)
    assert sorted(runs.rglob("*")) == before


def test_a_cell_that_cannot_be_locked_stays_and_the_others_are_cleaned(runs: Path) -> None:
    (runs / "demo/csp/seed0-44136fa3/.lock").unlink()
    (runs / "demo/csp/seed0-44136fa3/.lock").mkdir()
    done = czslkit.remove_runs(runs, datasets=["demo"])
    assert names(runs) == {CLOSED, OPEN, TRAINED, OTHER}
    assert all("seed0-44136fa3/.lock cannot be locked" in line for line in done.kept)


@pytest.mark.parametrize("name", ["last.safetensors", "method.json"])
def test_a_pipe_in_place_of_a_file_of_a_training_is_not_opened(name: str, runs: Path) -> None:
    training = runs / "demo/csp/seed0-44136fa3/training"
    (training / name).unlink()
    os.mkfifo(training / name)
    (found,) = (item for item in czslkit.list_runs(runs) if item.what == "training")
    assert found.keys == ("k1",) and training / name not in found.files
    assert not czslkit.prune_runs(runs).removed


def test_the_folder_comes_before_the_action(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, missing in ((["list", str(runs)], "invalid choice"), ([str(runs)], "are required: list|remove|prune")):
        with pytest.raises(SystemExit, match="2"):
            main(["runs", *argv])
        shown = capsys.readouterr().err
        assert "usage: czslkit runs [-h] RUNS list|remove|prune ..." in shown and missing in shown


def test_names_are_printed_on_one_line_without_escapes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "demo").rename(runs / "de\x1b[31m\nmo")
    assert main(["runs", str(runs), "list"]) == 0
    with pytest.raises(ConfigError, match=r"has no dataset demo\. Known: cgqa, de mo"):
        czslkit.remove_runs(runs, datasets=["demo"])
    assert main(["runs", str(runs), "remove", "--methods", "csp"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\nmo" not in shown and "removed: csp on de mo" in shown
