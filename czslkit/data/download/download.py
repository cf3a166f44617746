"""Datasets from their archives: fetched, checked, unpacked in the field's layout, there whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from ...errors import ConfigError, DataError
from ...files import file_lock, log_to_stderr, write_text
from ..datasets import Dataset
from ..folders import data_root, dataset, find_folder
from ..layout import metadata_file
from ..metadata import read_metadata
from ..published import BENCHMARKS
from ..sources import DOWNLOADS, GLOVE, GLOVE_MEMBER, Refused, Source
from .archive_cache import ArchiveCache, Log
from .archives import unpack
from .resumable_http import Web

_DONE = ".unpacked.json"  # in a dataset's folder: which of its sources are


def download(
    names: Sequence[str] | str,
    root: str | Path | None = None,
    *,
    mirror: str | None = None,
    glove: bool = False,
    keep: bool = False,
    web: Web | None = None,
    log: Log | None = None,
) -> tuple[Path, ...]:
    """Get datasets ready to be loaded; those that are there are left as they are.

    Killed at any moment and called again, it goes on. Of several processes one works and the others wait for it.
    Archives that lie in ``<root>/.downloads`` are used as if they had been fetched. When an archive is used for the
    first time its SHA-256 is noted there; later ones have to be the same.

    Args:
        names: registered names; ``all`` for MIT-States, UT-Zappos and C-GQA.
        root: the folder that holds datasets; by default ``CZSLKIT_DATA`` from the environment, else ``./data``.
        mirror: a URL below which every archive is looked for first, by its file name.
        glove: also the word vectors that published feasibilities are made of, as ``<root>/glove.6B.300d.txt``.
        keep: leave the archives there, which are else deleted as soon as they are unpacked.
        web: how files are fetched.
        log: called with a line for every step; standard error if None.

    Returns:
        The folder of each dataset, and the file of the word vectors.

    Raises:
        UnknownNameError: a name that no dataset is registered by; nothing has been done.
        ConfigError: the mirror is no URL of the web; nothing has been done.
        DataError: something could not be had or written: why each source failed, and where to put which file by hand.
            The rest is there.
    """
    base, asked = data_root(root), (names,) if isinstance(names, str) else names
    asked = [each for name in asked for each in (BENCHMARKS if name == "all" else (name,))]
    depot = ArchiveCache(base / DOWNLOADS, _mirrors(mirror), web or Web(), log or log_to_stderr)
    there = {dataset(name).name: find_folder(name, base) for name in asked}
    absent = [dataset(name) for name, folder in there.items() if folder is None]
    steps = {name: partial(_check, name, folder) for name, folder in there.items() if folder}
    for number, known in enumerate(absent):
        users = absent if keep else absent[number + 1 :]
        kept = {source.file.name for user in users for source in user.sources}
        steps[known.name] = partial(_prepare, known, base, depot, kept)
    if glove:
        steps["GloVe"] = partial(_prepare_glove, base, depot, keep=keep)
    problems = []
    for name, step in steps.items():
        try:
            with _writing(base):
                step()
        except DataError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise DataError("\n".join(problems))
    folders = tuple(folder for name in there if (folder := find_folder(name, base)))
    return (*folders, base / GLOVE_MEMBER) if glove else folders


def _check(name: str, folder: Path) -> None:
    try:
        dataset(name).files(folder)
    except DataError as error:
        raise DataError(f"{error}. Move that folder away to have the dataset downloaded") from error


def _prepare(known: Dataset, base: Path, depot: ArchiveCache, keep: Set[str]) -> None:
    """Make a dataset that is absent.

    Args:
        keep: names of archives that are to stay.
    """
    folder, work = base / known.name, base / f".{known.name}.download"
    if not known.sources:
        known.make(folder)
        return
    with file_lock(base / f".{known.name}.lock", depot.log):  # the lock of writing.write_dataset
        if find_folder(known.name, base):
            return
        done = _done(work)
        problems: list[str] = []
        for number, source in enumerate(known.sources, 1):
            label = f"{source.file.name}: {source.within}"
            try:
                if problems:  # it may build on what is missing: just have it here
                    depot.use(source.file)
                    continue
                if label not in done:
                    depot.use(source.file, partial(_take, known, source, work))
                    done = [*done, label]
                    write_text(work / _DONE, json.dumps(done))
            except DataError as error:
                problems.append(str(error))
                continue
            if source.file.name not in keep and source.file not in (other.file for other in known.sources[number:]):
                depot.drop(source.file)
        if problems:
            raise DataError("\n".join(problems))
        work.replace(folder)
    depot.log(f"{folder} is there; 'czslkit data verify {known.name}' looks at every image of it")


def _prepare_glove(base: Path, depot: ArchiveCache, *, keep: bool) -> None:
    file = base / GLOVE_MEMBER

    def take(archive: Path) -> None:
        place = {GLOVE_MEMBER: [GLOVE_MEMBER]}
        with _unpacked(archive, lambda name: place.get(name, ()), base / ".glove.download") as folder:
            (folder / GLOVE_MEMBER).replace(file)

    with file_lock(base / ".glove.lock", depot.log):
        if not file.exists():
            depot.use(GLOVE, take)
        if not keep:
            depot.drop(GLOVE)


def _take(known: Dataset, source: Source, work: Path, archive: Path) -> None:
    """Move what a dataset needs of an archive to ``work``."""
    with _unpacked(archive, known.placement(source, work), work / ".half") as half:
        if metadata_file(half).exists():
            _check_metadata(metadata_file(half))
        for file in half.rglob("*"):
            if file.is_file():
                target = work / file.relative_to(half)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)


@contextmanager
def _unpacked(archive: Path, place: Callable[[str], Sequence[str]], folder: Path) -> Iterator[Path]:
    """What is needed of an archive, in a folder that is made for it and does not outlast it.

    Raises:
        Refused: the archive cannot be used.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        if not unpack(archive, place, folder):
            raise Refused("it holds nothing of what is needed")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(base: Path) -> Iterator[None]:
    """Says of an error of the disk what it means here."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write below {base}: {error}. What has come is kept; once that is put right, the same command "
            "goes on from there"
        ) from error


def _check_metadata(file: Path) -> None:
    try:
        read_metadata(file)
    except DataError as error:
        raise Refused(str(error)) from error


def _done(work: Path) -> list[str]:
    """The sources that are unpacked in a folder."""
    try:
        done: list[str] = json.loads((work / _DONE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return done


def _mirrors(mirror: str | None) -> tuple[str, ...]:
    if mirror is None:
        return ()
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
        raise ConfigError([f"the mirror is {mirror!r}, expected a URL such as https://host/folder"])
    return (mirror,)
