"""The registry of datasets, and the base class of their descriptions. It does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from ..errors import DataError, did_you_mean
from ..registry import Registry
from .layout import Listing
from .listing import read_listing
from .pair_lists import listing_files
from .sources import DOWNLOADS, Source

if TYPE_CHECKING:  # the registry is read without torch
    from torch import Tensor


@dataclass(frozen=True)
class SplitCounts:
    """The numbers of pairs and images of one split."""

    seen: int
    """Pairs that are also in the training list."""
    unseen: int
    """Pairs that are not in the training list."""
    images: int


@dataclass(frozen=True)
class Counts:
    """The numbers of labels, pairs and images of a dataset, as published."""

    attrs: int
    objs: int
    pairs: int | None
    """Different pairs of the three lists together, None if that is not published."""
    splits: Mapping[str, SplitCounts]


class Dataset:
    """The description of a dataset: its name, its archives and how its files are read.

    A subclass is registered under a name, and is created with that name::

        @DATASETS.register("pets")
        class Pets(Dataset):
            def listing(self, folder): ...

    The folder of the dataset is in the data root and has its name or an alias. The images are in the subfolder
    ``images``. The methods of this class find and read a dataset in the field's layout.
    """

    version: ClassVar[int] = 1
    """Raise it when ``listing`` returns something else for the same files, so that older results are run again."""
    display_name: ClassVar[str] = ""
    """Name in papers, such as ``C-GQA``, which tables in LaTeX print; subclasses do not inherit it."""
    citation: ClassVar[str] = ""
    """BibTeX entry of the paper, or only its key, which tables in LaTeX cite; subclasses do not inherit it."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names of the dataset and of its folder."""
    sources: ClassVar[tuple[Source, ...]] = ()
    """Archives that ``czslkit data download`` unpacks, in this order."""
    pages: ClassVar[tuple[str, ...]] = ()
    """Web pages where a person can download the files, if no URL gives an archive."""
    counts: ClassVar[Counts | None] = None
    """Published counts, None if there are none."""
    unpublished: ClassVar[str] = ""
    """What no source states about the dataset, as a sentence, which ``data verify`` and ``data status`` print."""
    open_vocabulary: ClassVar[bool] = False
    """True if pairs of validation and test may have attributes and objects that are in no training pair."""

    def __init__(self, name: str) -> None:
        self.name = name

    def listing(self, folder: Path) -> Listing:
        """Return the pairs and the images of every split, read from the dataset's own files.

        Raises:
            DataError: some files are missing or malformed.
        """
        return read_listing(folder)

    def files(self, folder: Path) -> tuple[Path, ...]:
        """Return every file that ``listing`` and ``extra`` read. Their file names must differ.

        The fingerprint of the dataset changes when one of these files changes.

        Raises:
            DataError: some of the files are missing.
        """
        return listing_files(folder)

    def extra(self, folder: Path, listing: Listing) -> Mapping[str, Mapping[str, Tensor]]:
        """Return other tensors for each image, such as boxes or captions as numbers; by default none.

        A batch then has the rows of its images in ``batch.extra[name]``.

        Args:
            listing: the pairs and the images that ``listing`` returned.

        Returns:
            For each of ``train``, ``val`` and ``test`` the same names with one tensor ``[N, ...]`` each, with rows in
            the order of ``listing.instances``.

        Raises:
            DataError: some files are missing or malformed.
        """
        return {}

    def make(self, folder: Path) -> None:
        """Write the whole dataset to ``folder``, or nothing. It is called if the dataset is absent.

        Raises:
            DataError: the dataset cannot be generated. The message has its download addresses.
        """
        raise DataError(self._absence_message(folder.parent))

    def placement(self, source: Source, folder: Path) -> Callable[[str], Sequence[str]]:
        """Return a function that maps the name of an archive member to the paths that it is unpacked to.

        The paths are relative to the folder of the dataset. A member that is not needed has no paths.

        Args:
            source: one of ``sources``.
            folder: folder with the unpacked content of the earlier sources.

        Raises:
            DataError: a file in ``folder`` that the paths depend on is missing or malformed.
        """
        return lambda member: [str(PurePosixPath(source.below, path))] if (path := source.path(member)) else []

    def _absence_message(self, root: Path) -> str:
        """Return a message with the folders where the dataset is expected and the URLs of its archives."""
        folders = " and ".join(str(root / name) for name in (self.name, *self.aliases))
        message = f"{self.name} is absent: looked for {folders}.{missing_folder_note(root)}"
        if self.pages:
            layout = "images/, compositional-split-natural/ and metadata_compositional-split-natural.t7"
            return "\n".join(
                [
                    f"{message} It cannot be downloaded by a command. Download {layout} with a browser from",
                    *(f"  {page}" for page in self.pages),
                    f"and put them into {root / self.name}; 'czslkit data verify {self.name}' then checks them.",
                ]
            )
        if not self.sources:
            return message
        archives = [f"  {source.file.name} from {' or '.join(source.file.urls)}" for source in self.sources]
        return "\n".join(
            [
                f"{message} 'czslkit data download {self.name} --data {root}' unpacks it from",
                *archives,
                f"You can also put these archives into {root / DOWNLOADS} yourself.",
            ]
        )


def missing_folder_note(folder: Path) -> str:
    """Return a sentence that the folder of all datasets does not exist, with similar names; empty if it exists.

    >>> missing_folder_note(Path(".")), missing_folder_note(Path("/nowhere"))
    ('', ' There is no folder /nowhere.')
    """
    if folder.is_dir():
        return ""
    siblings: list[str] = []
    with suppress(OSError):  # the folder above is missing as well, or may not be read
        siblings = [each.name for each in folder.parent.iterdir() if each.is_dir()]
    return f" There is no folder {folder}.{did_you_mean(folder.name, siblings)}"


DATASETS = Registry("dataset", Dataset, builtins="czslkit.data.published")
