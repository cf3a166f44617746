from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from czslkit.data.datasets import DATASETS
from czslkit.data.download import install
from czslkit.data.loading import load_dataset
from czslkit.data.sources import GLOVE_MEMBER, RemoteFile, Source
from czslkit.errors import DataError

SPLITS, UT = "compositional_split_natural.tar.gz", "ut-zap50k-images.zip"
Get = Callable[..., tuple[Path, ...]]
Read = Callable[[Path], dict[str, bytes]]
Names = Callable[[Path], list[str]]
Pack = Callable[[Mapping[str, bytes]], bytes]


@pytest.fixture
def shop(full_shop: Any) -> Any:
    return full_shop


def test_sources_may_share_an_archive_or_a_target_folder(
    tmp_path: Path,
    shop: Any,
    get: Get,
    monkeypatch: pytest.MonkeyPatch,
    zipped: Pack,
    below: Read,
    archives_in: Names,
) -> None:
    shop.files |= {
        "a.zip": zipped({"v1/train/1.jpg": b"1", "v1/test/2.jpg": b"2"}),
        "b.zip": zipped({"train/3.jpg": b"3"}),
    }
    first, second = (RemoteFile(f"{name}.zip", (f"{shop.url}/{name}.zip",)) for name in "ab")
    parts = (Source(first, "train", "images"), Source(first, "test", "images/test"), Source(second, "train", "images"))
    monkeypatch.setattr(DATASETS["cgqa"], "sources", parts)
    get("cgqa")
    assert below(tmp_path / "cgqa") == {"images/1.jpg": b"1", "images/test/2.jpg": b"2", "images/3.jpg": b"3"}
    assert [name for name, _ in shop.requests] == ["a.zip", "b.zip"]
    assert archives_in(tmp_path) == []


def test_later_archives_are_downloaded_and_kept_after_one_fails(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get, archives_in: Names
) -> None:
    for shelf in ("official", "hub"):
        del shop.files[f"{shelf}/{SPLITS}"]
    with pytest.raises(DataError, match=f"no source has a usable {SPLITS}"):
        get("ut-zappos")
    assert archives_in(tmp_path) == [UT]
    (tmp_path / ".downloads" / SPLITS).write_bytes(published[SPLITS])
    shop.requests.clear()
    get("ut-zappos")
    assert load_dataset("ut-zappos", tmp_path)
    assert shop.requests == []


def test_word_vectors_are_downloaded_on_request(
    tmp_path: Path,
    shop: Any,
    get: Get,
    monkeypatch: pytest.MonkeyPatch,
    zipped: Pack,
    archives_in: Names,
    leftovers: Names,
) -> None:
    content = zipped({"glove.6B.50d.txt": b"the 0.1\n", GLOVE_MEMBER: b"the 0.1 0.2\n"})
    shop.files["official/glove.6B.zip"] = b"<html>"
    shop.files["hub/glove.6B.zip"] = content
    with pytest.raises(
        DataError,
        match=f"GloVe: no source has .*\n.*\n.*the file on the server has {len(content)} bytes, expected 862,182,613",
    ):
        get((), glove=True)
    monkeypatch.setattr(install, "GLOVE", replace(install.GLOVE, size=len(content)))
    with pytest.raises(DataError, match=r"the archive has the SHA-256 [0-9a-f]{64}, expected 617afb2f\*cbcf2fb"):
        get((), glove=True)
    monkeypatch.setattr(install, "GLOVE", replace(install.GLOVE, sha256="*"))
    assert get((), glove=True) == (tmp_path / GLOVE_MEMBER,)
    assert (tmp_path / GLOVE_MEMBER).read_bytes() == b"the 0.1 0.2\n"
    shop.requests.clear()
    get((), glove=True)
    assert shop.requests == leftovers(tmp_path) == archives_in(tmp_path)[:-1] == []
