"""A dataset in memory: its label space, and which image shows what in each split."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..types import PairSpace
from .fingerprint import fingerprint
from .folders import dataset, ensure_folder
from .integrity import check_listing
from .layout import SPLITS, Listing, Pair, images_folder
from .splits import Split, Splits


def load_dataset(name: str, root: str | Path | None = None) -> Splits:
    """Read a dataset and check that it holds what its lists say.

    Args:
        name: ``mit-states``, ``ut-zappos``, ``cgqa``, ``demo`` (rendered where it is absent), another registered
            one, or that of a folder under ``root`` in the field's layout.
        root: the folder that holds datasets; by default ``CZSLKIT_DATA`` from the environment, else ``./data``.

    Raises:
        UnknownNameError: no such dataset.
        DataError: absent, malformed, or at odds with itself.

    >>> import tempfile, czslkit
    >>> from czslkit.data.make.mini import write_mini
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_mini("cgqa", folder)
    ...     data = czslkit.load_dataset("cgqa", folder)
    >>> len(data.train), len(data.space.pairs), int(data.space.seen.sum())
    (144, 36, 24)
    """
    known, folder = dataset(name), ensure_folder(name, root)
    listing = known.listing(folder)
    check_listing(folder, listing)
    space = _space(listing)
    train, val, test = (_split(phase, folder, listing, space) for phase in SPLITS)
    return Splits(
        name=known.name,
        root=folder,
        space=space,
        train=train,
        val=val,
        test=test,
        fingerprint=fingerprint(folder, known.files(folder)),
        skipped=len(listing.skipped),
    )


def _space(listing: Listing) -> PairSpace:
    pairs = sorted({pair for phase in SPLITS for pair in listing.pairs[phase]})
    attrs, objs = (tuple(sorted({pair[column] for pair in pairs})) for column in (0, 1))
    seen = set(listing.pairs["train"])
    return PairSpace(attrs, objs, _indices(pairs, attrs, objs), torch.tensor([pair in seen for pair in pairs]))


def _split(phase: str, folder: Path, listing: Listing, space: PairSpace) -> Split:
    instances = listing.instances[phase]
    shown = _indices([(i.attr, i.obj) for i in instances], space.attrs, space.objs)
    return Split(
        name=phase,
        paths=tuple(images_folder(folder) / i.image for i in instances),
        attr=shown[:, 0],
        obj=shown[:, 1],
        pairs=_indices(listing.pairs[phase], space.attrs, space.objs),
    )


def _indices(pairs: list[Pair] | tuple[Pair, ...], attrs: tuple[str, ...], objs: tuple[str, ...]) -> Tensor:
    """Attribute and object index of each pair, ``[p, 2]``."""
    attr_index, obj_index = ({word: i for i, word in enumerate(words)} for words in (attrs, objs))
    return torch.tensor([[attr_index[attr], obj_index[obj]] for attr, obj in pairs], dtype=torch.long)
