"""The field's folder layout of a dataset, read and written; torch is imported only where metadata is.

::

    <folder>/images/...
    <folder>/compositional-split-natural/{train,val,test}_pairs.txt      "attr obj" a line
    <folder>/metadata_compositional-split-natural.t7                     torch.save of [{image, attr, obj, set}, ...]
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from ..errors import DataError

Pair = tuple[str, str]
PHASES = ("train", "val", "test")
ABSENT = "NA"
"""Stands for an attribute or a set that nobody gave."""

_SPLIT = "compositional-split-natural"
_SHOWN = 10  # findings of one kind that a message names; the rest is counted


@dataclass(frozen=True)
class Instance:
    """One picture of the metadata."""

    image: str  # relative to images/, with forward slashes
    attr: str
    obj: str
    set: str  # one of PHASES, or ABSENT
    original: str = ""  # where the images' own archive has it, if that is elsewhere: what UT-Zappos calls _image


@dataclass(frozen=True)
class Listing:
    """What a dataset's own files say it holds."""

    pairs: dict[str, tuple[Pair, ...]]
    """Of each phase, in file order."""
    instances: dict[str, tuple[Instance, ...]]
    """Of each phase, in file order; the phase is the instance's ``set``, whatever its pair."""
    skipped: int
    """Instances without attribute or set, or of a pair that no list holds."""


def images_folder(folder: Path) -> Path:
    return folder / "images"


def pairs_file(folder: Path, phase: str) -> Path:
    return folder / _SPLIT / f"{phase}_pairs.txt"


def metadata_file(folder: Path) -> Path:
    return folder / f"metadata_{_SPLIT}.t7"


def list_files(folder: Path) -> tuple[Path, ...]:
    """The three pair lists and the metadata.

    Raises:
        DataError: some are not there; all of those are named.
    """
    files = (*(pairs_file(folder, phase) for phase in PHASES), metadata_file(folder))
    if absent := [file.relative_to(folder).as_posix() for file in files if not file.is_file()]:
        raise DataError(f"{folder} is not a complete dataset: no {', '.join(absent)}")
    return files


def listed(items: Sequence[str]) -> str:
    """The first ten, and how many more there are.

    >>> listed(["a", "b"]), listed([str(i) for i in range(12)])
    ('a, b', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more')
    """
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def read_listing(folder: Path) -> Listing:
    """The pair lists and the instances that count, by the field's rules.

    Raises:
        DataError: files that are absent or malformed; what is wrong with each is said at once.
    """
    list_files(folder)
    problems: list[str] = []
    pairs: dict[str, tuple[Pair, ...]] = {}
    instances: tuple[Instance, ...] = ()
    for phase in PHASES:
        try:
            pairs[phase] = read_pairs(pairs_file(folder, phase))
        except DataError as error:
            problems.append(str(error))
    try:
        instances = read_metadata(metadata_file(folder))
    except DataError as error:
        problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    known = {pair for phase in PHASES for pair in pairs[phase]}
    used = [i for i in instances if i.attr != ABSENT and i.set != ABSENT and (i.attr, i.obj) in known]
    by_set = {phase: tuple(i for i in used if i.set == phase) for phase in PHASES}
    return Listing(pairs=pairs, instances=by_set, skipped=len(instances) - len(used))


def read_pairs(file: Path) -> tuple[Pair, ...]:
    """The pairs of one list, in file order; empty lines are passed over.

    Raises:
        DataError: lines that are not two words, or a pair that is there twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    rows = [(number, tuple(line.split())) for number, line in enumerate(lines, 1) if line.strip()]
    problems = [f"{file}:{n}: {' '.join(row)!r} is not 'attr obj'" for n, row in rows if len(row) != 2]
    doubled = Counter(row for _, row in rows)
    problems += [f"{file}: {' '.join(row)!r} is listed {n} times" for row, n in doubled.items() if n > 1]
    if problems:
        raise DataError("\n".join([*problems[:_SHOWN], f"{file}: {len(problems)} mistakes in all"]))
    return tuple((row[0], row[1]) for _, row in rows)


def read_metadata(file: Path) -> tuple[Instance, ...]:
    """Every instance of the metadata, those that do not count included.

    Only plain values are read: whatever else the file holds is refused, not run.

    Raises:
        DataError: the file is not a list of instances.
    """
    import torch

    try:
        entries = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle fails in a dozen ways
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{file} is refused, and nothing in it was run: {type(error).__name__}: {reason}") from error
    if not isinstance(entries, list):
        raise DataError(f"{file} holds a {type(entries).__name__}, expected a list of instances")
    if problems := [f"instance {n} {fault}" for n, entry in enumerate(entries) if (fault := _fault(entry))]:
        raise DataError(f"{file}: {listed(problems)}")
    return tuple(Instance(e["image"], e["attr"], e["obj"], e["set"], e.get("_image", "")) for e in entries)


def _fault(entry: Any) -> str:
    """What keeps an entry of the metadata from being an instance, empty when nothing does."""
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, expected a dict"
    for key in ("image", "attr", "obj", "set"):
        if not isinstance(entry.get(key), str):
            return f"has {key}={entry[key]!r}, expected a string" if key in entry else f"has no {key!r}"
    if not isinstance(entry.get("_image", ""), str):
        return f"has _image={entry['_image']!r}, expected a string"
    if entry["set"] not in (*PHASES, ABSENT):
        return f"is of set {entry['set']!r}, expected one of {', '.join(PHASES)}, {ABSENT}"
    return ""


def write_dataset(
    folder: Path, pairs: Mapping[str, Iterable[Pair]], pictures: Iterable[tuple[dict[str, str], Image.Image]]
) -> bool:
    """Write a whole dataset, or nothing: the folder appears under its name once it is complete.

    Of several processes one writes and the others wait for it.

    Args:
        folder: must not exist; what is above it is made.
        pairs: of each phase, in the order they are to be listed.
        pictures: metadata entry and picture; the picture goes to ``images/<entry["image"]>``.

    Returns:
        False if the folder was already there, which is then left as it was.

    Raises:
        DataError: nothing can be written there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if folder.exists():
                return False
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            try:
                _fill(partial, pairs, pictures)
                os.replace(partial, folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}") from error
    return True


def _fill(
    folder: Path, pairs: Mapping[str, Iterable[Pair]], pictures: Iterable[tuple[dict[str, str], Image.Image]]
) -> None:
    import torch

    for phase in PHASES:
        file = pairs_file(folder, phase)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{attr} {obj}\n" for attr, obj in pairs[phase]), encoding="utf-8", newline="\n")
    entries = []
    for entry, picture in pictures:
        file = images_folder(folder) / entry["image"]
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, quality=95)
        entries.append(entry)
    torch.save(entries, metadata_file(folder))
