"""Read the listing of a dataset in the field's layout from its pair lists and its metadata."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import DataError
from .layout import ABSENT, SPLITS, Instance, Listing, Pair, metadata_file, pairs_file
from .metadata import read_metadata
from .pair_lists import pair_list_contents, parse_pairs


def read_listing(folder: Path) -> Listing:
    """Return the pairs and the images of every split of a dataset.

    An image is skipped if its attribute or its set is missing, or if its pair is in none of the three lists.

    Raises:
        DataError: some files are missing or malformed. The message lists the mistakes of every file.
    """
    contents = pair_list_contents(folder)
    problems: list[str] = []
    pairs: dict[str, tuple[Pair, ...]] = {}
    instances: tuple[Instance, ...] = ()
    for split in SPLITS:
        try:
            pairs[split] = parse_pairs(contents[split], pairs_file(folder, split))
        except DataError as error:
            problems.append(str(error))
    try:
        instances = read_metadata(metadata_file(folder))
    except DataError as error:
        problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return _group_by_split(pairs, instances)


def _group_by_split(pairs: dict[str, tuple[Pair, ...]], instances: Iterable[Instance]) -> Listing:
    known = {pair for split in SPLITS for pair in pairs[split]}
    groups: dict[str, list[Instance]] = {split: [] for split in (*SPLITS, ABSENT)}
    for instance in instances:
        used = instance.attr != ABSENT and (instance.attr, instance.obj) in known
        groups[instance.set if used else ABSENT].append(instance)
    return Listing(pairs, {split: tuple(groups[split]) for split in SPLITS}, tuple(groups[ABSENT]))
