"""The field's folder layout of a dataset, read and written; torch is imported only where metadata is.

::

    <folder>/images/...
    <folder>/compositional-split-natural/{train,val,test}_pairs.txt      "attr obj" a line
    <folder>/metadata_compositional-split-natural.t7                     torch.save of [{image, attr, obj, set}, ...]
"""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from ..errors import DataError
from ..files import write_bytes

Pair = tuple[str, str]
Picture = tuple[dict[str, str], Image.Image | Path]
SPLITS = ("train", "val", "test")
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
    skipped: tuple[Instance, ...] = ()
    """Those without attribute or set, or of a pair that no list holds."""


def images_folder(folder: Path) -> Path:
    return folder / "images"


def pairs_file(folder: Path, phase: str) -> Path:
    return folder / _SPLIT / f"{phase}_pairs.txt"


def metadata_file(folder: Path) -> Path:
    return folder / f"metadata_{_SPLIT}.t7"


def list_files(folder: Path) -> tuple[Path, ...]:
    """The pair lists and the metadata; of a folder that cannot be written, those that are there.

    Raises:
        DataError: as ``pair_lists``.
    """
    pair_lists(folder)  # writes those that are not there
    files = (*(pairs_file(folder, phase) for phase in SPLITS), metadata_file(folder))
    return tuple(file for file in files if file.is_file())


def pair_lists(folder: Path) -> dict[str, bytes]:
    """Content of the list of each phase.

    A list that is not there is rebuilt: the pairs of the instances whose ``set`` is that phase, sorted; names with
    spaces cannot be listed and are left out. It is written where lists lie, or kept in memory if nothing can be written
    there. Takes torch, which reads the metadata, for that alone.

    Raises:
        DataError: the metadata is not there, or a list that is cannot be read; or, of a list that is not, the metadata
            is malformed.
    """
    files = {phase: pairs_file(folder, phase) for phase in SPLITS}
    absent = [phase for phase in SPLITS if not files[phase].is_file()]
    if not metadata_file(folder).is_file():
        names = [*(files[phase] for phase in absent), metadata_file(folder)]
        raise DataError(
            f"{folder} is not a complete dataset: no {', '.join(name.relative_to(folder).as_posix() for name in names)}"
        )
    lists = _rebuilt(folder, absent) if absent else {}
    try:
        return {phase: lists[phase] if phase in lists else files[phase].read_bytes() for phase in SPLITS}
    except OSError as error:
        raise DataError(f"{folder}: a pair list cannot be read: {error}") from error


def _rebuilt(folder: Path, phases: Sequence[str]) -> dict[str, bytes]:
    pairs: dict[str, set[Pair]] = {phase: set() for phase in phases}
    for instance in read_metadata(metadata_file(folder)):
        words = (instance.attr, instance.obj)
        if instance.set in pairs and instance.attr != ABSENT and all(word.split() == [word] for word in words):
            pairs[instance.set].add(words)
    lists = {phase: list_bytes(sorted(pairs[phase])) for phase in phases}
    try:
        for phase, content in lists.items():
            write_bytes(pairs_file(folder, phase), content)
        kept = "and written"
    except OSError as error:
        kept = f"but not written: {error.strerror or error}"
    names = ", ".join(pairs_file(folder, phase).name for phase in phases)
    _say_once(f"{folder}: {names} rebuilt from the metadata, {kept}")
    return lists


@functools.cache
def _say_once(message: str) -> None:
    print(message, file=sys.stderr)


def list_bytes(pairs: Iterable[Pair]) -> bytes:
    """A list as it stands in its file."""
    return "".join(f"{attr} {obj}\n" for attr, obj in pairs).encode(errors="replace")


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
    lists = pair_lists(folder)
    problems: list[str] = []
    pairs: dict[str, tuple[Pair, ...]] = {}
    instances: tuple[Instance, ...] = ()
    for phase in SPLITS:
        try:
            pairs[phase] = _parsed(lists[phase], pairs_file(folder, phase))
        except DataError as error:
            problems.append(str(error))
    try:
        instances = read_metadata(metadata_file(folder))
    except DataError as error:
        problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return counted(pairs, instances)


def counted(pairs: dict[str, tuple[Pair, ...]], instances: Iterable[Instance]) -> Listing:
    """Which instances count beside these lists, and which are skipped."""
    known = {pair for phase in SPLITS for pair in pairs[phase]}
    found: dict[str, list[Instance]] = {phase: [] for phase in (*SPLITS, ABSENT)}
    for instance in instances:
        used = instance.attr != ABSENT and (instance.attr, instance.obj) in known
        found[instance.set if used else ABSENT].append(instance)
    return Listing(pairs, {phase: tuple(found[phase]) for phase in SPLITS}, tuple(found[ABSENT]))


def read_pairs(file: Path) -> tuple[Pair, ...]:
    """The pairs of one list, in file order; empty lines are passed over.

    Raises:
        DataError: lines that are not two words, or a pair that is there twice.
    """
    try:
        return _parsed(file.read_bytes(), file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _parsed(content: bytes, file: Path) -> tuple[Pair, ...]:
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles
            entries = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    except Exception as error:  # a damaged or hostile pickle fails in a dozen ways
        code = re.search(r"GLOBAL (\S+)|WeightsUnpickler error:\s*(.+)", str(error))
        said = next(filter(None, code.groups())) if code else str(error).strip().partition("\n")[0]
        reason = f"it names {said}" if code and code[1] else f"{type(error).__name__}: {said}"
        raise DataError(
            f"{file} is refused, and nothing in it was run: {reason}; expected a torch.save of plain values. "
            "Take the metadata from its source"
        ) from error
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
    if entry["set"] not in (*SPLITS, ABSENT):
        return f"is of set {entry['set']!r}, expected one of {', '.join(SPLITS)}, {ABSENT}"
    return ""


def write_dataset(
    folder: Path, pairs: Mapping[str, Iterable[Pair]], pictures: Iterable[Picture], *, link: bool = False
) -> bool:
    """Write a whole dataset, or nothing: the folder appears under its name once it is complete.

    Of several processes one writes and the others wait for it.

    Args:
        folder: must not exist; what is above it is made.
        pairs: of each phase, in the order they are to be listed.
        pictures: metadata entry and picture, or a file with it; the picture goes to ``images/<entry["image"]>``.
        link: hard-link files rather than copy them.

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
                _fill(partial, pairs, pictures, link)
                os.replace(partial, folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}") from error
    return True


def _link(picture: Path, file: Path) -> None:
    try:
        os.link(picture.resolve(), file)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise DataError(f"{picture} lies on another disk than {file}: leave out the link, and copy") from error
        raise


def _fill(folder: Path, pairs: Mapping[str, Iterable[Pair]], pictures: Iterable[Picture], link: bool) -> None:
    import torch

    for phase in SPLITS:
        file = pairs_file(folder, phase)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(list_bytes(pairs[phase]))
    entries = []
    for entry, picture in pictures:
        file = images_folder(folder) / entry["image"]
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, Image.Image):
            picture.save(file, quality=95)
        elif link:
            _link(picture, file)
        else:
            shutil.copyfile(picture, file)
        entries.append(entry)
    torch.save(entries, metadata_file(folder))
