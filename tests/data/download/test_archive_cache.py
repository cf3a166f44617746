"""The cache of archives, tested through ``czslkit.download``."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from czslkit.data.loading import load_dataset
from czslkit.errors import DataError

SPLITS, MIT = "compositional_split_natural.tar.gz", "release_dataset.zip"
UT, CGQA = "ut-zap50k-images.zip", "cgqa.zip"
Get = Callable[..., tuple[Path, ...]]
Read = Callable[[Path], dict[str, bytes]]
Names = Callable[[Path], list[str]]
Pack = Callable[[Mapping[str, bytes]], bytes]


@pytest.fixture
def shop(full_shop: Any) -> Any:
    return full_shop


def test_archives_can_be_kept(tmp_path: Path, shop: Any, get: Get, archives_in: Names) -> None:
    get(["mit-states"], keep=True)
    assert archives_in(tmp_path) == [SPLITS, MIT]


def test_mirrors_are_tried_before_the_other_sources(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get
) -> None:
    shop.files[f"mine/{MIT}"] = published[MIT]
    get("mit-states", mirror=f"{shop.url}/mine/")
    assert [name for name, _ in shop.requests] == [f"mine/{SPLITS}", f"official/{SPLITS}", f"mine/{MIT}"]


def test_a_partial_download_is_resumed_from_the_source_that_began_it(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get
) -> None:
    shop.answers = {
        f"official/{CGQA}": [shop.fail(404), shop.fail(404)],
        f"hub/{CGQA}": [shop.serve(stop=1000), shop.fail(403)],
    }
    with pytest.raises(DataError, match="HTTP 403"):
        get("cgqa")
    shop.requests.clear()
    get("cgqa")
    assert [(name, headers["Range"]) for name, headers in shop.requests] == [(f"hub/{CGQA}", "bytes=1000-")]


def hostile_splits(entry: Any, tarred: Pack) -> bytes:
    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, ("/tmp/czslkit-was-here",)

    if entry == "code":
        return tarred({"ut-zap50k/metadata_compositional-split-natural.t7": pickle.dumps(Runs())})
    buffer = io.BytesIO()
    torch.save([{"image": entry, "_image": "Shoes/1.jpg", "attr": "a", "obj": "b", "set": "train"}], buffer)
    return tarred({"ut-zap50k/metadata_compositional-split-natural.t7": buffer.getvalue()})


def flawed(published: dict[str, bytes], zipped: Pack, tarred: Pack) -> dict[str, tuple[str, bytes, str]]:
    """For each kind of unusable archive: the archive that it replaces, its bytes and the expected reason."""
    whole = published[CGQA]
    cut = bytearray(whole)
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        info = next(info for info in file.infolist() if info.filename.endswith(".jpg"))
    cut[info.header_offset + 200] ^= 0xFF
    return {
        "page": (CGQA, b"<html>", "the file is not a .zip archive: it starts with b'<html>'"),
        "part": (CGQA, whole[:-1000], "the archive is incomplete or damaged"),
        "bits": (CGQA, bytes(cut), "' is damaged: BadZipFile: Bad CRC-32"),
        "other": (CGQA, zipped({"dogs/1.jpg": b"1"}), "the archive has none of the needed files"),
        "outside": (CGQA, zipped({"cgqa/../../../evil": b"1"}), "leads out of the folder"),
        "twice": (
            CGQA,
            zipped({"cgqa/images/1.jpg": b"1", "v2/cgqa/images/1.jpg": b"1"}),
            "would overwrite another member, at '1.jpg'",
        ),
        "code": (SPLITS, hostile_splits("code", tarred), "is refused, and nothing in it was run"),
    }


@pytest.mark.parametrize("kind", ["page", "part", "bits", "other", "outside", "twice", "code"])
def test_an_unusable_archive_is_put_aside_and_the_next_source_tried(
    tmp_path: Path,
    shop: Any,
    published: dict[str, bytes],
    get: Get,
    kind: str,
    zipped: Pack,
    tarred: Pack,
    below: Read,
) -> None:
    file, content, reason = flawed(published, zipped, tarred)[kind]
    name = "cgqa" if file == CGQA else "ut-zappos"
    shop.files[f"official/{file}"] = content
    good = shop.files.pop(f"hub/{file}")
    with pytest.raises(DataError, match=f"{shop.url}/official/{file}: .*{re.escape(reason)}"):
        get(name)
    assert not (tmp_path / name).exists()
    assert not (tmp_path / f".{name}.download").exists() or not below(tmp_path / f".{name}.download")
    assert not Path("/tmp/czslkit-was-here").exists()
    assert (tmp_path / ".downloads" / f"{file}.refused").read_bytes() == content
    shop.files[f"hub/{file}"] = good
    get(name)
    assert load_dataset(name, tmp_path)


def test_metadata_cannot_place_images_outside_the_dataset(
    tmp_path: Path, shop: Any, get: Get, zipped: Pack, tarred: Pack
) -> None:
    for shelf in ("official", "hub"):
        shop.files[f"{shelf}/{SPLITS}"] = hostile_splits("../../../evil.jpg", tarred)
        shop.files[f"{shelf}/{UT}"] = zipped({"ut-zap50k-images/Shoes/1.jpg": b"1"})
    with pytest.raises(DataError, match=r"the path 'images/\.\./\.\./\.\./evil.jpg' leads out of the folder"):
        get("ut-zappos")
    assert not [*tmp_path.parent.glob("evil.jpg"), *tmp_path.rglob("evil.jpg")]


def test_an_unusable_archive_in_the_folder_is_put_aside(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get
) -> None:
    (tmp_path / ".downloads").mkdir()
    own = tmp_path / ".downloads" / CGQA
    own.write_bytes(b"nothing")
    get("cgqa")
    assert (tmp_path / ".downloads" / f"{CGQA}.refused").read_bytes() == b"nothing"
    assert [name for name, _ in shop.requests] == [f"official/{CGQA}"]


def test_a_later_archive_must_have_the_recorded_digest(
    tmp_path: Path,
    shop: Any,
    published: dict[str, bytes],
    get: Get,
    zipped: Pack,
    below: Read,
) -> None:
    get("cgqa")
    note = tmp_path / ".downloads" / f"{CGQA}.json"
    first = json.loads(note.read_text())["sha256"]
    (tmp_path / "cgqa").rename(tmp_path / "first")
    shop.files[f"official/{CGQA}"] = shop.files[f"hub/{CGQA}"] = zipped({"cgqa/images/1.jpg": b"1"})
    with pytest.raises(
        DataError, match=f"the archive has the SHA-256 [0-9a-f]{{64}}, but it had {first} at its first use here"
    ) as info:
        get("cgqa")
    refused = tmp_path / ".downloads" / f"{CGQA}.refused"
    accept = f"to accept it, delete {note} and rename the archive to {CGQA}"
    assert f"The new archive is now {refused}: {accept}" in str(info.value)
    note.unlink()
    refused.rename(refused.with_name(CGQA))
    get("cgqa")
    assert below(tmp_path / "cgqa") == {"images/1.jpg": b"1"}


def test_an_unreadable_digest_file_is_an_error(tmp_path: Path, shop: Any, get: Get) -> None:
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / f"{CGQA}.json").write_text("[]")
    with pytest.raises(DataError, match=f"{CGQA}.json has no SHA-256; delete this file if you trust {CGQA}"):
        get("cgqa")


def test_refused_archives_are_not_overwritten(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get, zipped: Pack
) -> None:
    get("cgqa")
    (tmp_path / "cgqa").rename(tmp_path / "first")
    own, theirs = (zipped({"cgqa/images/1.jpg": content}) for content in (b"own", b"theirs"))
    (tmp_path / ".downloads" / CGQA).write_bytes(own)
    shop.files[f"official/{CGQA}"] = shop.files[f"hub/{CGQA}"] = theirs
    with pytest.raises(DataError, match=f"no source has a usable {CGQA}:") as info:
        get("cgqa")
    aside = [tmp_path / ".downloads" / f"{CGQA}.refused{n}" for n in ("", "-2", "-3")]
    assert [file.read_bytes() for file in aside] == [own, theirs, theirs]
    assert all(f"The new archive is now {file}:" in str(info.value) for file in aside)
