from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from czslkit.data import image_check
from czslkit.data.image_check import check_images
from czslkit.data.loading import load_dataset
from czslkit.data.splits import Splits
from czslkit.errors import DataError
from czslkit.processes import Process


def test_images_that_cannot_be_read_are_counted_and_named(splits: Splits, tmp_path: Path) -> None:
    truncated, empty = splits.train.paths[0], splits.test.paths[1]
    truncated.write_bytes(truncated.read_bytes()[:-600])
    empty.write_bytes(b"")
    with pytest.raises(DataError, match="2 of 14 images of pets cannot be read:") as info:
        check_images(splits, workers=2, cache=tmp_path / "cache")
    assert f"{truncated} is not a readable image: OSError: " in str(info.value)
    assert str(empty) in str(info.value)
    assert not [*(tmp_path / "cache").glob("*.json")]


def test_of_many_unreadable_images_ten_are_named(splits: Splits) -> None:
    for path in (*splits.train.paths, *splits.val.paths, *splits.test.paths):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="14 of 14 images of pets cannot be read") as info:
        check_images(splits)
    assert str(info.value).count("is not a readable image") == 10
    assert str(info.value).endswith("and 4 more")


def test_images_found_readable_are_not_read_again(
    splits: Splits, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(image_check, "open_rgb", read.append)
    check_images(splits, cache=tmp_path / "cache")
    check_images(splits, cache=tmp_path / "cache")
    assert len(read) == len(set(read)) == 14
    [stamp] = (tmp_path / "cache").glob("*.json")
    assert json.loads(stamp.read_text()) == {"dataset": "pets", "fingerprint": splits.fingerprint, "images": 14}
    splits.train.paths[0].write_bytes(b"another size")
    check_images(load_dataset("pets", pets.parent), cache=tmp_path / "cache")
    assert len(read) == 28


def test_a_record_that_cannot_be_written_is_a_line_and_no_error(splits: Splits, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    lines: list[str] = []
    check_images(splits, cache=tmp_path / "cache" / "checked", log=lines.append)
    (line,) = lines
    assert line.startswith("the images of pets are readable, but the record of it cannot be written: ")
    assert str(tmp_path / "cache") in line


def test_what_a_killed_check_left_is_removed(splits: Splits, tmp_path: Path) -> None:
    gone = replace(Process.current(), started="1")
    left = tmp_path / f".images.json.{gone.space}-{gone.pid}-{gone.started}-01234567.tmp"
    left.touch()
    check_images(splits, cache=tmp_path)
    assert not left.exists()


def test_several_processes_check_the_same_images_once(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def slowly(path: Path) -> None:
        read.append(path)
        time.sleep(0.02)

    monkeypatch.setattr(image_check, "open_rgb", slowly)
    lines: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: check_images(splits, workers=1, cache=tmp_path, log=lines.append), range(3)))
    assert len(read) == 14
    assert [line.partition(":")[0] for line in lines] == [
        f"waiting for the lock {tmp_path / f'.images-{splits.fingerprint}.lock'}"
    ] * 2
