"""Archives from strangers: checked before they are used, and unpacked only where and as far as they are meant to be."""

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

from ..sources import Refused

MEMBERS = 500_000
"""No archive may hold more."""
GROWTH = 50
"""What comes out of an archive may be so many times as large, and ``SPARE`` more."""
SPARE = 64 << 20
_BLOCK = 1 << 20
_ENCRYPTED, _UTF8 = 1, 1 << 11  # bits of a zip member's flags
_MAGIC = {".zip": b"PK", ".tar.gz": b"\x1f\x8b"}

Opened = tuple[str, Callable[[], IO[bytes]]]


def check_archive(archive: Path) -> None:
    """See that a file is a whole archive of the kind that its name says, as far as can be told without unpacking it.

    Raises:
        Refused: it is not.
    """
    kind = _kind(archive)
    with archive.open("rb") as file:
        start = file.read(32)
    if not start.startswith(_MAGIC[kind]):
        raise Refused(f"it is no {kind} archive: it starts with {start!r}")
    with _reading("it is cut short or damaged"):
        if kind == ".zip":
            zipfile.ZipFile(archive).close()
            return
        left = _allowance(archive)
        with gzip.open(archive) as stream:
            while left > 0 and (block := stream.read(_BLOCK)):
                left -= len(block)
    if left <= 0:
        raise _bomb(archive)


def unpack(archive: Path, place: Callable[[str], Sequence[str]], target: Path) -> int:
    """Write the members that are needed; sizes are believed only as they come out.

    Args:
        archive: ``.zip`` or ``.tar.gz``.
        place: the paths below ``target`` that a member goes to; none if it is not needed.
        target: a folder; what it held before is never overwritten.

    Returns:
        How many members were needed.

    Raises:
        Refused: the archive is damaged, or a name in it leads out of it; a needed member is not an ordinary file, is
            encrypted or would land where another did; or more comes out than is plausible. What was written until
            then is still there.
        OSError: it cannot be written.
    """
    needed, left = 0, _allowance(archive)
    for name, opened in _members(archive):
        _stay_inside(name)
        if not (places := place(name)):
            continue
        for path in places:
            _stay_inside(path)
        with _reading(f"{name!r} in it is damaged"):
            stream = opened()
        with stream:
            left -= len(places) * _write(stream, [target / path for path in places], name, left // len(places))
        if left < 0:
            raise _bomb(archive)
        needed += 1
    return needed


def _write(stream: IO[bytes], files: Sequence[Path], name: str, limit: int) -> int:
    """Copy a member to every one of ``files``; the bytes it has, or had until they were more than ``limit``."""
    size = 0
    with ExitStack() as stack:
        outs = [stack.enter_context(_created(file, name)) for file in files]
        while size <= limit and (block := _read(stream, name)):
            size += len(block)
            for out in outs:
                out.write(block)
    return size


def _created(file: Path, name: str) -> IO[bytes]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("xb")
    except (FileExistsError, NotADirectoryError) as error:  # two capitalisations are one file on some disks
        raise Refused(f"{name!r} in it would land where another member did, at {file.name!r}") from error


def _read(stream: IO[bytes], name: str) -> bytes:
    with _reading(f"{name!r} in it is damaged"):
        return stream.read(_BLOCK)


def _members(archive: Path) -> Iterator[Opened]:
    """Name of every member that is no folder, and what opens it."""
    return _zip_members(archive) if _kind(archive) == ".zip" else _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[Opened]:
    with ExitStack() as stack:
        with _reading("it is damaged"):
            file = stack.enter_context(zipfile.ZipFile(archive))
        infos = [info for info in file.infolist() if not info.is_dir()]
        _count(len(infos))
        for info in infos:
            yield _zip_name(info), partial(_open_zipped, file, info)


def _tar_members(archive: Path) -> Iterator[Opened]:
    with ExitStack() as stack:
        with _reading("it is damaged"):
            file = stack.enter_context(tarfile.open(archive, "r:gz"))
        for number in count(1):
            with _reading("it is damaged"):
                info = file.next()
            if info is None:
                return
            _count(number)
            if not info.isdir():
                yield info.name, partial(_open_tarred, file, info)


def _open_zipped(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where no Unix system wrote the archive
    if kind not in (0, stat.S_IFREG):
        raise Refused(f"{info.filename!r} in it is a link or a device")
    if info.flag_bits & _ENCRYPTED:
        raise Refused(f"{info.filename!r} in it is encrypted")
    return file.open(info)


def _open_tarred(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = file.extractfile(info) if info.isreg() else None
    if stream is None:
        raise Refused(f"{info.name!r} in it is a link or a device")
    return stream


def _zip_name(info: zipfile.ZipInfo) -> str:
    """UTF-8 even where the archive does not say so, which ``zipfile`` reads as code page 437."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _stay_inside(path: str) -> None:
    parts = PureWindowsPath(path)  # splits at / and at \
    if parts.anchor or ".." in parts.parts or "\0" in path:
        raise Refused(f"{path!r} in it leads out of the folder")


def _count(members: int) -> None:
    if members > MEMBERS:
        raise Refused(f"it has more than {MEMBERS:,} members")


def _kind(archive: Path) -> str:
    return ".zip" if archive.name.endswith(".zip") else ".tar.gz"


def _allowance(archive: Path) -> int:
    return GROWTH * archive.stat().st_size + SPARE


def _bomb(archive: Path) -> Refused:
    return Refused(f"more than {_allowance(archive):,} bytes come out of its {archive.stat().st_size:,}")


@contextmanager
def _reading(fault: str) -> Iterator[None]:
    """A damaged archive fails in a dozen ways; each is ``fault``."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"{fault}: {type(error).__name__}: {error}") from error
