from __future__ import annotations

import io
import json
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from czslkit.data.datasets import DATASETS
from czslkit.data.download import download as module
from czslkit.data.download.download import download
from czslkit.data.download.resumable_http import Web
from czslkit.data.layout import metadata_file
from czslkit.data.loading import load_dataset
from czslkit.data.make.mini import write_mini
from czslkit.data.published import BENCHMARKS
from czslkit.data.sources import GLOVE, GLOVE_MEMBER, RemoteFile, Source
from czslkit.data.splits import Splits
from czslkit.errors import ConfigError, DataError, UnknownNameError

WEB = Web(timeout=2, tries=2, pause=0.001, progress=False)
SPLITS, MIT = "compositional_split_natural.tar.gz", "release_dataset.zip"
UT, CGQA = "ut-zap50k-images.zip", "cgqa.zip"
Get = Callable[..., tuple[Path, ...]]


@pytest.fixture(scope="module")
def minis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small replicas of the three datasets, as their archives unpack by hand."""
    root = tmp_path_factory.mktemp("minis")
    for name in BENCHMARKS:
        write_mini(name, root)
    return root


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def below(folder: Path) -> dict[str, bytes]:
    """The content of every file that is not hidden, by its path."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def published(minis: Path) -> dict[str, bytes]:
    """Archives in the shape of the published ones, with what they hold beside what is needed."""
    mit, ut, cgqa = (below(minis / name) for name in BENCHMARKS)
    entries = torch.load(metadata_file(minis / "ut-zappos"), weights_only=True)
    shoes = {f"ut-zap50k-images/{entry['_image']}": ut[f"images/{entry['image']}"] for entry in entries}
    return {
        SPLITS: tarred(
            {f"mit-states/{name}": content for name, content in mit.items() if not name.startswith("images")}
            | {f"ut-zap50k/{name}": content for name, content in ut.items() if not name.startswith("images")}
            | {"ut-zap50k/compositional-split/train_pairs.txt": b"older", "README": b"!"}
        ),
        MIT: zipped(
            {f"release_dataset/{k.replace('_', ' ')}": v for k, v in mit.items() if k.startswith("images")}
            | {"release_dataset/images/.DS_Store": b"!", "release_dataset/meta/adj_ants.csv": b"!"}
        ),
        UT: zipped(shoes | {"ut-zap50k-images/Boots/Knee High/Maker/1.1.jpg": b"!", "README": b"!"}),
        CGQA: zipped({f"cgqa/{name}": content for name, content in cgqa.items()} | {"cgqa/notes.txt": b"!"}),
    }


@pytest.fixture
def shop(shop: Any, published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Any:
    """All archives at their addresses, of which each has two: ``/official/`` and ``/hub/``."""
    for name, content in published.items():
        shop.files |= {f"official/{name}": content, f"hub/{name}": content}
    for name in BENCHMARKS:
        monkeypatch.setattr(
            DATASETS[name],
            "sources",
            tuple(replace(source, file=here(shop, source.file)) for source in DATASETS[name].sources),
        )
    monkeypatch.setattr(module, "GLOVE", here(shop, GLOVE))
    return shop


def here(shop: Any, file: Any) -> Any:
    return replace(file, urls=tuple(f"{shop.url}/{shelf}/{file.name}" for shelf in ("official", "hub")))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def get(tmp_path: Path, said: list[str]) -> Get:
    def call(names: Any, **options: Any) -> tuple[Path, ...]:
        return download(names, tmp_path, web=WEB, log=said.append, **options)

    return call


def archives_in(root: Path) -> list[str]:
    return sorted(file.name for file in (root / ".downloads").glob("[!.]*") if file.suffix != ".json")


def leftovers(root: Path) -> list[str]:
    """Hidden folders below ``root``, but that of the archives."""
    return [each.name for each in root.iterdir() if each.is_dir() and each.name[0] == "." and each.name != ".downloads"]


def facts(data: Splits) -> Any:
    """All that a loaded dataset says, without where it lies."""
    splits = [
        ([path.relative_to(data.root) for path in each.paths], *(t.tolist() for t in (each.attr, each.obj, each.pairs)))
        for each in (data.train, data.val, data.test)
    ]
    return data.name, data.space.attrs, data.space.objs, data.space.pairs.tolist(), splits, data.skipped


def test_what_is_downloaded_is_what_unpacking_by_hand_gives(tmp_path: Path, minis: Path, shop: Any, get: Get) -> None:
    assert get("all") == tuple(tmp_path / name for name in BENCHMARKS)
    for name in BENCHMARKS:
        data, expected = load_dataset(name, tmp_path), load_dataset(name, minis)
        assert facts(data) == facts(expected)
        assert below(tmp_path / name) == below(minis / name)
        assert data.fingerprint == expected.fingerprint
    assert [name for name, _ in shop.requests] == [f"official/{name}" for name in (SPLITS, MIT, UT, CGQA)]
    assert archives_in(tmp_path) == leftovers(tmp_path) == []


def test_an_archive_of_two_datasets_is_fetched_again_where_only_one_was_asked_for(
    tmp_path: Path, shop: Any, get: Get
) -> None:
    get("mit-states")
    assert archives_in(tmp_path) == []
    assert get("ut-zap50k") == (tmp_path / "ut-zappos",)
    assert [name for name, _ in shop.requests].count(f"official/{SPLITS}") == 2


def test_what_is_there_is_left_as_it_is(tmp_path: Path, shop: Any, get: Get) -> None:
    write_mini("ut-zap50k", tmp_path)
    before = below(tmp_path)
    assert get("ut-zappos") == (tmp_path / "ut-zap50k",)
    assert below(tmp_path) == before
    assert shop.requests == []


def test_a_folder_that_is_not_complete_is_an_error_and_the_others_are_had(tmp_path: Path, shop: Any, get: Get) -> None:
    (tmp_path / "mit-states" / "images").mkdir(parents=True)
    with pytest.raises(
        DataError, match=f"^mit-states: {tmp_path}/mit-states is not a complete dataset: .* Move that folder"
    ):
        get(["mit-states", "cgqa"])
    assert load_dataset("cgqa", tmp_path)


def test_archives_can_be_kept(tmp_path: Path, shop: Any, get: Get) -> None:
    get(["mit-states"], keep=True)
    assert archives_in(tmp_path) == [SPLITS, MIT]


def test_a_dataset_may_take_twice_from_one_archive_and_the_same_folder_from_two(
    tmp_path: Path, shop: Any, get: Get, monkeypatch: pytest.MonkeyPatch
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


def test_a_dataset_without_archives_is_made(tmp_path: Path, get: Get, monkeypatch: Any) -> None:
    monkeypatch.setattr(DATASETS["demo"], "make", lambda self, folder: folder.mkdir())
    assert get("demo") == (tmp_path / "demo",)


def test_a_name_that_nobody_knows_is_an_error_before_anything_is_fetched(shop: Any, get: Get) -> None:
    with pytest.raises(UnknownNameError, match="no dataset named 'mit'"):
        get(["cgqa", "mit"])
    assert shop.requests == []


def test_a_mirror_comes_first_and_the_others_after_it(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get
) -> None:
    shop.files[f"mine/{MIT}"] = published[MIT]
    get("mit-states", mirror=f"{shop.url}/mine/")
    assert [name for name, _ in shop.requests] == [f"mine/{SPLITS}", f"official/{SPLITS}", f"mine/{MIT}"]


def test_a_file_that_one_source_began_is_gone_on_with_there(
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


@pytest.mark.parametrize("mirror", ["data", "file:///data", "ftp://host/data", "https://"])
def test_a_mirror_has_to_be_a_url_of_the_web(get: Get, mirror: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"the mirror is {mirror!r}, expected a URL")):
        get("cgqa", mirror=mirror)


def test_where_no_source_works_one_message_says_why_and_what_to_do(tmp_path: Path, shop: Any, get: Get) -> None:
    shop.files.clear()
    shop.answers = {f"official/{SPLITS}": [shop.page], f"hub/{MIT}": [shop.fail(500)] * 2}
    with pytest.raises(DataError) as info:
        get(["mit-states", "cgqa"])
    said = str(info.value)
    for line in (
        f"mit-states: {SPLITS} could not be had:",
        f"  {shop.url}/official/{SPLITS}: it is no .tar.gz archive: it starts with b'<!DOCTYPE html>",
        f"  {shop.url}/hub/{SPLITS}: HTTP 404 Not Found",
        f"If you have it by other means, put it there as {tmp_path}/.downloads/{SPLITS}, and run the command again.",
        f"{MIT} could not be had:",
        f"  {shop.url}/hub/{MIT}: HTTP 500 Internal Server Error (after 2 attempts; 0.0 kB are kept)",
        f"cgqa: {CGQA} could not be had:",
    ):
        assert line in said
    assert not [name for name in BENCHMARKS if (tmp_path / name).exists()]


def test_what_can_be_had_is_kept_where_something_before_it_cannot(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get
) -> None:
    for shelf in ("official", "hub"):
        del shop.files[f"{shelf}/{SPLITS}"]
    with pytest.raises(DataError, match=f"{SPLITS} could not be had"):
        get("ut-zappos")
    assert archives_in(tmp_path) == [UT]
    (tmp_path / ".downloads" / SPLITS).write_bytes(published[SPLITS])
    shop.requests.clear()
    get("ut-zappos")
    assert load_dataset("ut-zappos", tmp_path)
    assert shop.requests == []


def hostile_splits(entry: Any) -> bytes:
    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, ("/tmp/czslkit-was-here",)

    if entry == "code":
        return tarred({"ut-zap50k/metadata_compositional-split-natural.t7": pickle.dumps(Runs())})
    buffer = io.BytesIO()
    torch.save([{"image": entry, "_image": "Shoes/1.jpg", "attr": "a", "obj": "b", "set": "train"}], buffer)
    return tarred({"ut-zap50k/metadata_compositional-split-natural.t7": buffer.getvalue()})


def flawed(published: dict[str, bytes]) -> dict[str, tuple[str, bytes, str]]:
    """Archives that cannot be used: which, in whose place, and the reason that is given."""
    whole = published[CGQA]
    cut = bytearray(whole)
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        info = next(info for info in file.infolist() if info.filename.endswith(".jpg"))
    cut[info.header_offset + 200] ^= 0xFF
    return {
        "page": (CGQA, b"<html>", "it is no .zip archive: it starts with b'<html>'"),
        "part": (CGQA, whole[:-1000], "it is cut short or damaged"),
        "bits": (CGQA, bytes(cut), "in it is damaged"),
        "other": (CGQA, zipped({"dogs/1.jpg": b"1"}), "it holds nothing of what is needed"),
        "outside": (CGQA, zipped({"cgqa/../../../evil": b"1"}), "leads out of the folder"),
        "twice": (CGQA, zipped({"cgqa/images/1.jpg": b"1", "v2/cgqa/images/1.jpg": b"1"}), "another member did"),
        "code": (SPLITS, hostile_splits("code"), "is refused, and nothing in it was run"),
    }


@pytest.mark.parametrize("kind", ["page", "part", "bits", "other", "outside", "twice", "code"])
def test_an_archive_that_cannot_be_used_is_put_aside_and_the_next_source_tried(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get, kind: str
) -> None:
    file, content, reason = flawed(published)[kind]
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


def test_metadata_does_not_send_images_elsewhere(tmp_path: Path, shop: Any, get: Get) -> None:
    for shelf in ("official", "hub"):
        shop.files[f"{shelf}/{SPLITS}"] = hostile_splits("../../../evil.jpg")
        shop.files[f"{shelf}/{UT}"] = zipped({"ut-zap50k-images/Shoes/1.jpg": b"1"})
    with pytest.raises(DataError, match=r"'images/\.\./\.\./\.\./evil.jpg' in it leads out of the folder"):
        get("ut-zappos")
    assert not [*tmp_path.parent.glob("evil.jpg"), *tmp_path.rglob("evil.jpg")]


def test_an_archive_of_ones_own_is_used_and_a_bad_one_put_aside(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get
) -> None:
    (tmp_path / ".downloads").mkdir()
    own = tmp_path / ".downloads" / CGQA
    own.write_bytes(b"nothing")
    get("cgqa")
    assert (tmp_path / ".downloads" / f"{CGQA}.refused").read_bytes() == b"nothing"
    assert [name for name, _ in shop.requests] == [f"official/{CGQA}"]


def test_an_archive_has_to_be_the_one_that_was_used_first(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get
) -> None:
    get("cgqa")
    note = tmp_path / ".downloads" / f"{CGQA}.json"
    first = json.loads(note.read_text())["sha256"]
    (tmp_path / "cgqa").rename(tmp_path / "first")
    shop.files[f"official/{CGQA}"] = shop.files[f"hub/{CGQA}"] = zipped({"cgqa/images/1.jpg": b"1"})
    with pytest.raises(DataError, match=f"its SHA-256 is [0-9a-f]{{64}}, and was {first} when it was first") as info:
        get("cgqa")
    refused = tmp_path / ".downloads" / f"{CGQA}.refused"
    assert f"it is now {refused}. If the change is right, delete {note} and rename it to {CGQA}" in str(info.value)
    note.unlink()
    refused.rename(refused.with_name(CGQA))
    get("cgqa")
    assert below(tmp_path / "cgqa") == {"images/1.jpg": b"1"}


def test_a_note_that_cannot_be_read_is_an_error(tmp_path: Path, shop: Any, get: Get) -> None:
    (tmp_path / ".downloads").mkdir()
    (tmp_path / ".downloads" / f"{CGQA}.json").write_text("[]")
    with pytest.raises(DataError, match=f"{CGQA}.json holds no SHA-256; delete it if its archive can be trusted"):
        get("cgqa")


def test_word_vectors_come_only_when_asked_for(
    tmp_path: Path, shop: Any, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped({"glove.6B.50d.txt": b"the 0.1\n", GLOVE_MEMBER: b"the 0.1 0.2\n"})
    shop.files["official/glove.6B.zip"] = b"<html>"
    shop.files["hub/glove.6B.zip"] = content
    with pytest.raises(
        DataError, match=f"GloVe: glove.6B.zip .*\n.*\n.*it has {len(content)} bytes, expected 862,182,613"
    ):
        get((), glove=True)
    monkeypatch.setattr(module, "GLOVE", replace(module.GLOVE, size=len(content)))
    with pytest.raises(DataError, match=r"its SHA-256 is [0-9a-f]{64}, expected 617afb2f\*cbcf2fb"):
        get((), glove=True)
    monkeypatch.setattr(module, "GLOVE", replace(module.GLOVE, sha256="*"))
    assert get((), glove=True) == (tmp_path / GLOVE_MEMBER,)
    assert (tmp_path / GLOVE_MEMBER).read_bytes() == b"the 0.1 0.2\n"
    shop.requests.clear()
    get((), glove=True)
    assert shop.requests == leftovers(tmp_path) == archives_in(tmp_path)[:-1] == []


def test_archives_that_are_refused_are_all_kept(
    tmp_path: Path, shop: Any, published: dict[str, bytes], get: Get
) -> None:
    get("cgqa")
    (tmp_path / "cgqa").rename(tmp_path / "first")
    own, theirs = (zipped({"cgqa/images/1.jpg": content}) for content in (b"own", b"theirs"))
    (tmp_path / ".downloads" / CGQA).write_bytes(own)
    shop.files[f"official/{CGQA}"] = shop.files[f"hub/{CGQA}"] = theirs
    with pytest.raises(DataError, match="could not be had") as info:
        get("cgqa")
    aside = [tmp_path / ".downloads" / f"{CGQA}.refused{n}" for n in ("", "-2", "-3")]
    assert [file.read_bytes() for file in aside] == [own, theirs, theirs]
    assert all(f"it is now {file}." in str(info.value) for file in aside)
