"""Download datasets by name. Each dataset appears under its name once it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from ...errors import ConfigError, DataError
from ...terminal import log_to_stderr
from ..dataset_folders import data_root, dataset, find_folder
from ..published import BENCHMARKS
from ..sources import DOWNLOADS, GLOVE_MEMBER
from .archive_cache import ArchiveCache, Log
from .install import install_dataset, install_word_vectors
from .resumable_http import HttpClient

Step = Callable[[], None]


def download(
    names: Sequence[str] | str,
    root: str | Path | None = None,
    *,
    mirror: str | None = None,
    glove: bool = False,
    keep: bool = False,
    client: HttpClient | None = None,
    log: Log | None = None,
) -> tuple[Path, ...]:
    """Download and unpack datasets, so that they can be loaded. Datasets that exist already are not changed.

    After an interruption, the same call continues the download. If several processes ask for the same dataset, one
    process works and the others wait. An archive that you put into ``<root>/.downloads`` is not downloaded. At the
    first use of an archive, its SHA-256 is recorded there; later archives of this name must have the same SHA-256.

    Args:
        names: registered names; ``all`` means MIT-States, UT-Zappos and C-GQA.
        root: the folder of all datasets; by default ``CZSLKIT_DATA`` from the environment, else ``./data``.
        mirror: URL of a folder in which every archive is searched first, by its file name.
        glove: also download the word vectors for published feasibility scores, to ``<root>/glove.6B.300d.txt``.
        keep: keep the archives in ``<root>/.downloads``; by default each archive is deleted after it is unpacked.
        client: timeouts and retries of the HTTP requests.
        log: called with one line of text for each step; by default the line goes to standard error.

    Returns:
        The folder of each dataset, followed by the file of word vectors if ``glove`` is set.

    Raises:
        UnknownNameError: a name is not registered; nothing was changed.
        ConfigError: the mirror is not a web URL; nothing was changed.
        DataError: some datasets could not be downloaded or written. The message has the error of each source, and the
            path where you can save the archive yourself. All other datasets are complete.
    """
    base, requested = data_root(root), (names,) if isinstance(names, str) else names
    requested = [expanded for name in requested for expanded in (BENCHMARKS if name == "all" else (name,))]
    cache = ArchiveCache(base / DOWNLOADS, _mirrors(mirror), client or HttpClient(), log or log_to_stderr)
    folders = {dataset(name).name: find_folder(name, base) for name in requested}
    steps: dict[str, Step] = {name: partial(_check_files, name, folder) for name, folder in folders.items() if folder}
    steps |= _install_steps([name for name, folder in folders.items() if not folder], base, cache, keep)
    if glove:
        steps["GloVe"] = partial(install_word_vectors, base, cache, keep=keep)
    if problems := _run(steps, base):
        raise DataError("\n".join(problems))
    complete = tuple(folder for name in folders if (folder := find_folder(name, base)))
    return (*complete, base / GLOVE_MEMBER) if glove else complete


def _install_steps(absent: Sequence[str], base: Path, cache: ArchiveCache, keep: bool) -> dict[str, Step]:
    """Return a step for each absent dataset. It does not delete archives that a later dataset needs."""
    steps: dict[str, Step] = {}
    for number, name in enumerate(absent):
        users = absent if keep else absent[number + 1 :]
        kept_archives = {source.file.name for user in users for source in dataset(user).sources}
        steps[name] = partial(install_dataset, dataset(name), base, cache, kept_archives)
    return steps


def _run(steps: Mapping[str, Step], base: Path) -> list[str]:
    """Run every step and return the message of each step that fails."""
    problems = []
    for name, step in steps.items():
        try:
            with _explain_disk_errors(base):
                step()
        except DataError as error:
            problems.append(f"{name}: {error}")
    return problems


def _check_files(name: str, folder: Path) -> None:
    """Check that an existing dataset has all files."""
    try:
        dataset(name).files(folder)
    except DataError as error:
        raise DataError(f"{error}. Move that folder away and run the command again to download the dataset") from error


@contextmanager
def _explain_disk_errors(base: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a ``DataError`` that says how to continue."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write in {base}: {error}. All downloaded bytes are kept: remove the cause and run the command "
            "again to continue"
        ) from error


def _mirrors(mirror: str | None) -> tuple[str, ...]:
    if mirror is None:
        return ()
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
        raise ConfigError([f"the mirror is {mirror!r}, expected a URL such as https://host/folder"])
    return (mirror,)
