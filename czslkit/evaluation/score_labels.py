"""The pair of each column of a score file, and the true pair of each of its images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.pair_lists import split_lines
from ..errors import ConfigError, DataError
from ..foreign_files import TEXT_LIMIT, read_regular, text_lines
from ..types import PairSpace

Pairs = Sequence[tuple[str, str]]  # attribute and object of each pair
Labels = tuple[Tensor, Tensor]  # [N] long, attribute and object of each image

_MAX_NAMED = 5  # mistakes of one kind that a message names; the others are counted


def label_space(pairs: Pairs, seen: Pairs) -> PairSpace:
    """Return the label space of the columns ``pairs``, with attributes and objects sorted by name.

    Args:
        pairs: the pair of each column.
        seen: the pairs that were trained on.

    Raises:
        ConfigError: there are no pairs, or a seen pair has no column.
    """
    if not pairs:
        raise ConfigError(["there are no pairs: expected an 'attribute object' for each column of the scores"])
    attrs, objs = (tuple(sorted(set(names))) for names in zip(*pairs, strict=True))
    attr_numbers, obj_numbers = ({name: i for i, name in enumerate(names)} for names in (attrs, objs))
    rows = torch.tensor([[attr_numbers[attr], obj_numbers[obj]] for attr, obj in pairs])
    return PairSpace(attrs, objs, rows, pair_mask(pairs, seen, "seen"))


def pair_mask(pairs: Pairs, chosen: Pairs, kind: str) -> Tensor:
    """Return which of the columns ``pairs`` are among the ``chosen`` pairs, ``[K]`` bool.

    Args:
        pairs: the pair of each column.
        chosen: some of these pairs.
        kind: adjective for the chosen pairs in the message, such as ``seen``.

    Raises:
        ConfigError: chosen pairs have no column.
    """
    known = set(pairs)
    if unknown := [pair for pair in chosen if pair not in known]:
        found = f"{len(unknown)} of {len(chosen)} {kind} pairs are not among the {len(pairs)} columns"
        raise ConfigError([f"{found}: {_first_pairs(unknown)}"])
    wanted = set(chosen)
    return torch.tensor([pair in wanted for pair in pairs])


def read_labels(path: Path, space: PairSpace) -> Labels:
    """Return the pair of each image, from a text file with a line for each image, as in a list of pairs.

    Empty lines are skipped.

    Raises:
        DataError: the file cannot be read, or a line is not a pair.
        ConfigError: images show pairs that have no column.
    """
    try:
        lines = text_lines(read_regular(path, TEXT_LIMIT))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows, wrong = split_lines(lines, path)
    if wrong:
        raise DataError("\n".join([*wrong[:_MAX_NAMED], f"{path}: {len(wrong)} mistakes in all"]))
    known = {(space.attrs[attr], space.objs[obj]): (attr, obj) for attr, obj in space.pairs.tolist()}
    if unknown := {(attr, obj): number for number, (attr, obj) in rows if (attr, obj) not in known}:
        place = f"{path}:{next(iter(unknown.values()))}"
        message = f"images show pairs that are not among the {len(known)} columns: {_first_pairs(list(unknown))}"
        raise ConfigError([f"{place}: {message}"])
    labels = torch.tensor([known[attr, obj] for _, (attr, obj) in rows], dtype=torch.long).reshape(-1, 2)
    return labels[:, 0], labels[:, 1]


def checked_labels(labels: Labels, space: PairSpace) -> Labels:
    """Return the labels of a score file after checking that every image shows a pair of ``space``.

    Raises:
        ConfigError: an image shows another pair; the message names the first such image.
    """
    attr, obj = labels
    rule = (
        "attr and obj are positions in the sorted attributes and objects of the pairs; "
        "for another order, give the labels by name in a text file"
    )
    for kind, values, names in (("attr", attr, space.attrs), ("obj", obj, space.objs)):
        if (outside := (values < 0) | (values >= len(names))).any():
            i = int(outside.nonzero()[0])
            raise ConfigError([f"image {i} has {kind} {int(values[i])}, expected 0 to {len(names) - 1}: {rule}"])
    if not (known := torch.isin(attr * len(space.objs) + obj, space.flat())).all():
        i = int((~known).nonzero()[0])
        pair = f"{space.attrs[int(attr[i])]} {space.objs[int(obj[i])]}"
        raise ConfigError(
            [
                f"image {i} has attr {int(attr[i])} and obj {int(obj[i])}, which is {pair}, "
                f"not among the {len(space.pairs)} columns: {rule}"
            ]
        )
    return labels


def _first_pairs(pairs: Pairs) -> str:
    """Return the names of the first few pairs and the number of the others."""
    more = f" and {len(pairs) - _MAX_NAMED} more" if len(pairs) > _MAX_NAMED else ""
    return ", ".join(" ".join(pair) for pair in pairs[:_MAX_NAMED]) + more
