"""Import your own pictures as a dataset in the field's layout."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ...errors import ConfigError, DataError
from ...options import seed_problems, user_path
from ...terminal import tracked
from ..dataset_folders import canonical, data_root
from ..datasets import DATASETS
from ..integrity import listing_errors
from ..layout import SPLITS, Instance, Listing, Pair
from ..pair_lists import unlistable
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
) -> Path:
    """Make a dataset from a folder of pictures or from a table. It can then be loaded by name, like any dataset.

    Args:
        source: a folder with one subfolder for each pair, named ``attr_obj`` or ``attr obj``; or a table with the
            columns ``image`` (a path relative to the table), ``attr``, ``obj`` and, if the splits are known, ``split``
            or ``set``. The columns are separated by tabs in a ``.tsv`` file and by commas in any other file.
        name: name of the new dataset.
        root: the folder of all datasets, as in ``load_dataset``.
        seed: seed of ``assign_splits``, which makes the splits if the source has none.
        unseen: share of the pairs that are not in the training split, if the source has no splits.
        link: make hard links to the pictures instead of copies; the pictures must then be on the same disk.

    Returns:
        The new folder, which appears once it is complete.

    Raises:
        ConfigError: the name is taken or not allowed, ``unseen`` is not between 0 and 1, or ``seed`` is no seed.
        DataError: the source has problems, which the message lists; or the dataset cannot be written.
    """
    source, folder = user_path(source), data_root(root) / name
    if problems := [*_dataset_name_problems(name), *_share_problems(unseen), *seed_problems(seed)]:
        raise ConfigError(problems)
    if folder.exists():
        raise _already_exists(folder)
    pictures = read_table(source) if source.is_file() else read_folder(source)
    instances = _instances(pictures, seed, unseen)
    pairs = _pair_lists(source, instances)
    entries = (
        ({"image": i.image, "attr": i.attr, "obj": i.obj, "set": i.set}, picture.file)
        for i, picture in zip(instances, pictures, strict=True)
    )
    if not write_dataset(folder, pairs, tracked(entries, "images imported", len(instances)), link=link):
        raise _already_exists(folder)
    return folder


def _dataset_name_problems(name: str) -> Iterator[str]:
    if not re.fullmatch(r"[^\W_][\w.-]*", name):
        yield f"a dataset cannot be named {name!r}: expected a letter or digit, then letters, digits, '_', '-' and '.'"
    elif name == "all" or canonical(name) in DATASETS:
        yield f"the name {name!r} is taken: it means {'several datasets' if name == 'all' else canonical(name)}"


def _share_problems(unseen: float) -> Iterator[str]:
    if not 0 < unseen < 1:
        yield f"unseen is {unseen}, expected between 0 and 1"


def _already_exists(folder: Path) -> DataError:
    return DataError(f"{folder} exists already and is not changed")


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
