"""Install one absent dataset, or the word vectors, from archives. It gets its name once it is complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ...errors import DataError
from ...files import file_lock, write_text
from ..dataset_folders import find_folder
from ..datasets import Dataset
from ..layout import metadata_file
from ..metadata import read_metadata
from ..sources import GLOVE, GLOVE_MEMBER, Refused, Source
from .archive_cache import ArchiveCache
from .archives import unpack

_UNPACKED = ".unpacked.json"  # in a dataset's folder: the sources that are already unpacked there


def install_dataset(known: Dataset, base: Path, cache: ArchiveCache, kept_archives: Set[str]) -> None:
    """Make an absent dataset: download and unpack its archives, or render it if it has none.

    The dataset is unpacked in a hidden folder. If the process is killed, the next call continues with that folder.

    Args:
        known: the dataset.
        base: the folder of all datasets.
        cache: the folder of archives.
        kept_archives: names of the archives that are not deleted after they are unpacked.

    Raises:
        DataError: the dataset cannot be made; the message has every problem.
    """
    folder, work = base / known.name, base / f".{known.name}.download"
    if not known.sources:
        known.make(folder)
        return
    with file_lock(base / f".{known.name}.lock", cache.log):  # also locked by writing.write_dataset
        if find_folder(known.name, base):  # another process made it
            return
        _unpack_sources(known, work, cache, kept_archives)
        work.replace(folder)
    cache.log(f"{folder} is complete; 'czslkit data verify {known.name}' checks every image in it")


def install_word_vectors(base: Path, cache: ArchiveCache, *, keep: bool) -> None:
    """Download the GloVe word vectors and unpack them to ``base / GLOVE_MEMBER``, unless the file exists.

    Args:
        keep: keep the archive afterwards.
    """
    file = base / GLOVE_MEMBER

    def unpack_vectors(archive: Path) -> None:
        destinations = {GLOVE_MEMBER: [GLOVE_MEMBER]}
        with _temporarily_unpacked(
            archive, lambda name: destinations.get(name, ()), base / ".glove.download"
        ) as folder:
            (folder / GLOVE_MEMBER).replace(file)

    with file_lock(base / ".glove.lock", cache.log):
        if not file.exists():
            cache.use(GLOVE, unpack_vectors)
        if not keep:
            cache.delete(GLOVE)


def _unpack_sources(known: Dataset, work: Path, cache: ArchiveCache, kept_archives: Set[str]) -> None:
    """Unpack all sources of a dataset into ``work``, except sources that an earlier call has unpacked.

    After a source fails, later archives are only downloaded, since unpacking them may need the missing files.
    """
    unpacked = _unpacked_sources(work)
    problems: list[str] = []
    for number, source in enumerate(known.sources, 1):
        label = f"{source.file.name}: {source.within}"
        try:
            if problems:
                cache.use(source.file)
                continue
            if label not in unpacked:
                cache.use(source.file, partial(_unpack_source, known, source, work))
                unpacked = [*unpacked, label]
                write_text(work / _UNPACKED, json.dumps(unpacked))
        except DataError as error:
            problems.append(str(error))
            continue
        needed_later = source.file in [later.file for later in known.sources[number:]]
        if not needed_later and source.file.name not in kept_archives:
            cache.delete(source.file)
    if problems:
        raise DataError("\n".join(problems))


def _unpacked_sources(work: Path) -> list[str]:
    """Return the labels of the sources that are already unpacked in ``work``."""
    try:
        labels: list[str] = json.loads((work / _UNPACKED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return labels


def _unpack_source(known: Dataset, source: Source, work: Path, archive: Path) -> None:
    """Move the files that a dataset needs from one archive to ``work``.

    Raises:
        Refused: the archive is unusable; then ``work`` is not changed.
    """
    with _temporarily_unpacked(archive, known.placement(source, work), work / ".half") as folder:
        if metadata_file(folder).exists():
            _check_metadata(metadata_file(folder))
        for file in folder.rglob("*"):
            if file.is_file():
                target = work / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)


@contextmanager
def _temporarily_unpacked(archive: Path, destinations: Callable[[str], Sequence[str]], folder: Path) -> Iterator[Path]:
    """Unpack the needed members into a temporary folder, which is deleted at the end of the block.

    Raises:
        Refused: the archive is unusable or has none of the needed members.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        if not unpack(archive, destinations, folder):
            raise Refused("the archive has none of the needed files")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_metadata(file: Path) -> None:
    try:
        read_metadata(file)
    except DataError as error:
        raise Refused(str(error)) from error
