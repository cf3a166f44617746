"""Load a dataset by its name: read and check its lists, and turn names into indices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError, class_in_file
from ..types import PairSpace
from .dataset_folders import dataset, ensure_folder
from .datasets import Dataset
from .fingerprint import fingerprint
from .integrity import check_listing
from .layout import SPLITS, Listing, Pair, images_folder
from .left_out import left_out_images, set_aside_images
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
    check_listing(folder, listing, open_vocabulary=known.open_vocabulary)
    space = _label_space(listing)
    extra = extra_tensors(known, folder, listing)
    train, val, test = (_split(split, folder, listing, space, extra[split]) for split in SPLITS)
    return Splits(
        name=known.name,
        root=folder,
        space=space,
        train=train,
        val=val,
        test=test,
        fingerprint=fingerprint(folder, known.files(folder)),
        skipped=len(listing.skipped),
        left_out=left_out_images(listing),
        set_aside=set_aside_images(folder, listing),
    )


def _label_space(listing: Listing) -> PairSpace:
    """Return the sorted names and pairs of the three lists; the training pairs are seen."""
    pairs = sorted({pair for split in SPLITS for pair in listing.pairs[split]})
    attrs, objs = (tuple(sorted({pair[column] for pair in pairs})) for column in (0, 1))
    seen = set(listing.pairs["train"])
    return PairSpace(attrs, objs, _pair_indices(pairs, attrs, objs), torch.tensor([pair in seen for pair in pairs]))


def extra_tensors(known: Dataset, folder: Path, listing: Listing) -> dict[str, Mapping[str, Tensor]]:
    """Return the other tensors of every split by name, ``[N, ...]`` each.

    Raises:
        DataError: the splits have other names than expected, or a tensor does not have one row for each image.
    """
    given = known.extra(folder, listing)
    parts = {
        "": given,
        **({f" for {split}": tensors for split, tensors in given.items()} if isinstance(given, Mapping) else {}),
    }
    for place, part in parts.items():
        if not isinstance(part, Mapping):
            raise DataError(
                f"extra of dataset {known.name} returned a {type(part).__name__}{place}, expected a dict of tensors by "
                f"name for each split, or {{}} for none: change extra of {class_in_file(type(known))}"
            )
    if given and set(given) != set(SPLITS):
        found = ", ".join(map(str, given))
        raise DataError(f"extra of dataset {known.name} returned the splits {found}, expected {', '.join(SPLITS)}")
    names = {split: sorted(given.get(split, {})) for split in SPLITS}
    if any(names[split] != names["train"] for split in SPLITS):
        raise DataError(f"extra of dataset {known.name} returned {names}, expected the same names for every split")
    for split, tensors in given.items():
        for name, tensor in tensors.items():
            where = f"extra of dataset {known.name}: {name!r} of {split}"
            _check_rows(where, tensor, len(listing.instances[split]), given["train"][name])
    return {split: given.get(split, {}) for split in SPLITS}


def _check_rows(where: str, tensor: Tensor, images: int, train: Tensor) -> None:
    """Check that a tensor has a row for each image, of the same kind as the rows of the training split.

    Raises:
        DataError: it has not; the message starts with ``where``.
    """
    if not isinstance(tensor, Tensor) or tensor.shape[:1] != (images,):
        found = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise DataError(f"{where} is {found}, expected a tensor with one row for each of {images} images")
    if (tensor.dtype, tensor.shape[1:]) != (train.dtype, train.shape[1:]):
        kinds = [f"{list(one.shape[1:])} {one.dtype}" for one in (tensor, train)]
        raise DataError(f"{where} has rows {kinds[0]}, expected {kinds[1]} as in train")


def _split(name: str, folder: Path, listing: Listing, space: PairSpace, extra: Mapping[str, Tensor]) -> Split:
    instances = listing.instances[name]
    labels = _pair_indices([(i.attr, i.obj) for i in instances], space.attrs, space.objs)
    return Split(
        name=name,
        paths=tuple(images_folder(folder) / i.image for i in instances),
        attr=labels[:, 0],
        obj=labels[:, 1],
        pairs=_pair_indices(listing.pairs[name], space.attrs, space.objs),
        extra=extra,
    )


def _pair_indices(pairs: list[Pair] | tuple[Pair, ...], attrs: tuple[str, ...], objs: tuple[str, ...]) -> Tensor:
    """Return the attribute and object index of each pair, ``[p, 2]`` long."""
    attr_index, obj_index = ({name: i for i, name in enumerate(names)} for names in (attrs, objs))
    return torch.tensor([[attr_index[attr], obj_index[obj]] for attr, obj in pairs], dtype=torch.long)
