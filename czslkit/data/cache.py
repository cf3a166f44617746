"""A folder of files that save computing time and can be made again at any time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..files import file_lock, remove_unfinished, unfinished
from ..sizes import format_bytes
from ..terminal import log_to_stderr

T = TypeVar("T")


@dataclass(frozen=True)
class Cache:
    """A folder of cached features and, if asked for, decoded images. No result depends on it.

    Args:
        folder: the folder, which is created at the first use. It may be deleted when no process uses it.
        images: also store decoded images, which take about 150 KB each at 224 pixels.
        log: called with a line of text when a file is made or cannot be made.
    """

    folder: Path
    images: bool = False
    log: Callable[[str], None] = log_to_stderr

    def obtain(
        self,
        name: str,
        code_version: str,
        suffix: str,
        *,
        description: str,
        size: int,
        read: Callable[[Path], T],
        write: Callable[[Path], None],
    ) -> T | None:
        """Return what ``read`` returns for a file of the cache. If the file is absent, make it with ``write`` first.

        A file gets its name once it is complete. If several processes need it, one of them makes it and the others
        wait.

        Args:
            name: file name without version. Different content must have a different name.
            code_version: version of the code and packages that make the content. Files of the same name with another
                version are deleted.
            suffix: end of the file name, such as ``.npy``.
            description: the content in words, for the log.
            size: bytes that the file will take.
            read: reads the file at a path. It raises ``ValueError`` if the content is wrong, and the file is then made
                again.
            write: writes the file to a path.

        Returns:
            The content, or None if the file cannot be written; the log then gives the reason.
        """
        path = self.folder / f"{name}-{code_version}{suffix}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            content = self._read(path, description, read)
            if content is None:
                with file_lock(self.folder / f".{name}.lock", self.log):
                    content = self._read(path, description, read)  # another process may have made it meanwhile
                    if content is None:
                        remove_unfinished(self.folder)
                        self._delete({*self.folder.glob(f"{name}-*{suffix}")} - {path})
                        if self._has_room(description, size):
                            self.log(f"making {description}: {format_bytes(size)} in {path}")
                            with unfinished(path) as made:
                                write(made)
                            content = read(path)
        except OSError as error:
            self.log(f"continuing without a file of {description}: {error}")
            return None
        return content

    def find(
        self, name: str, code_version: str, suffix: str, *, description: str, read: Callable[[Path], T]
    ) -> T | None:
        """Return the content of a file; the arguments are those of :meth:`obtain`.

        Returns:
            The content, or None if the file is missing, if its content is wrong, or if it cannot be read.
        """
        try:
            return self._read(self.folder / f"{name}-{code_version}{suffix}", description, read)
        except OSError:
            return None

    def _read(self, path: Path, description: str, read: Callable[[Path], T]) -> T | None:
        """Return the content of a file, or None if the file is missing or its content is wrong."""
        if not path.exists():
            return None
        try:
            return read(path)
        except ValueError as error:
            self.log(f"{path} does not contain {description} and is made again: {error}")
            return None

    def _delete(self, outdated: set[Path]) -> None:
        for path in outdated:
            self.log(f"{path} was made by another version of the code or packages and is deleted")
            path.unlink()

    def _has_room(self, description: str, size: int) -> bool:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            needed, left = format_bytes(size), format_bytes(free)
            self.log(f"no space for {description}: {needed} needed, {left} free in {self.folder}; continuing without")
        return size <= free
