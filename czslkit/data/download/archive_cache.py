"""A folder of downloaded archives. Each archive comes from the first source whose copy passes every check."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain, count
from pathlib import Path

from ...errors import DataError
from ...files import file_lock, write_text
from ...foreign_files import read_json
from ..sources import Refused, RemoteFile
from .archives import check_archive
from .resumable_http import HttpClient, TransferRecord, discard_partial, partial_path

Log = Callable[[str], None]
_READ_BYTES, _RECORD_LIMIT = 1 << 20, 1 << 16  # bytes read at a time; largest size of a record


@dataclass(frozen=True)
class ArchiveCache:
    """A folder of archives, and the mirrors and client with which absent archives are downloaded."""

    folder: Path
    mirrors: tuple[str, ...] = ()
    """URLs of folders that are tried before an archive's own URLs."""
    client: HttpClient = field(default_factory=HttpClient)
    log: Log = print

    def use(self, file: RemoteFile, consume: Callable[[Path], None] | None = None) -> None:
        """Call ``consume`` with a checked archive from the first source that works.

        The sources are a copy in the folder, the mirrors, and the archive's own URLs. A copy that fails is renamed to
        ``<name>.refused``. Other processes that need the same archive wait.

        Args:
            file: the archive.
            consume: unpacks the archive, and raises ``Refused`` if its content is unusable. None: only download.

        Raises:
            DataError: no source works, and the message has the reason for each; or there is not enough free space.
        """
        archive = self._path(file)
        with self._lock(file):
            failures = []
            for source in ([str(archive)] if archive.exists() else []) + self._urls(file):
                try:
                    self._use_source(source, file, consume)
                    return
                except Refused as error:
                    failures.append(f"  {source}: {error}")
                    if archive.exists():
                        archive.replace(self._refused_path(file))
            advice = f"If you can get the file in another way, save it as {archive} and run the command again."
            raise DataError("\n".join([f"no source has a usable {file.name}:", *failures, advice]))

    def delete(self, file: RemoteFile) -> None:
        """Delete an archive that is no longer needed, and its partial download."""
        with self._lock(file):
            discard_partial(partial_path(self._path(file)))
            self._path(file).unlink(missing_ok=True)

    def recorded_digest(self, file: RemoteFile) -> str:
        """Return the SHA-256 of an archive at its first use in this folder, empty if it was never used.

        Raises:
            DataError: the record cannot be read.
        """
        record = self._digest_path(file)
        try:
            return str(read_json(record, _RECORD_LIMIT)["sha256"]) if record.exists() else ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{record} has no SHA-256; delete this file if you trust {file.name}") from error

    def _use_source(self, source: str, file: RemoteFile, consume: Callable[[Path], None] | None) -> None:
        """Get an archive from one source, check it, consume it and record its digest.

        Raises:
            Refused: the source does not have the archive, or a check fails.
        """
        archive = self._path(file)
        if source != str(archive):
            self.log(f"downloading {file.name} from {source}")
            self.client.fetch(source, archive, file.size)
        digest = self._checked_digest(file)
        if consume:
            self.log(f"unpacking {file.name}")
            consume(archive)
            write_text(self._digest_path(file), json.dumps({"sha256": digest, "source": source}, indent=1))

    def _checked_digest(self, file: RemoteFile) -> str:
        """Check that an archive is complete and the expected one, and return its SHA-256."""
        archive = self._path(file)
        check_archive(archive)
        digest, size = _file_sha256(archive), archive.stat().st_size
        if file.size not in (None, size):
            raise Refused(f"the archive has {size:,} bytes, expected {file.size:,}")
        if not fnmatchcase(digest, file.sha256):
            raise Refused(f"the archive has the SHA-256 {digest}, expected {file.sha256}")
        if (recorded := self.recorded_digest(file)) not in ("", digest):
            raise Refused(
                f"the archive has the SHA-256 {digest}, but it had {recorded} at its first use here. "
                f"The new archive is now {self._refused_path(file)}: to accept it, delete {self._digest_path(file)} "
                f"and rename the archive to {file.name}"
            )
        return digest

    def _urls(self, file: RemoteFile) -> list[str]:
        """Return the URLs to try: mirrors first, then the URL of a partial download, then the other URLs."""
        record = TransferRecord.read(partial_path(self._path(file)))
        own = sorted(file.urls, key=lambda url: record is None or url != record.url)
        return [*(f"{mirror.rstrip('/')}/{file.name}" for mirror in self.mirrors), *own]

    def _lock(self, file: RemoteFile) -> AbstractContextManager[None]:
        return file_lock(self.folder / f".{file.name}.lock", self.log)

    def _path(self, file: RemoteFile) -> Path:
        return self.folder / file.name

    def _digest_path(self, file: RemoteFile) -> Path:
        return self.folder / f"{file.name}.json"

    def _refused_path(self, file: RemoteFile) -> Path:
        """Return an unused path for a refused archive, so that earlier refused archives are not overwritten."""
        names = (f"{file.name}.refused{n}" for n in chain([""], (f"-{n}" for n in count(2))))
        return next(path for path in (self.folder / name for name in names) if not path.exists())


def _file_sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
