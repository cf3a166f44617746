"""Import your own pictures as a dataset in the field's layout."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import ConfigError, DataError, first_ten
from ...options import user_path
from ...seeds import seed_problems
from ...terminal import tracked
from ..check.image_files import examined_images
from ..dataset_folders import canonical, data_root
from ..datasets import DATASETS
from ..integrity import listing_errors, printable
from ..layout import SPLITS, Instance, Listing, Pair
from ..left_out import LARGEST_SHARE
from ..pair_lists import unlistable
from ..removal import check_removable
from ..writing import write_dataset
from .labelled_pictures import LabelledPicture, refuse_if_any
from .picture_folder import read_folder
from .picture_table import read_table
from .split_rule import assign_splits

_FORBIDDEN = re.compile(r'[\x00-\x1f\\/:*?"<>|]')  # characters that some system does not accept in file names


def import_dataset(
    source: str | Path,
    name: str,
    root: str | Path | None = None,
    *,
    seed: int = 0,
    unseen: float = 0.2,
    link: bool = False,
    force: bool = False,
) -> Path:
    """Make a dataset from a folder of pictures or from a table. It can then be loaded by name, like any dataset.

    The pictures are read upright, as their EXIF data asks, and in 8 bits. Pictures that cannot be read are set aside:
    they are printed to standard error, and ``imported.json`` in the new folder has all of them with the reason.

    Args:
        source: a folder with one subfolder for each pair, named ``attr_obj`` or ``attr obj``; a folder with one
            subfolder for each attribute, which has one subfolder for each object; or a table with the
            columns ``image`` (a path relative to the table), ``attr``, ``obj`` and, if the splits are known, ``split``
            or ``set``. The columns are separated by tabs in a ``.tsv`` file and by commas in any other file.
        name: name of the new dataset.
        root: the folder of all datasets, as in ``load_dataset``.
        seed: seed of ``assign_splits``, which makes the splits if the source has none.
        unseen: share of the pairs that are not in the training split, if the source has no splits. With 0, all pairs
            are trained, and validation and test have other pictures of the same pairs.
        link: make hard links to the pictures instead of copies; the pictures must then be on the same disk.
        force: replace a dataset of this name that czslkit wrote.

    Returns:
        The new folder, which appears once it is complete.

    Raises:
        ConfigError: the name is taken or not allowed, ``unseen`` is not 0 or more and below 1, or ``seed`` is no seed.
        DataError: the source has problems, which the message lists; the dataset exists, and ``force`` is false or
            czslkit did not write it; or the dataset cannot be written.
    """
    source, folder = user_path(source), data_root(root) / name
    if problems := [*_dataset_name_problems(name), *_share_problems(unseen), *seed_problems(seed)]:
        raise ConfigError(problems)
    if folder.exists():
        if not force:
            raise _already_exists(folder)
        check_removable(folder)
    layout, pictures = ("a table", read_table(source)) if source.is_file() else read_folder(source)
    if folder.exists() and any(folder.resolve() in picture.file.resolve().parents for picture in pictures):
        raise DataError(f"{source} has pictures in {folder}, which would be replaced: move them first")
    pictures, record = _readable(source, pictures)
    instances = _instances(pictures, seed, unseen)
    pairs = _pair_lists(source, instances)
    entries = (
        ({"image": i.image, "attr": i.attr, "obj": i.obj, "set": i.set}, picture.file)
        for i, picture in zip(instances, pictures, strict=True)
    )
    shown = tracked(entries, "images imported", len(instances))
    imported = {"layout": layout, "seed": seed, "unseen": unseen, **record}
    if not write_dataset(folder, pairs, shown, link=link, replace=force, imported=imported):
        raise _already_exists(folder)
    return folder


def _readable(source: Path, pictures: Sequence[LabelledPicture]) -> tuple[list[LabelledPicture], dict[str, object]]:
    """Return the pictures that can be read, and the part of ``imported.json`` about single pictures.

    Raises:
        DataError: no picture can be read.
    """
    readable: list[LabelledPicture] = []
    set_aside: list[dict[str, str]] = []
    kinds: Counter[str] = Counter()
    examined = examined_images([picture.file for picture in pictures], imported=True)
    for picture, (file, found) in zip(pictures, examined, strict=True):
        kinds.update(found.kinds)
        if found.error:
            set_aside.append({"file": str(file), "reason": found.error})
        else:
            readable.append(picture)
    reasons = first_ten([f"{printable(one['file'])}: {one['reason']}" for one in set_aside], "\n  ")
    if not readable:
        raise DataError(f"{source}: none of {len(pictures)} pictures can be read:\n  {reasons}")
    if set_aside:
        what = f"{len(set_aside)} of {len(pictures)} pictures cannot be read and are set aside"
        print(f"warning: {what}:\n  {reasons}", file=sys.stderr)
        if len(set_aside) > LARGEST_SHARE * len(pictures):
            limit = f"which is more than {LARGEST_SHARE:.0%}: czslkit bench needs --allow-missing to run without them"
            print(f"warning: {what}, {limit}", file=sys.stderr)
    return readable, {"pictures": dict(kinds), "set_aside": set_aside}


def _dataset_name_problems(name: str) -> Iterator[str]:
    if not re.fullmatch(r"[^\W_][\w.-]*", name):
        yield f"a dataset cannot be named {name!r}: expected a letter or digit, then letters, digits, '_', '-' and '.'"
    elif name == "all" or canonical(name) in DATASETS:
        yield f"the name {name!r} is taken: it means {'several datasets' if name == 'all' else canonical(name)}"


def _share_problems(unseen: float) -> Iterator[str]:
    if not 0 <= unseen < 1:
        yield f"unseen is {unseen}, expected 0 or more and below 1"


def _already_exists(folder: Path) -> DataError:
    return DataError(f"{folder} exists already and is not changed; --force (force=True) replaces an imported dataset")


def _instances(pictures: Sequence[LabelledPicture], seed: int, unseen: float) -> list[Instance]:
    """Return the metadata of the pictures, with splits from the source or else from ``assign_splits``."""
    names = _file_names(pictures)
    if any(picture.split for picture in pictures):
        splits = {name: picture.split for name, picture in zip(names, pictures, strict=True)}
    else:
        by_pair: dict[Pair, list[str]] = defaultdict(list)
        for name, picture in zip(names, pictures, strict=True):
            by_pair[picture.attr.replace(" ", "_"), picture.obj.replace(" ", "_")].append(name)
        splits = assign_splits(by_pair, seed=seed, unseen=unseen)
    return [Instance(n, p.attr, p.obj, splits[n]) for n, p in zip(names, pictures, strict=True)]


def _file_names(pictures: Iterable[LabelledPicture]) -> list[str]:
    """Return a path below ``images`` for each picture, valid on every system and unique even if case is ignored."""
    taken: set[str] = set()
    names = []
    for picture in pictures:
        file = Path(_valid_file_name(picture.file.name))
        folder, stem, number = _valid_file_name(f"{picture.attr}_{picture.obj}".replace(" ", "_")), file.stem, 1
        while (name := f"{folder}/{file.name}").casefold() in taken:
            number += 1
            file = file.with_name(f"{stem}-{number}{file.suffix}")
        taken.add(name.casefold())
        names.append(name)
    return names


def _valid_file_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name).encode(errors="replace").decode()  # invalid bytes become '?'
    return _FORBIDDEN.sub("_", name).lstrip(".") or "_"


def _pair_lists(source: Path, instances: Sequence[Instance]) -> dict[str, tuple[Pair, ...]]:
    """Return the sorted pairs of each split.

    Raises:
        DataError: the splits cannot be used for training and evaluation.
    """
    by_split = {split: tuple(i for i in instances if i.set == split) for split in SPLITS}
    pairs = {split: tuple(sorted({(i.attr, i.obj) for i in by_split[split]})) for split in SPLITS}
    problems = [
        f"{attr!r}, {obj!r}: a '+' in a label, while labels have spaces, cannot be listed: write it in words"
        for attr, obj in dict.fromkeys(pair for split in SPLITS for pair in unlistable(pairs[split]))
    ]
    refuse_if_any(source, problems + [str(finding) for finding in listing_errors(Listing(pairs, by_split))])
    return pairs
