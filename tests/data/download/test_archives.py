from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from czslkit.data.download import archives
from czslkit.data.download.archives import check_archive, unpack
from czslkit.data.sources import Refused

Pack = Callable[[Path, Mapping[str, bytes]], Path]


def everything(name: str) -> list[str]:
    return [name]


def zipped(folder: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "pets.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return folder / "pets.zip"


def tarred(folder: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(folder / "pets.tar.gz", "w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return folder / "pets.tar.gz"


both = pytest.mark.parametrize("pack", [zipped, tarred])


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@both
def test_needed_members_are_written_and_others_are_not(tmp_path: Path, target: Path, pack: Pack) -> None:
    archive = pack(tmp_path, {"wet dog/1.jpg": b"1", "wet dog/2.jpg": b"2", "README": b"?"})
    places = {"wet dog/1.jpg": ["a/1.jpg"], "wet dog/2.jpg": ["b/2.jpg", "c/two.jpg"]}
    check_archive(archive)
    assert unpack(archive, lambda name: places.get(name, []), target) == 2
    assert content(target) == {"a/1.jpg": b"1", "b/2.jpg": b"2", "c/two.jpg": b"2"}


@both
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:evil", "\\\\host\\evil"]
)
def test_a_name_that_leads_out_is_refused_even_if_it_is_not_needed(
    tmp_path: Path, target: Path, pack: Pack, name: str
) -> None:
    archive = pack(tmp_path, {name: b"!"})
    with pytest.raises(Refused, match="leads out of the folder") as info:
        unpack(archive, lambda name: [], target)
    assert str(info.value) == f"the path {name!r} leads out of the folder"
    assert not content(target)


@both
def test_a_destination_that_leads_out_is_refused(tmp_path: Path, target: Path, pack: Pack) -> None:
    with pytest.raises(Refused, match=r"the path '\.\./1\.jpg' leads out of the folder"):
        unpack(pack(tmp_path, {"1.jpg": b""}), lambda name: ["../1.jpg"], target)
    with pytest.raises(Refused, match=r"the path 'a\\x00b' leads out of the folder"):
        unpack(pack(tmp_path, {"1.jpg": b""}), lambda name: ["a\0b"], target)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_in_a_tar_is_refused(tmp_path: Path, target: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as file:
        info = tarfile.TarInfo("images")
        info.type, info.linkname = kind, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(Refused, match="the member 'images' is a link or a device"):
        unpack(tmp_path / "pets.tar.gz", everything, target)
    assert unpack(tmp_path / "pets.tar.gz", lambda name: [], target) == 0
    assert not os.listdir(target)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_link_or_device_in_a_zip_is_refused(tmp_path: Path, target: Path, kind: int) -> None:
    info = zipfile.ZipInfo("images")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as file:
        file.writestr(info, "/etc")
    with pytest.raises(Refused, match="the member 'images' is a link or a device"):
        unpack(tmp_path / "pets.zip", everything, target)
    assert not os.listdir(target)


def test_an_encrypted_member_is_refused(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path, {"1.jpg": b"secret"})
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # the flags, in the directory
    archive.write_bytes(raw)
    with pytest.raises(Refused, match=r"the member '1\.jpg' is encrypted"):
        unpack(archive, everything, target)


@both
def test_too_much_content_is_refused(tmp_path: Path, target: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_EXTRA", 1 << 20)
    archive = pack(tmp_path, {f"{n}": bytes(1 << 20) for n in range(8)})
    allowed = (1 << 20) + 50 * archive.stat().st_size
    with pytest.raises(
        Refused, match=f"the archive has {archive.stat().st_size:,} bytes and unpacks to more than {allowed:,}"
    ):
        unpack(archive, everything, target)
    assert sum(map(len, content(target).values())) <= allowed + (1 << 20)


def test_a_tar_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_EXTRA", 1 << 20)
    with pytest.raises(Refused, match="bytes and unpacks to more than"):
        check_archive(tarred(tmp_path, {"1": bytes(1 << 23)}))


def test_a_wrong_size_in_a_zip_is_refused(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path, {"1.jpg": bytes(1 << 20)})
    raw = bytearray(archive.read_bytes())
    directory = raw.index(b"PK\x01\x02")
    raw[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(raw)
    with pytest.raises(Refused, match=r"the member '1\.jpg' is damaged: BadZipFile"):
        unpack(archive, everything, target)


@both
def test_too_many_members_are_refused(
    tmp_path: Path, target: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(Refused, match="the archive has more than 3 members"):
        unpack(pack(tmp_path, {f"{n}": b"" for n in range(4)}), lambda name: [], target)


@both
def test_two_members_with_one_destination_are_refused(tmp_path: Path, target: Path, pack: Pack) -> None:
    archive = pack(tmp_path, {"1.jpg": b"1", "2.jpg": b"2"})
    with pytest.raises(Refused, match=r"the member '2\.jpg' would overwrite another member, at 'one\.jpg'"):
        unpack(archive, lambda name: ["one.jpg"], target)


@both
def test_a_member_below_another_is_refused(tmp_path: Path, target: Path, pack: Pack) -> None:
    with pytest.raises(Refused, match="the member 'a/b' would overwrite another member, at 'b'"):
        unpack(pack(tmp_path, {"a": b"", "a/b": b""}), everything, target)


def test_a_damaged_member_is_found(tmp_path: Path, target: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as file:
        file.writestr("1.jpg", b"wet dog")
    archive = tmp_path / "pets.zip"
    archive.write_bytes(archive.read_bytes().replace(b"wet dog", b"dry dog", 1))
    check_archive(archive)
    with pytest.raises(Refused, match=r"the member '1\.jpg' is damaged: BadZipFile: Bad CRC-32"):
        unpack(archive, everything, target)


@both
@pytest.mark.parametrize("start", [b"<!DOCTYPE html><title>We have moved</title>", b""])
def test_another_kind_of_file_is_refused(tmp_path: Path, pack: Pack, start: bytes) -> None:
    archive = pack(tmp_path, {})
    archive.write_bytes(start)
    with pytest.raises(
        Refused,
        match=f"the file is not a .{archive.name.partition('.')[2]} archive: it starts with b'{start[:5].decode()}",
    ):
        check_archive(archive)


@both
def test_an_incomplete_archive_is_refused(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path, {"1.jpg": os.urandom(5000)})
    archive.write_bytes(archive.read_bytes()[:4000])
    with pytest.raises(Refused, match="the archive is incomplete or damaged"):
        check_archive(archive)


def test_a_tar_that_ends_too_early_is_refused(tmp_path: Path, target: Path) -> None:
    archive = tarred(tmp_path, {"1.jpg": os.urandom(50_000), "2.jpg": os.urandom(50_000)})
    archive.write_bytes(archive.read_bytes()[:60_000])
    with pytest.raises(Refused, match="damaged"):
        unpack(archive, everything, target)


@pytest.mark.parametrize("name", ["Børn/1.jpg", "cafe\u0301/1.jpg"])
def test_utf_8_names_are_read_without_the_utf_8_flag(tmp_path: Path, target: Path, name: str) -> None:
    plain = "".join(letter if letter.isascii() else "?" * len(letter.encode()) for letter in name)
    archive = zipped(tmp_path, {plain: b"1"})
    archive.write_bytes(archive.read_bytes().replace(plain.encode(), name.encode()))
    unpack(archive, everything, target)
    assert content(target) == {name: b"1"}


def test_names_in_code_page_437_are_read(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path, {"B?rn": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"B?rn", "Bürn".encode("cp437")))
    unpack(archive, everything, target)
    assert content(target) == {"Bürn": b"1"}


def test_the_bytes_of_every_copy_of_a_member_count(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_EXTRA", 1 << 20)
    archive = zipped(tmp_path, {"1.jpg": bytes(1 << 20)})
    with pytest.raises(Refused, match="bytes and unpacks to more than"):
        unpack(archive, lambda name: [f"{n}.jpg" for n in range(40)], target)
