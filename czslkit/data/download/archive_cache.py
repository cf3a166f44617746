"""A folder of archives: each is had from the first source that has it whole and right, and used while it is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain, count
from pathlib import Path

from ...errors import DataError
from ...files import file_lock, write_text
from ..sources import Refused, RemoteFile
from .archives import check_archive
from .resumable_http import Begun, Web, discard, partial_of

Log = Callable[[str], None]
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ArchiveCache:
    """A folder of archives, and where to have those that are not in it."""

    folder: Path
    mirrors: tuple[str, ...] = ()
    """URLs below which an archive is looked for before its own."""
    web: Web = field(default_factory=Web)
    log: Log = print

    def use(self, file: RemoteFile, take: Callable[[Path], None] | None = None) -> None:
        """Give an archive to ``take``, from the first source of which it can be had and used.

        Args:
            file: which.
            take: raises ``Refused`` if it cannot be used; None just to have it in the folder.

        Raises:
            DataError: no source has it, with the reason of each; or there is not enough room.
        """
        archive = self.folder / file.name
        with file_lock(self.folder / f".{file.name}.lock", self.log):
            reasons = []
            for source in ([str(archive)] if archive.exists() else []) + self._urls(file):
                try:
                    if source != str(archive):
                        self.log(f"{file.name} from {source}")
                        self.web.fetch(source, archive, file.size)
                    digest = self._checked(file, archive)
                    if take:
                        self.log(f"unpacking {file.name}")
                        take(archive)
                        write_text(self._note(file), json.dumps({"sha256": digest, "source": source}, indent=1))
                except Refused as error:
                    reasons.append(f"  {source}: {error}")
                    if archive.exists():
                        archive.replace(self._refused(file))
                    continue
                return
            raise DataError("\n".join([f"{file.name} could not be had:", *reasons, self._by_hand(file)]))

    def drop(self, file: RemoteFile) -> None:
        """Delete an archive that is not needed any more, and what was fetched of it."""
        archive = self.folder / file.name
        with file_lock(self.folder / f".{file.name}.lock", self.log):
            discard(partial_of(archive))
            archive.unlink(missing_ok=True)

    def recorded(self, file: RemoteFile) -> str:
        """SHA-256 of an archive when it was first used here; empty if it never was."""
        note = self._note(file)
        try:
            return str(json.loads(note.read_text(encoding="utf-8"))["sha256"]) if note.exists() else ""
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{note} holds no SHA-256; delete it if its archive can be trusted") from error

    def _urls(self, file: RemoteFile) -> list[str]:
        """The mirrors, and then the file's own sources: first that of a partial file."""
        begun = Begun.read(partial_of(self.folder / file.name))
        own = sorted(file.urls, key=lambda url: begun is None or url != begun.url)
        return [*(f"{mirror.rstrip('/')}/{file.name}" for mirror in self.mirrors), *own]

    def _checked(self, file: RemoteFile, archive: Path) -> str:
        """The SHA-256 of an archive that is whole and what it has to be."""
        check_archive(archive)
        digest, size = _sha256(archive), archive.stat().st_size
        if file.size not in (None, size):
            raise Refused(f"it has {size:,} bytes, expected {file.size:,}")
        if not fnmatchcase(digest, file.sha256):
            raise Refused(f"its SHA-256 is {digest}, expected {file.sha256}")
        if (recorded := self.recorded(file)) not in ("", digest):
            raise Refused(
                f"its SHA-256 is {digest}, and was {recorded} when it was first used here; it is now "
                f"{self._refused(file)}. If the change is right, delete {self._note(file)} and rename it to {file.name}"
            )
        return digest

    def _by_hand(self, file: RemoteFile) -> str:
        return f"If you have it by other means, put it there as {self.folder / file.name}, and run the command again."

    def _note(self, file: RemoteFile) -> Path:
        return self.folder / f"{file.name}.json"

    def _refused(self, file: RemoteFile) -> Path:
        """Where an archive is put aside: nothing is ever overwritten there."""
        names = (f"{file.name}.refused{n}" for n in chain([""], (f"-{n}" for n in count(2))))
        return next(path for path in (self.folder / name for name in names) if not path.exists())


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
