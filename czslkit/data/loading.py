"""Load a dataset by its name: read and check its lists, and turn names into indices."""

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
    """Read a dataset, and check that its files do not contradict each other. Images are not opened.

    Args:
        name: ``mit-states``, ``ut-zappos``, ``cgqa``, ``demo`` (which is rendered if it is absent), another registered
            name, or the name of a folder in ``root`` that has the field's layout.
        root: folder of all datasets; by default ``CZSLKIT_DATA`` from the environment, else ``./data``.

    Raises:
        UnknownNameError: there is no dataset of that name.
        DataError: the dataset is absent or malformed, or its files contradict each other.

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
    space = _label_space(listing)
    train, val, test = (_split(split, folder, listing, space) for split in SPLITS)
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


def _label_space(listing: Listing) -> PairSpace:
    """Return the sorted names and pairs of the three lists; the training pairs are seen."""
    pairs = sorted({pair for split in SPLITS for pair in listing.pairs[split]})
    attrs, objs = (tuple(sorted({pair[column] for pair in pairs})) for column in (0, 1))
    seen = set(listing.pairs["train"])
    return PairSpace(attrs, objs, _pair_indices(pairs, attrs, objs), torch.tensor([pair in seen for pair in pairs]))


def _split(name: str, folder: Path, listing: Listing, space: PairSpace) -> Split:
    instances = listing.instances[name]
    labels = _pair_indices([(i.attr, i.obj) for i in instances], space.attrs, space.objs)
    return Split(
        name=name,
        paths=tuple(images_folder(folder) / i.image for i in instances),
        attr=labels[:, 0],
        obj=labels[:, 1],
        pairs=_pair_indices(listing.pairs[name], space.attrs, space.objs),
    )


def _pair_indices(pairs: list[Pair] | tuple[Pair, ...], attrs: tuple[str, ...], objs: tuple[str, ...]) -> Tensor:
    """Return the attribute and object index of each pair, ``[p, 2]`` long."""
    attr_index, obj_index = ({name: i for i, name in enumerate(names)} for names in (attrs, objs))
    return torch.tensor([[attr_index[attr], obj_index[obj]] for attr, obj in pairs], dtype=torch.long)
