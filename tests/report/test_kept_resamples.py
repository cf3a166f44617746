"""Resampled metrics are kept beside the results: made once, checked, made again, never taken for a result."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from czslkit.metrics import bootstrap
from czslkit.report.frame import results, results_frame
from czslkit.report.kept_resamples import KeptResamples, keep, read_kept
from czslkit.report.table import Table
from czslkit.result_store import Store

from .many_cells import SHAPES, write_many_cells

VALUES = np.linspace(0.1, 0.9, bootstrap.RESAMPLES)
KEPT = KeptResamples("0123", {"auc": VALUES, "best_hm": VALUES / 3}, {"auc": (0.12, 0.88), "best_hm": (0.1, 1 / 3)})


@pytest.fixture
def resampled(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the computations of resampled metrics."""
    counted: Counter[str] = Counter()
    compute = bootstrap.resampled_metrics

    def counting(*args: Any) -> Any:
        counted["files"] += 1
        return compute(*args)

    monkeypatch.setattr(bootstrap, "resampled_metrics", counting)
    return counted


def table_of(store: Store) -> Table:
    return Table(store.results(), attached=store.attached, folder=store.folder)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_second_table_is_the_first_one_and_resamples_nothing(
    tmp_path: Path, shape: str, resampled: Counter[str]
) -> None:
    write_many_cells(tmp_path, 24, shape)
    store = Store(tmp_path)
    plain = Table(store.results(), attached=store.attached)
    done = sum(result["status"] == "done" for result in plain.results)
    assert resampled["files"] == done
    first = table_of(store)
    assert resampled["files"] == 2 * done
    second = table_of(store)
    assert resampled["files"] == 2 * done
    for kind in ("text", "markdown", "csv", "json", "html"):
        assert plain.render(kind) == first.render(kind) == second.render(kind)
    assert len(store.results()) == 24 and store.problems == []


def test_frames_keep_and_read_the_same_numbers(tmp_path: Path, resampled: Counter[str]) -> None:
    write_many_cells(tmp_path, 4)
    first, second = results(tmp_path), results(tmp_path)
    assert resampled["files"] == 4
    assert first.equals(second) and first["auc_low"].notna().all()
    store = Store(tmp_path)
    assert results_frame(store.results(), store.attached).equals(first)


def test_a_read_only_folder_has_its_table(tmp_path: Path, resampled: Counter[str]) -> None:
    write_many_cells(tmp_path, 2)
    folders = [path.parent for path in tmp_path.rglob("closed.json")]
    for path in tmp_path.rglob("closed.json"):
        path.with_suffix(".resamples").mkdir()  # nothing can be written there, not even by root
    store = Store(tmp_path)
    assert table_of(store).to_text() == table_of(store).to_text()
    assert resampled["files"] == 4
    assert [path.name for folder in folders for path in folder.iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.parametrize("position", [0, 40, 70, 200, 400, 3000, -1])
def test_a_damaged_byte_is_noticed_and_the_file_made_again(
    tmp_path: Path, position: int, resampled: Counter[str]
) -> None:
    write_many_cells(tmp_path, 1)
    store = Store(tmp_path)
    before = table_of(store).to_csv()
    (file,) = tmp_path.rglob("closed.resamples")
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    assert table_of(store).to_csv() == before
    assert resampled["files"] == 2
    assert table_of(store).to_csv() == before
    assert resampled["files"] == 2


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * (2 << 20), "cut"])
def test_another_file_is_no_kept_file(tmp_path: Path, content: bytes | str) -> None:
    file = tmp_path / "closed.resamples"
    keep(file, {"bins": "exact"}, KEPT)
    file.write_bytes(file.read_bytes()[:-8] if isinstance(content, str) else content)
    assert read_kept(file, {"bins": "exact"}) is None


@pytest.mark.parametrize(
    "head", [b"[]", b"{}", b"3", b"[" * 100_000, b'{"made_from": 1}', b'{"made_from": {}, "intervals": []}', b"\xff"]
)
def test_a_file_with_a_right_digest_and_other_content_is_no_kept_file(tmp_path: Path, head: bytes) -> None:
    import hashlib

    rest = head + b"\n" + VALUES.tobytes()
    file = tmp_path / "closed.resamples"
    file.write_bytes(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
    assert read_kept(file, {}) is None


def test_what_is_read_is_what_was_kept(tmp_path: Path) -> None:
    file = tmp_path / "closed.resamples"
    keep(file, {"bins": "exact"}, KEPT)
    found = read_kept(file, {"bins": "exact"})
    assert found is not None
    assert (found.images, found.intervals) == (KEPT.images, KEPT.intervals)
    assert all(np.array_equal(found.values[name], KEPT.values[name]) for name in ("auc", "best_hm"))


@pytest.mark.parametrize(("name", "value"), [("RESAMPLES", 500), ("SEED", 1), ("LEVEL", 0.9)])
def test_other_resamples_are_made_again(
    tmp_path: Path, name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from czslkit.report import kept_resamples

    file = tmp_path / "closed.resamples"
    keep(file, {"bins": "exact"}, KEPT)
    assert read_kept(file, {"bins": "original"}) is None
    assert read_kept(file, {"bins": "exact"}) is not None
    monkeypatch.setattr(bootstrap, name, value)
    kept_resamples._code.cache_clear()
    assert read_kept(file, {"bins": "exact"}) is None
    monkeypatch.undo()
    kept_resamples._code.cache_clear()


def test_a_changed_file_of_numbers_per_image_is_told_although_its_metrics_are_kept(tmp_path: Path) -> None:
    write_many_cells(tmp_path, 200)
    store = Store(tmp_path)
    assert table_of(store).significance.notes == ()
    file = next(tmp_path.glob("data0/method0/seed0-*/closed.images.npz"))
    file.write_bytes(file.read_bytes() + b"x")
    (note,) = table_of(store).significance.notes
    assert f"method0 on data0 (closed) is not compared with the best: {file} is not the file that was written" in note


def test_a_new_result_removes_what_was_kept_of_the_old_one(tmp_path: Path) -> None:
    write_many_cells(tmp_path, 2)
    store = Store(tmp_path)
    table_of(store)
    first, second = store.results()
    kept = [store.path(result["cell"]).with_suffix(".resamples") for result in (first, second)]
    assert [path.exists() for path in kept] == [True, True]
    store.put({**first, "metrics": {**first["metrics"], "auc": 0.5}})
    assert [path.exists() for path in kept] == [False, True]


def test_a_table_of_kept_metrics_does_not_import_torch(tmp_path: Path) -> None:
    write_many_cells(tmp_path, 20)
    script = (
        "import sys; from czslkit.cli import main; assert main(['table', sys.argv[1]]) == 0;"
        "assert 'torch' not in sys.modules"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True, text=True).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1] and "method0" in outputs[0]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_second_table_of_2000_cells_takes_less_than_3_seconds(tmp_path: Path, shape: str) -> None:
    write_many_cells(tmp_path, 2000, shape, images=800)
    command = [sys.executable, "-m", "czslkit", "table", str(tmp_path)]
    for _ in range(2):
        before = os.times()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
    taken = sum(after[2:4]) - sum(before[2:4])  # user and system time of child processes
    assert taken < 3


def test_made_up_cells_are_results_as_the_store_writes_them(tmp_path: Path) -> None:
    write_many_cells(tmp_path / "made", 3, "failed")
    store = Store(tmp_path / "made")
    for result in store.results():
        again = Store(tmp_path / "again")
        again.put(result)
        assert again.get(result["cell"]) == result
