"""Check and unpack archives that may be damaged or hostile: refuse links, outside paths and endless content."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path, PureWindowsPath
from typing import IO

from ...terminal import tracked
from ..sources import Refused

MAX_MEMBERS = 500_000
"""Largest number of members of an archive."""
MAX_GROWTH = 50
"""Largest number of unpacked bytes for each byte of an archive, without ``MAX_EXTRA``."""
MAX_EXTRA = 64 << 20
"""Additional unpacked bytes that every archive may have."""
_READ_BYTES = 1 << 20
_ENCRYPTED, _UTF8 = 1, 1 << 11  # bits of a zip member's flags
_MAGIC = {".zip": b"PK", ".tar.gz": b"\x1f\x8b"}

Member = tuple[str, Callable[[], IO[bytes]]]
"""A member's name, and a function that opens the member."""


def check_archive(archive: Path) -> None:
    """Check, without unpacking, that a file is a complete archive of the kind that its name ends with.

    Raises:
        Refused: the file is of another kind, is incomplete or damaged, or has too much content.
    """
    kind = _archive_kind(archive)
    with archive.open("rb") as file:
        start = file.read(32)
    if not start.startswith(_MAGIC[kind]):
        raise Refused(f"the file is not a {kind} archive: it starts with {start!r}")
    with _refuse_on_error("the archive is incomplete or damaged"):
        if kind == ".zip":
            zipfile.ZipFile(archive).close()
            return
        left = _max_unpacked(archive)
        with gzip.open(archive) as stream:
            while left > 0 and (block := stream.read(_READ_BYTES)):
                left -= len(block)
    if left <= 0:
        raise _too_much_content(archive)


def unpack(archive: Path, destinations: Callable[[str], Sequence[str]], target: Path) -> int:
    """Write the needed members of an archive. The size limit counts unpacked bytes, not the sizes in the archive.

    Args:
        archive: ``.zip`` or ``.tar.gz``.
        destinations: returns the paths below ``target`` to which a member is written, none for an unneeded member.
        target: a folder; its files are never overwritten.

    Returns:
        Number of needed members.

    Raises:
        Refused: the archive is damaged, has too many members or too much content, or a name in it leads out of the
            folder; or a needed member is not an ordinary file, is encrypted, or has the path of another member.
            Members that were already written stay.
        OSError: a file cannot be written.
    """
    needed, left = 0, _max_unpacked(archive)
    for name, open_member in tracked(_members(archive), f"{archive.name}: files unpacked", None):
        _check_inside(name)
        if not (paths := destinations(name)):
            continue
        for path in paths:
            _check_inside(path)
        with _refuse_on_error(f"the member {name!r} is damaged"):
            stream = open_member()
        with stream:
            left -= len(paths) * _copy_member(stream, [target / path for path in paths], name, left // len(paths))
        if left < 0:
            raise _too_much_content(archive)
        needed += 1
    return needed


def _copy_member(stream: IO[bytes], files: Sequence[Path], name: str, limit: int) -> int:
    """Copy a member to each of ``files`` and return the number of its bytes; stop after more than ``limit`` bytes."""
    size = 0
    with ExitStack() as stack:
        outs = [stack.enter_context(_create_file(file, name)) for file in files]
        while size <= limit and (block := _read_member(stream, name)):
            size += len(block)
            for out in outs:
                out.write(block)
    return size


def _create_file(file: Path, name: str) -> IO[bytes]:
    """Open a new file for a member."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("xb")
    except (FileExistsError, NotADirectoryError) as error:  # some disks ignore case in file names
        raise Refused(f"the member {name!r} would overwrite another member, at {file.name!r}") from error


def _read_member(stream: IO[bytes], name: str) -> bytes:
    with _refuse_on_error(f"the member {name!r} is damaged"):
        return stream.read(_READ_BYTES)


def _members(archive: Path) -> Iterator[Member]:
    """Yield every member that is not a folder."""
    return _zip_members(archive) if _archive_kind(archive) == ".zip" else _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[Member]:
    with ExitStack() as stack:
        with _refuse_on_error("the archive is damaged"):
            file = stack.enter_context(zipfile.ZipFile(archive))
        infos = [info for info in file.infolist() if not info.is_dir()]
        _check_member_count(len(infos))
        for info in infos:
            yield _zip_name(info), partial(_open_zip_member, file, info)


def _tar_members(archive: Path) -> Iterator[Member]:
    with ExitStack() as stack:
        with _refuse_on_error("the archive is damaged"):
            file = stack.enter_context(tarfile.open(archive, "r:gz"))
        for number in count(1):
            with _refuse_on_error("the archive is damaged"):
                info = file.next()
            if info is None:
                return
            _check_member_count(number)
            if not info.isdir():
                yield info.name, partial(_open_tar_member, file, info)


def _open_zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if no Unix system wrote the archive
    if kind not in (0, stat.S_IFREG):
        raise Refused(f"the member {info.filename!r} is a link or a device")
    if info.flag_bits & _ENCRYPTED:
        raise Refused(f"the member {info.filename!r} is encrypted")
    return file.open(info)


def _open_tar_member(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = file.extractfile(info) if info.isreg() else None
    if stream is None:
        raise Refused(f"the member {info.name!r} is a link or a device")
    return stream


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name decoded as UTF-8, even without the UTF-8 flag; ``zipfile`` then assumes code page 437."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _check_inside(path: str) -> None:
    parts = PureWindowsPath(path)  # splits at / and at \
    if parts.anchor or ".." in parts.parts or "\0" in path:
        raise Refused(f"the path {path!r} leads out of the folder")


def _check_member_count(members: int) -> None:
    if members > MAX_MEMBERS:
        raise Refused(f"the archive has more than {MAX_MEMBERS:,} members")


def _archive_kind(archive: Path) -> str:
    return ".zip" if archive.name.endswith(".zip") else ".tar.gz"


def _max_unpacked(archive: Path) -> int:
    """Return the largest number of bytes that an archive may unpack to."""
    return MAX_GROWTH * archive.stat().st_size + MAX_EXTRA


def _too_much_content(archive: Path) -> Refused:
    size = archive.stat().st_size
    return Refused(f"the archive has {size:,} bytes and unpacks to more than {_max_unpacked(archive):,}")


@contextmanager
def _refuse_on_error(problem: str) -> Iterator[None]:
    """Turn every error inside the block into ``Refused``, since a damaged archive can fail in many ways."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"{problem}: {type(error).__name__}: {error}") from error
