"""Which datasets there are, where they lie, and what is published about them. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from ..errors import DataError
from ..registry import Registry
from .layout import Listing, list_files, read_listing
from .sources import DOWNLOADS, Source

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class SplitCounts:
    """How much a phase holds."""

    seen: int
    """Pairs that are in the training list, too."""
    unseen: int
    images: int


@dataclass(frozen=True)
class Counts:
    """How much a dataset holds, as published."""

    attrs: int
    objs: int
    pairs: int
    """In the three lists together, each counted once."""
    phases: Mapping[str, SplitCounts]


class Dataset:
    """A dataset that is known by name: mostly what is said about it, and what differs from the field's layout.

    A subclass is registered as any component is, and made with the name it is registered by::

        @DATASETS.register("pets")
        class Pets(Dataset):
            def listing(self, folder): ...

    Its folder lies below the root and has its name or an alias; in it, pictures lie below ``images/``.
    """

    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names, of the dataset and of its folder."""
    sources: ClassVar[tuple[Source, ...]] = ()
    """What ``czslkit data download`` unpacks, in this order."""
    counts: ClassVar[Counts | None] = None

    def __init__(self, name: str) -> None:
        self.name = name

    def listing(self, folder: Path) -> Listing:
        """What the dataset holds, read from its own files.

        Raises:
            DataError: files that are absent or malformed.
        """
        return read_listing(folder)

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Every file that ``listing`` depends on, under different names; the dataset is another one when one changes.

        Raises:
            DataError: some are not there.
        """
        return list_files(folder)

    def make(self, folder: Path) -> None:
        """Write the whole dataset to ``folder``, or nothing; called where it is absent.

        Raises:
            DataError: it cannot be made here; says where it is had.
        """
        raise DataError(self._absence(folder.parent))

    def placement(self, source: Source, folder: Path) -> Callable[[str], Sequence[str]]:
        """Where below the dataset's folder a member of an archive goes: nowhere, or to one or several places.

        Args:
            source: one of ``sources``.
            folder: what the sources before it were unpacked to.

        Raises:
            DataError: of those, something that says it is missing or malformed.
        """
        return lambda member: [str(PurePosixPath(source.below, path))] if (path := source.path(member)) else []

    def _absence(self, base: Path) -> str:
        folders = " and ".join(str(base / each) for each in (self.name, *self.aliases))
        head = f"{self.name} is not there: looked for {folders}."
        if not self.sources:
            return head
        files = [f"  {source.file.name} from {' or '.join(source.file.urls)}" for source in self.sources]
        return "\n".join(
            [
                f"{head} 'czslkit data download {self.name} --data {base}' unpacks it from",
                *files,
                f"A file that you have by other means is taken from {base / DOWNLOADS}.",
            ]
        )


DATASETS = Registry("dataset", Dataset, builtins="czslkit.data.published")
