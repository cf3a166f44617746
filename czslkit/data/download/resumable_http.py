"""Download one file over HTTP. An interrupted download resumes where it stopped, also in a later process."""

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

from ... import __version__
from ...errors import DataError
from ...files import write_text
from ...sizes import format_bytes
from ...terminal import Progress
from ..sources import Refused

_READ_BYTES = 1 << 16
_RETRIED_STATUS = (408, 416, 429, *range(500, 600))  # 416: the requested range is invalid


class TransferInterrupted(Exception):
    """A transfer stopped, but a new attempt may get further."""


@dataclass(frozen=True)
class HttpClient:
    """Timeouts and retries of downloads over HTTP."""

    timeout: float = 30.0
    """Seconds without a connection or without new bytes after which an attempt fails."""
    attempts: int = 4
    """Number of consecutive attempts without new bytes after which the download from a server fails."""
    pause: float = 0.5
    """Seconds before the next attempt, doubled after each consecutive attempt without new bytes."""
    progress: bool = True
    """Show the progress: a bar on a terminal, elsewhere a line from time to time."""

    def fetch(self, url: str, target: Path, size: int | None = None) -> None:
        """Download ``url`` to ``<target>.partial``, and rename the complete file to ``target``.

        A partial file is resumed if the file on the server has not changed; otherwise the download starts from the
        first byte. If the server gives a length, the file is complete after this number of bytes.

        Args:
            size: expected bytes, None if unknown.

        Raises:
            Refused: the server does not have the file, has a file of another size, or sends a file of unknown length
                that would fill the disk; or too many attempts brought no new bytes, and the partial file stays.
            DataError: there is not enough free space.
            OSError: the file cannot be written.
        """
        partial = partial_path(target)
        most_bytes, failed_attempts = file_size(partial), 0
        while not _is_complete(url, partial):
            try:
                self._attempt(url, partial, size)
            except TransferInterrupted as error:
                bytes_now = file_size(partial)
                failed_attempts = 0 if bytes_now > most_bytes else failed_attempts + 1
                most_bytes = max(most_bytes, bytes_now)
                if failed_attempts == self.attempts:
                    kept = f"{format_bytes(bytes_now)} are kept"
                    raise Refused(f"{error} ({failed_attempts} attempts brought no new bytes; {kept})") from error
                time.sleep(self.pause * 2**failed_attempts)
            else:
                break
        partial.replace(target)
        discard_partial(partial)

    def _attempt(self, url: str, partial: Path, size: int | None) -> None:
        """Request a file or its missing rest, and write the answer to the partial file."""
        record = TransferRecord.read(partial)
        offset = file_size(partial) if record and record.url == url else 0
        with self._open(url, record.range_headers(offset) if record and offset else {}, partial) as response:
            answer = TransferRecord.from_response(url, response)
            start = _first_byte(response)
            if start and not (record and start == offset and answer.same_file_as(record)):
                discard_partial(partial)
                raise TransferInterrupted("the file on the server has changed")
            if None not in (answer.total, size) and answer.total != size:
                raise Refused(f"the file on the server has {answer.total:,} bytes, expected {size:,}")
            if answer.total is not None:
                _check_free_space(partial, answer.total, start)
            with partial.open("ab" if start else "wb") as out:  # "wb" drops old bytes before the record changes
                write_text(_record_path(partial), json.dumps(asdict(answer)))
                self._receive(response, out, answer.total, size)
        if answer.total is not None and file_size(partial) < answer.total:
            raise TransferInterrupted(f"the connection ended after {file_size(partial):,} of {answer.total:,} bytes")

    def _open(self, url: str, headers: dict[str, str], partial: Path) -> HTTPResponse:
        """Send a request and return the answer, whose body is not read yet."""
        request = Request(url, headers={"User-Agent": f"czslkit/{__version__}", **headers})
        try:
            response: HTTPResponse = build_opener(_SafeRedirects).open(request, timeout=self.timeout)
        except HTTPError as error:
            error.close()
            if error.code == 416:
                discard_partial(partial)
            failure = TransferInterrupted if error.code in _RETRIED_STATUS else Refused
            raise failure(f"HTTP {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            raise TransferInterrupted(self._connection_problem(error)) from error
        return response

    def _receive(self, response: HTTPResponse, out: IO[bytes], total: int | None, size: int | None) -> None:
        """Append the body of an answer to an open file.

        The limit for a body of unknown length is the expected ``size``, or half of the free space if ``size`` is None.
        """
        name = Path(out.name).name.removesuffix(".partial")
        limit = out.tell() + shutil.disk_usage(Path(out.name).parent).free // 2 if size is None else size
        with Progress(name, total, show=self.progress, done=out.tell(), unit="B") as progress:
            while block := self._read_block(response):
                out.write(block)
                progress.update(len(block))
                if total is None and out.tell() > limit:
                    out.truncate(0)
                    raise Refused(f"the server gives no length and sent more than {format_bytes(limit)}")

    def _read_block(self, response: HTTPResponse) -> bytes:
        try:
            return response.read1(_READ_BYTES)
        except (OSError, HTTPException) as error:
            raise TransferInterrupted(self._connection_problem(error)) from error

    def _connection_problem(self, error: Exception) -> str:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            return f"the server sent nothing for {self.timeout:g} seconds"
        return str(reason) or type(reason).__name__


@dataclass(frozen=True)
class TransferRecord:
    """A server's description of a file when its download began, stored as JSON next to the partial file."""

    url: str
    etag: str
    modified: str
    total: int | None
    """Bytes of the complete file, None if the server does not say."""

    @classmethod
    def from_response(cls, url: str, response: HTTPResponse) -> TransferRecord:
        """Return the description of the complete file in an answer."""
        headers, length = response.headers, response.length
        total = None if length is None else _first_byte(response) + length
        if response.status == 206 and (content_range := re.search(r"/(\d+)$", headers.get("Content-Range", ""))):
            total = int(content_range[1])
        return cls(url, headers.get("ETag", ""), headers.get("Last-Modified", ""), total)

    @classmethod
    def read(cls, partial: Path) -> TransferRecord | None:
        """Return the record of a partial file, or None if there is none or it is damaged."""
        try:
            content: Any = json.loads(_record_path(partial).read_text(encoding="utf-8"))
            return cls(**content)
        except (OSError, ValueError, TypeError):
            return None

    def range_headers(self, offset: int) -> dict[str, str]:
        """Return headers that request the bytes from ``offset``, or all bytes if the file has changed."""
        validator = self.modified if not self.etag or self.etag.startswith("W/") else self.etag
        return {"Range": f"bytes={offset}-"} | ({"If-Range": validator} if validator else {})

    def same_file_as(self, earlier: TransferRecord) -> bool:
        """Return whether two answers describe the same content."""
        same_version = (self.etag, self.modified) == (earlier.etag, earlier.modified)
        return same_version and earlier.total in (None, self.total)


class _SafeRedirects(HTTPRedirectHandler):
    """A handler that follows redirects only to HTTP and HTTPS addresses, and never from HTTPS to HTTP."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise Refused(f"the server redirects from {before} to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def partial_path(target: Path) -> Path:
    """Return the file with the bytes of an unfinished download."""
    return target.with_name(f"{target.name}.partial")


def discard_partial(partial: Path) -> None:
    """Delete a partial file and its record."""
    partial.unlink(missing_ok=True)
    _record_path(partial).unlink(missing_ok=True)


def file_size(file: Path) -> int:
    """Return the bytes of a file, 0 if it does not exist."""
    return file.stat().st_size if file.exists() else 0


def _record_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _is_complete(url: str, partial: Path) -> bool:
    """Return whether a partial file has all bytes, which happens if a process is killed just before renaming it."""
    record = TransferRecord.read(partial)
    return record is not None and record.url == url and record.total == file_size(partial)


def _first_byte(response: HTTPResponse) -> int:
    """Return the position in the complete file of the first byte of an answer."""
    content_range = response.headers.get("Content-Range", "") if response.status == 206 else ""
    start = re.match(r"bytes (\d+)-", content_range)
    return int(start[1]) if start else 0


def _check_free_space(partial: Path, total: int, received: int) -> None:
    """Check that the rest of an archive and its unpacked content fit on the disk.

    Packing hardly reduces the size of images, so the content needs about as many bytes as the archive.

    Raises:
        DataError: there is not enough free space.
    """
    free, needed = shutil.disk_usage(partial.parent).free, 2 * total - received
    if free < needed:
        raise DataError(
            f"{partial.parent} has {format_bytes(free)} free, but {partial.name.removesuffix('.partial')} needs about "
            f"{format_bytes(needed)} until it is unpacked"
        )
