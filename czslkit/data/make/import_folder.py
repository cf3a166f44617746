"""Pictures of one's own, made a dataset in the field's layout."""

from __future__ import annotations

import csv
import os
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ...errors import ConfigError, DataError
from ..check.lint import MISSING_LABELS
from ..datasets import DATASETS
from ..folders import canonical, data_root
from ..integrity import disagreements, printable
from ..layout import ABSENT, SPLITS, Instance, Listing, Pair, listed, write_dataset
from .split_rule import assign_splits

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""Of the files in a folder that are taken for images, in any case."""
COLUMNS = ("image", "attr", "obj")

_SPLIT_COLUMNS = ("split", "set")
_LONGEST = 300  # characters of a path that a message shows
_FORBIDDEN = re.compile(r'[\x00-\x1f\\/:*?"<>|]')  # in names of files, on one system or another


@dataclass(frozen=True)
class Picture:
    """A file with what it shows."""

    file: Path
    attr: str
    obj: str
    split: str = ""  # empty if it is to be divided


def import_dataset(
    source: str | Path,
    name: str,
    root: str | Path | None = None,
    *,
    seed: int = 0,
    unseen: float = 0.2,
    link: bool = False,
) -> Path:
    """Make a dataset of a folder of pictures or of a table; it is then used by name as any other.

    Args:
        source: a folder of folders named ``attr_obj`` or ``attr obj``, or a table, ``.tsv`` or else with commas, with
            columns ``image`` (a path, relative to the table), ``attr``, ``obj`` and, if there are splits already,
            ``split`` or ``set``.
        name: of the dataset.
        root: folder of the datasets, as for ``load_dataset``.
        seed: of ``division.divide``, which makes splits where there are none.
        unseen: share of the pairs that is not trained on, where there are no splits.
        link: hard-link the pictures rather than copy them; they must then lie on the same disk.

    Returns:
        The new folder. It appears once it is complete.

    Raises:
        ConfigError: a name that is taken or would not do, or a share that is none.
        DataError: no such dataset can be made of ``source``, for all reasons that were found, or it cannot be written.
    """
    source, folder = Path(source).expanduser(), data_root(root) / name
    if problems := [*_misnamed(name), *([] if 0 < unseen < 1 else [f"unseen is {unseen}, expected between 0 and 1"])]:
        raise ConfigError(problems)
    if folder.exists():
        raise DataError(f"{folder} is there already, and is left as it is")
    pictures = _of_table(source) if source.is_file() else _of_folder(source)
    names = _file_names(pictures)
    if not any(picture.split for picture in pictures):
        by_pair: dict[Pair, list[str]] = defaultdict(list)
        for image, picture in zip(names, pictures, strict=True):
            by_pair[picture.attr, picture.obj].append(image)
        phases = assign_splits(by_pair, seed=seed, unseen=unseen)
    else:
        phases = {image: picture.split for image, picture in zip(names, pictures, strict=True)}
    instances = [Instance(n, p.attr, p.obj, phases[n]) for n, p in zip(names, pictures, strict=True)]
    pairs = _checked(source, instances).pairs
    entries = (
        ({"image": i.image, "attr": i.attr, "obj": i.obj, "set": i.set}, p.file)
        for i, p in zip(instances, pictures, strict=True)
    )
    shown = tqdm(entries, "images imported", len(instances), leave=False, disable=None)  # on a terminal alone
    if not write_dataset(folder, pairs, shown, link=link):
        raise DataError(f"{folder} is there already, and is left as it is")
    return folder


def _misnamed(name: str) -> Iterator[str]:
    if not re.fullmatch(r"[^\W_][\w.-]*", name):
        yield f"a dataset cannot be named {name!r}: expected a letter or digit, then letters, digits, '_', '-' and '.'"
    elif name == "all" or canonical(name) in DATASETS:
        yield f"the name {name!r} is taken: it stands for {'several datasets' if name == 'all' else canonical(name)}"


def _of_folder(source: Path) -> list[Picture]:
    """The images of every folder in ``source``.

    Raises:
        DataError: there is no such folder, or it is not clear what some images show; all of that.
    """
    if not source.is_dir():
        raise DataError(f"{source} is neither a folder of pictures nor a table")
    problems: list[str] = []
    left_out: list[str] = []
    pictures: list[Picture] = []
    for folder in _entries(source):
        if not folder.is_dir():
            if _is_image(folder):
                problems.append(f"{folder.name} lies in no folder that says what it shows")
            else:
                left_out.append(folder.name)
            continue
        pair, problem = _pair(folder.name)
        problems += [problem] if problem else []
        for file in _entries(folder):
            if file.is_dir():
                problems.append(f"{folder.name}/{file.name} is a folder, expected images")
            elif _is_image(file):
                pictures.append(Picture(file, *pair))
            else:
                left_out.append(f"{folder.name}/{file.name}")
    _refuse(source, problems)
    if not pictures:
        raise DataError(f"{source} holds no folder of images; expected {source.name}/ATTR_OBJ/*.jpg")
    if left_out:
        print(f"left out, by their names no images: {listed(list(map(printable, left_out)))}", file=sys.stderr)
    return pictures


def _pair(folder: str) -> tuple[Pair, str]:
    """What a folder's name says that its images show, or why that is not clear."""
    words = folder.split()
    words = folder.split("_") if len(words) == 1 else words
    if len(words) != 2 or not all(words):
        advice = "name it 'attr obj' with one space, or give a table"
        return ("", ""), f"{folder!r} is not clearly an attribute and an object: {advice}"
    pair = _word(words[0]), _word(words[1])
    return pair, " and ".join(filter(None, (_unfit("attr", pair[0]), _unfit("obj", pair[1]))))


def _of_table(source: Path) -> list[Picture]:
    """The images of every row.

    Raises:
        DataError: the table cannot be read or says too little; everything that is wrong with it.
    """
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t" if source.suffix.lower() == ".tsv" else ",")
            columns, rows = list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source} is not a readable table: {error}") from error
    splits = [column for column in _SPLIT_COLUMNS if column in columns]
    if missing := [column for column in COLUMNS if column not in columns]:
        found = ", ".join(map(repr, columns)) or "nothing"
        raise DataError(f"{source} has no column {', '.join(missing)}; its first line has {found}")
    if doubled := [column for column in (*COLUMNS, *splits) if columns.count(column) > 1]:
        raise DataError(f"{source} has several columns {', '.join(doubled)}")
    if len(splits) > 1:
        raise DataError(f"{source} has two columns of splits: {' and '.join(splits)}")
    problems: list[str] = []
    lines: dict[Path, int] = {}
    pictures: list[Picture] = []
    for line, row in rows:
        picture = _row(source.parent, row, splits)
        if isinstance(picture, str):
            problems.append(f"line {line}: {picture}")
        elif (same := lines.setdefault(picture.file.resolve(), line)) != line:
            problems.append(f"line {line}: {row['image']!r} is also the image of line {same}")
        else:
            pictures.append(picture)
    _refuse(source, problems)
    if not pictures:
        raise DataError(f"{source} has no row below its first line")
    return pictures


def _row(folder: Path, row: dict[str, str], splits: list[str]) -> Picture | str:
    """The picture of a row of a table, or everything that is wrong with it."""
    if None in row or None in row.values():
        return "the number of its cells is not that of the first line"
    attr, obj = _word(row["attr"]), _word(row["obj"])
    problems = [_unfit("attr", attr), _unfit("obj", obj)]
    files = (folder / row["image"], folder / row["image"].replace("\\", "/"))
    file = next((file for file in files if os.path.isfile(file)), None)
    if file is None:
        problems.append(f"there is no image {str(files[0])[:_LONGEST]!r}")
    elif not _is_image(file):
        problems.append(f"{row['image']!r} is no image by its name; expected {', '.join(sorted(SUFFIXES))}")
    split = row[splits[0]] if splits else ""
    if splits and split not in SPLITS:
        problems.append(f"{splits[0]} is {split!r}, expected {', '.join(SPLITS)}")
    said = "; ".join(filter(None, problems))
    return said if said or file is None else Picture(file, attr, obj, split)


def _word(text: str) -> str:
    """A label as lists and metadata have it: composed letters, and ``_`` for spaces."""
    return "_".join(unicodedata.normalize("NFC", text).split())


def _unfit(column: str, word: str) -> str:
    """Why a label would not do, empty if it does."""
    if not word or word == ABSENT or word.lower() in MISSING_LABELS:
        return f"{column} is {word!r}, which stands for a label that nobody gave"
    if not word.isprintable() or "/" in word or "\\" in word:
        return f"{column} is {word!r}, expected no '/', no '\\' and nothing that cannot be printed"
    return ""


def _file_names(pictures: Iterable[Picture]) -> list[str]:
    """Where each picture goes below ``images``: names that any system takes, no two alike but for case."""
    taken: set[str] = set()
    names = []
    for picture in pictures:
        file = Path(_fit(picture.file.name))
        folder, stem, n = _fit(f"{picture.attr}_{picture.obj}"), file.stem, 1
        while (name := f"{folder}/{file.name}").casefold() in taken:
            n += 1
            file = file.with_name(f"{stem}-{n}{file.suffix}")
        taken.add(name.casefold())
        names.append(name)
    return names


def _fit(name: str) -> str:
    name = unicodedata.normalize("NFC", name).encode(errors="replace").decode()  # bytes that are no text become '?'
    return _FORBIDDEN.sub("_", name).lstrip(".") or "_"


def _checked(source: Path, instances: list[Instance]) -> Listing:
    """The dataset's lists.

    Raises:
        DataError: they do not make a task.
    """
    by_set = {phase: tuple(i for i in instances if i.set == phase) for phase in SPLITS}
    listing = Listing({phase: tuple(sorted({(i.attr, i.obj) for i in by_set[phase]})) for phase in SPLITS}, by_set)
    _refuse(source, [str(finding) for finding in disagreements(listing)])
    return listing


def _refuse(source: Path, problems: list[str]) -> None:
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise DataError("\n  ".join([f"{source} cannot be imported:", *problems[:10], *more]))


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in one order everywhere, without what is hidden."""
    return sorted((each for each in folder.iterdir() if not each.name.startswith(".")), key=lambda each: each.name)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES
