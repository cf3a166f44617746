"""Files that can be made again at any time, kept so that they need not be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..files import file_lock, log_to_stderr
from ..sizes import format_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Cache:
    """A folder of what images become on their way to a method. No number depends on it.

    Args:
        folder: made when first needed; may be deleted whenever nothing runs.
        images: keep decoded images, too, which take about 150 KB each at 224 pixels.
        log: called with a line when something is made, and when it cannot be.
    """

    folder: Path
    images: bool = False
    log: Callable[[str], None] = log_to_stderr

    def obtain(
        self,
        name: str,
        version: str,
        suffix: str,
        *,
        about: str,
        size: int,
        read: Callable[[Path], T],
        write: Callable[[Path], None],
    ) -> T | None:
        """What ``read`` finds in the file of a name, which ``write`` makes first where there is no such file.

        A file appears under its name once it is whole. Of several processes one makes it and the others wait.

        Args:
            name: changes with what is kept.
            version: changes with what makes it; files of the same name and another version are deleted.
            about: what is kept, for people.
            size: bytes that the file will take.
            read: raises a ValueError for a file that does not hold what is asked for, which is then made again.

        Returns:
            None, having said why, where the file cannot be kept: go on without it.
        """
        path = self.folder / f"{name}-{version}{suffix}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = self._found(path, about, read)
            if found is None:
                with file_lock(self.folder / f".{name}.lock", self.log):
                    found = self._found(path, about, read)  # another process may have made it meanwhile
                    others = {*self.folder.glob(f"{name}-*{suffix}")} - {path}
                    if found is None and self._make(path, about, size, write, others):
                        found = read(path)
        except OSError as error:
            self.log(f"going on without a file of {about}: {error}")
            return None
        return found

    def _found(self, path: Path, about: str, read: Callable[[Path], T]) -> T | None:
        if not path.exists():
            return None
        try:
            return read(path)
        except ValueError as error:
            self.log(f"{path} does not hold {about}, and is made again: {error}")
            return None

    def _make(self, path: Path, about: str, size: int, write: Callable[[Path], None], outdated: Iterable[Path]) -> bool:
        """Whether there is a new file at ``path``."""
        for old in outdated:
            self.log(f"{old} was made by other code or packages, and is deleted")
            old.unlink()
        free = shutil.disk_usage(self.folder).free
        needed, left = format_bytes(size), format_bytes(free)
        if size > free:
            self.log(f"no room for {about}: {needed} in {self.folder}, where {left} are free; going on without")
            return False
        self.log(f"making {about}: {needed} in {path}")
        partial = path.with_name(f".{path.name}.partial")  # of a process that was killed, if it is there
        try:
            write(partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return True
