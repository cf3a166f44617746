"""A file from the web, whole or not at all: it goes on where it stopped, in this process or in a later one."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from ... import __version__
from ...errors import DataError
from ...files import write_text
from ...sizes import format_bytes
from ..sources import Refused

_BLOCK = 1 << 16
_TRANSIENT = (408, 416, 429, *range(500, 600))  # an answer may be another the next time; 416: not from that byte


class Interrupted(Exception):
    """A transfer that may get further when it is tried again."""


@dataclass(frozen=True)
class Web:
    """How files are fetched."""

    timeout: float = 30.0
    """Seconds without a connection, or without a byte, after which an attempt has failed."""
    tries: int = 4
    """Attempts in a row that get no further before a source is given up."""
    pause: float = 0.5
    """Seconds before the next attempt, doubled for each in a row that got no further."""
    progress: bool = True
    """Show a bar on a terminal."""

    def fetch(self, url: str, target: Path, size: int | None = None) -> None:
        """Write what ``url`` holds to ``target``, by way of ``<target>.partial``.

        A partial file is gone on with if the server says that the file is still the same, else begun anew. An answer
        with a length is whole when so many bytes have come; what a server sends beyond it is not read.

        Args:
            size: bytes that it has to have, where that is known.

        Raises:
            Refused: the server has no such file, one of another size, or one without a length that fills the disk; or
                it gets no further, and what has come is kept.
            DataError: there is not enough room.
            OSError: it cannot be written.
        """
        partial = partial_of(target)
        furthest, idle = size_of(partial), 0
        while not self._whole(url, partial):
            try:
                self._attempt(url, partial, size)
            except Interrupted as error:
                here = size_of(partial)
                furthest, idle = max(furthest, here), 0 if here > furthest else idle + 1
                if idle == self.tries:
                    raise Refused(f"{error} (after {idle} attempts; {format_bytes(here)} are kept)") from error
                time.sleep(self.pause * 2**idle)
            else:
                break
        partial.replace(target)
        discard(partial)

    def _whole(self, url: str, partial: Path) -> bool:
        """Whether a process was killed between the last byte and the end."""
        begun = Begun.read(partial)
        return begun is not None and begun.url == url and begun.total == size_of(partial)

    def _attempt(self, url: str, partial: Path, size: int | None) -> None:
        begun = Begun.read(partial)
        offset = size_of(partial) if begun and begun.url == url else 0
        with self._answer(url, begun.asking(offset) if begun and offset else {}, partial) as response:
            found = Begun.of(url, response)
            start = _start(response)
            if start and not (begun and start == offset and found.same_as(begun)):
                discard(partial)
                raise Interrupted("the file there has changed")
            if None not in (found.total, size) and found.total != size:
                raise Refused(f"it has {found.total:,} bytes, expected {size:,}")
            if found.total is not None:
                _check_room(partial, found.total, start)
            with partial.open("ab" if start else "wb") as out:  # emptied before the note says whose bytes it holds
                write_text(_note(partial), json.dumps(asdict(found)))
                self._receive(response, out, found.total, size)
        if found.total is not None and size_of(partial) < found.total:
            raise Interrupted(f"it ended after {size_of(partial):,} of {found.total:,} bytes")

    def _answer(self, url: str, headers: dict[str, str], partial: Path) -> HTTPResponse:
        request = Request(url, headers={"User-Agent": f"czslkit/{__version__}", **headers})
        try:
            answer: HTTPResponse = build_opener(_Redirects).open(request, timeout=self.timeout)
        except HTTPError as error:
            error.close()
            if error.code == 416:
                discard(partial)
            kind = Interrupted if error.code in _TRANSIENT else Refused
            raise kind(f"HTTP {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            raise Interrupted(self._reason(error)) from error
        return answer

    def _receive(self, response: HTTPResponse, out: IO[bytes], total: int | None, size: int | None) -> None:
        name = Path(out.name).name.removesuffix(".partial")
        most = out.tell() + shutil.disk_usage(Path(out.name).parent).free // 2 if size is None else size
        hidden = None if self.progress else True  # None: on a terminal only
        with tqdm(
            total=total, initial=out.tell(), desc=name, unit="B", unit_scale=True, leave=False, disable=hidden
        ) as bar:
            while block := self._read(response):
                out.write(block)
                bar.update(len(block))
                if total is None and out.tell() > most:
                    out.truncate(0)
                    raise Refused(f"it says no length, and is more than {format_bytes(most)}")

    def _read(self, response: HTTPResponse) -> bytes:
        try:
            return response.read1(_BLOCK)
        except (OSError, HTTPException) as error:
            raise Interrupted(self._reason(error)) from error

    def _reason(self, error: Exception) -> str:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            return f"nothing came for {self.timeout:g} seconds"
        return str(reason) or type(reason).__name__


@dataclass(frozen=True)
class Begun:
    """What a server said about a file when it was begun; kept beside the partial file."""

    url: str
    etag: str
    modified: str
    total: int | None
    """Bytes of the whole file, None if nobody says."""

    @classmethod
    def of(cls, url: str, response: HTTPResponse) -> Begun:
        headers, length = response.headers, response.length
        total = None if length is None else _start(response) + length
        if response.status == 206 and (said := re.search(r"/(\d+)$", headers.get("Content-Range", ""))):
            total = int(said[1])
        return cls(url, headers.get("ETag", ""), headers.get("Last-Modified", ""), total)

    @classmethod
    def read(cls, partial: Path) -> Begun | None:
        """None where nothing was begun, or nothing that can be relied upon."""
        try:
            content: Any = json.loads(_note(partial).read_text(encoding="utf-8"))
            return cls(**content)
        except (OSError, ValueError, TypeError):
            return None

    def asking(self, offset: int) -> dict[str, str]:
        """Headers that ask for the rest, or for all of it if the file has changed."""
        validator = self.modified if not self.etag or self.etag.startswith("W/") else self.etag
        return {"Range": f"bytes={offset}-"} | ({"If-Range": validator} if validator else {})

    def same_as(self, begun: Begun) -> bool:
        return (self.etag, self.modified) == (begun.etag, begun.modified) and begun.total in (None, self.total)


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but never from an encrypted connection to a plain one, nor to anything but the web."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise Refused(f"it redirects from {before} to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def partial_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def discard(partial: Path) -> None:
    """Forget a partial file and what is known about it."""
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def size_of(file: Path) -> int:
    """Bytes; 0 where there is no file."""
    return file.stat().st_size if file.exists() else 0


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _start(response: HTTPResponse) -> int:
    """The first byte of an answer, counted from that of the file."""
    said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", "")) if response.status == 206 else None
    return int(said[1]) if said else 0


def _check_room(partial: Path, total: int, here: int) -> None:
    """That there is room for the rest of an archive and, since pictures hardly shrink, as much again for what is in it.

    Raises:
        DataError: there is not.
    """
    free, needed = shutil.disk_usage(partial.parent).free, 2 * total - here
    if free < needed:
        raise DataError(
            f"{partial.parent} has {format_bytes(free)} free, and {partial.name.removesuffix('.partial')} needs about "
            f"{format_bytes(needed)} until it is unpacked"
        )
