"""Read pictures from folders that are named after an attribute and an object, ``wet_dog/`` or ``wet/dog/``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ...errors import DataError, first_ten
from ...terminal import log_to_stderr
from ..images import is_image
from ..integrity import printable
from ..layout import Pair
from .folder_names import pairs_of_names
from .labelled_pictures import LabelledPicture, label_problem, normalized_label, refuse_if_any

_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


def read_folder(source: Path) -> tuple[str, list[LabelledPicture]]:
    """Return the layout of a folder and its images, and print what is skipped to standard error.

    Other files and hidden folders with images are skipped. The layout is ``ATTR/OBJ`` if more images are in subfolders
    of subfolders than in subfolders, else ``ATTR_OBJ``.

    Raises:
        DataError: ``source`` is not a folder or has no images, or the labels of some images are unclear. The message
            lists every problem.
    """
    if not source.is_dir():
        raise DataError(f"{source} is neither a folder of pictures nor a table")
    inside = {entry: _visible_entries(entry) for entry in _visible_entries(source) if entry.is_dir()}
    nested = _is_nested(inside.values())
    problems = list(_split_problems(inside)) if nested else []
    pictures: list[LabelledPicture] = []
    for folder, pair, problem in _pairs_of_folders(inside, nested):
        problems += [problem] if problem else []
        for file in _visible_entries(folder):
            if file.is_dir():
                problems.append(f"{file.relative_to(source).as_posix()} is a folder, expected images")
            elif is_image(file):
                pictures.append(LabelledPicture(file, *pair))
    outside = [*_visible_entries(source), *(entry for entries in inside.values() for entry in entries if nested)]
    for entry in outside:
        if is_image(entry) and not entry.is_dir():
            name = entry.relative_to(source).as_posix()
            problems.append(f"{name} is not in a folder named after an attribute and an object")
    layout = "ATTR/OBJ" if nested else "ATTR_OBJ"
    refuse_if_any(source, problems)
    if not pictures:
        raise DataError(
            f"{source} has no folder of images; expected {source.name}/ATTR_OBJ/*.jpg or {source.name}/ATTR/OBJ/*.jpg"
        )
    if skipped := [file for file in _visible_files(source) if not is_image(file)]:
        names = [printable(file.relative_to(source).as_posix()) for file in skipped]
        log_to_stderr(f"skipped files without an image suffix: {first_ten(names)}")
    if hidden := [folder for folder in _hidden_folders(source) if any(map(is_image, _visible_files(folder)))]:
        names = [printable(folder.relative_to(source).as_posix()) for folder in hidden]
        log_to_stderr(f"skipped hidden folders with images: {first_ten(names)}")
    return layout, pictures


def _is_nested(inside: Collection[list[Path]]) -> bool:
    """Return whether more images are in subfolders than beside them, given the entries of several folders."""
    entries = [entry for entries in inside for entry in entries]
    beside = sum(is_image(entry) for entry in entries if not entry.is_dir())
    return sum(is_image(file) for entry in entries if entry.is_dir() for file in _visible_entries(entry)) > beside


def _split_problems(folders: Mapping[Path, list[Path]]) -> Iterator[str]:
    """Yield the problem of folders that are named after splits, and not after attributes."""
    names = [folder.name for folder in folders]
    if names and {name.lower() for name in names} <= _SPLIT_NAMES:
        yield f"the folders {', '.join(names)} are named after splits: import a table with a column 'split'"


def _pairs_of_folders(inside: Mapping[Path, list[Path]], nested: bool) -> Iterator[tuple[Path, Pair, str]]:
    """Yield every folder of images with its attribute and object, and their problem, empty if they can be used."""
    named = {} if nested else pairs_of_names([folder.name for folder in inside])
    for folder, entries in inside.items():
        if not nested:
            found = named[folder.name]
            yield (folder, ("", ""), found) if isinstance(found, str) else (folder, found, _pair_problem(found))
            continue
        for entry in entries:
            if entry.is_dir():
                pair = normalized_label(folder.name), normalized_label(entry.name)
                yield entry, pair, _pair_problem(pair)


def _pair_problem(pair: Pair) -> str:
    return " and ".join(filter(None, (label_problem("attr", pair[0]), label_problem("obj", pair[1]))))


def _visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of its subfolders, without hidden ones."""
    for entry in _visible_entries(folder):
        if entry.is_dir():
            yield from _visible_files(entry)
        else:
            yield entry


def _hidden_folders(folder: Path) -> Iterator[Path]:
    """Yield the hidden folders in a folder and in its subfolders, but none in another hidden folder."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name.startswith("."):
            yield entry
        elif entry.is_dir():
            yield from _hidden_folders(entry)


def _visible_entries(folder: Path) -> list[Path]:
    """Return the files and folders that are not hidden, in the same order on every system."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
