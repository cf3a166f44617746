from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from czslkit.data.datasets import DATASETS
from czslkit.data.loading import load_dataset
from czslkit.data.make.mini import write_mini
from czslkit.data.published import BENCHMARKS
from czslkit.data.removal import WRITTEN
from czslkit.data.splits import Splits
from czslkit.errors import ConfigError, DataError, UnknownNameError

SPLITS, MIT = "compositional_split_natural.tar.gz", "release_dataset.zip"
UT, CGQA = "ut-zap50k-images.zip", "cgqa.zip"
Get = Callable[..., tuple[Path, ...]]
Read = Callable[[Path], dict[str, bytes]]
Names = Callable[[Path], list[str]]


@pytest.fixture
def shop(full_shop: Any) -> Any:
    return full_shop


def facts(data: Splits) -> Any:
    """All values of a loaded dataset, without its folder."""
    splits = [
        ([path.relative_to(data.root) for path in each.paths], *(t.tolist() for t in (each.attr, each.obj, each.pairs)))
        for each in (data.train, data.val, data.test)
    ]
    return data.name, data.space.attrs, data.space.objs, data.space.pairs.tolist(), splits, data.skipped


def test_a_download_gives_the_same_files_as_unpacking_by_hand(
    tmp_path: Path,
    minis: Path,
    shop: Any,
    get: Get,
    below: Read,
    archives_in: Names,
    leftovers: Names,
) -> None:
    assert get("all") == tuple(tmp_path / name for name in BENCHMARKS)
    for name in BENCHMARKS:
        data, expected = load_dataset(name, tmp_path), load_dataset(name, minis)
        assert facts(data) == facts(expected)
        by_hand = below(minis / name)
        del by_hand[WRITTEN]
        assert below(tmp_path / name) == by_hand
        assert data.fingerprint == expected.fingerprint
    assert [name for name, _ in shop.requests] == [f"official/{name}" for name in (SPLITS, MIT, UT, CGQA)]
    assert archives_in(tmp_path) == leftovers(tmp_path) == []


def test_a_shared_archive_is_downloaded_again_if_only_one_dataset_was_asked_for(
    tmp_path: Path, shop: Any, get: Get, archives_in: Names
) -> None:
    get("mit-states")
    assert archives_in(tmp_path) == []
    assert get("ut-zap50k") == (tmp_path / "ut-zappos",)
    assert [name for name, _ in shop.requests].count(f"official/{SPLITS}") == 2


def test_a_dataset_that_exists_is_not_changed(tmp_path: Path, shop: Any, get: Get, below: Read) -> None:
    write_mini("ut-zap50k", tmp_path)
    before = below(tmp_path)
    assert get("ut-zappos") == (tmp_path / "ut-zap50k",)
    assert below(tmp_path) == before
    assert shop.requests == []


def test_an_incomplete_folder_is_an_error_and_other_datasets_are_downloaded(
    tmp_path: Path, shop: Any, get: Get
) -> None:
    (tmp_path / "mit-states" / "images").mkdir(parents=True)
    with pytest.raises(
        DataError,
        match=f"^mit-states: {tmp_path}/mit-states is not a complete dataset: .* Move that folder away and run",
    ):
        get(["mit-states", "cgqa"])
    assert load_dataset("cgqa", tmp_path)


def test_a_dataset_without_archives_is_made(tmp_path: Path, get: Get, monkeypatch: Any) -> None:
    monkeypatch.setattr(DATASETS["demo"], "make", lambda self, folder: folder.mkdir())
    assert get("demo") == (tmp_path / "demo",)


def test_an_unknown_name_is_an_error_before_any_request(shop: Any, get: Get) -> None:
    with pytest.raises(UnknownNameError, match="no dataset named 'mit'"):
        get(["cgqa", "mit"])
    assert shop.requests == []


@pytest.mark.parametrize("mirror", ["data", "file:///data", "ftp://host/data", "https://"])
def test_a_mirror_must_be_a_web_url(get: Get, mirror: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"the mirror is {mirror!r}, expected a URL")):
        get("cgqa", mirror=mirror)


def test_if_no_source_works_one_message_says_why_and_what_to_do(tmp_path: Path, shop: Any, get: Get) -> None:
    shop.files.clear()
    shop.answers = {f"official/{SPLITS}": [shop.page], f"hub/{MIT}": [shop.fail(500)] * 2}
    with pytest.raises(DataError) as info:
        get(["mit-states", "cgqa"])
    said = str(info.value)
    for line in (
        f"mit-states: no source has a usable {SPLITS}:",
        f"  {shop.url}/official/{SPLITS}: the file is not a .tar.gz archive: it starts with b'<!DOCTYPE html>",
        f"  {shop.url}/hub/{SPLITS}: HTTP 404 Not Found",
        f"If you can get the file in another way, save it as {tmp_path}/.downloads/{SPLITS} and run the command again.",
        f"no source has a usable {MIT}:",
        f"  {shop.url}/hub/{MIT}: HTTP 500 Internal Server Error (2 attempts brought no new bytes; 0.0 kB are kept)",
        f"cgqa: no source has a usable {CGQA}:",
    ):
        assert line in said
    assert not [name for name in BENCHMARKS if (tmp_path / name).exists()]
