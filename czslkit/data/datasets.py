"""A dataset in memory: its label space, and which image shows what in each split."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError
from ..types import PairSpace
from .catalogue import dataset, locate
from .fingerprint import files_digest, fingerprint
from .images import open_rgb
from .integrity import check_listing
from .layout import PHASES, Listing, Pair, images_folder

_SHOWN = 10  # unreadable images that a message names


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split, in the order of the metadata."""

    name: str  # train, val or test
    paths: tuple[Path, ...] = field(repr=False)
    attr: Tensor  # [N] long, index into the attributes of the space
    obj: Tensor  # [N] long
    pairs: Tensor  # [p, 2] long, the pairs listed for this split, in file order

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digest(self) -> str:
        """Changes with the paths, sizes, times and order of the files; 16 hex digits."""
        return files_digest(self.paths)[:16]


@dataclass(frozen=True, eq=False)
class Splits:
    """A dataset."""

    name: str
    root: Path
    """The dataset's own folder."""
    space: PairSpace
    """Pairs are the sorted union of the three lists; seen are those listed for training."""
    train: Split
    val: Split
    test: Split
    fingerprint: str
    """Changes when the files change; as ``fingerprint.fingerprint`` of the folder."""
    skipped: int
    """Instances of the metadata without attribute or set, or of a pair that no list holds."""

    def candidates(self, phase: str) -> Tensor:
        """Which pairs can be an answer in the closed world: those of training and of ``phase``, ``[P]`` bool.

        Raises:
            ValueError: ``phase`` is neither ``"val"`` nor ``"test"``.
        """
        if phase not in ("val", "test"):
            raise ValueError(f"candidates are those of 'val' or 'test', not of {phase!r}")
        asked = self.val.pairs if phase == "val" else self.test.pairs
        return self.space.seen | torch.isin(self.space.flat(), asked[:, 0] * len(self.space.objs) + asked[:, 1])


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
    >>> from czslkit.data.mini import write_mini
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_mini("cgqa", folder)
    ...     data = czslkit.load_dataset("cgqa", folder)
    >>> len(data.train), len(data.space.pairs), int(data.space.seen.sum())
    (144, 36, 24)
    """
    known, folder = dataset(name), locate(name, root)
    listing = known.listing(folder)
    check_listing(folder, listing)
    space = _space(listing)
    train, val, test = (_split(phase, folder, listing, space) for phase in PHASES)
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


def check_images(splits: Splits, *, workers: int | None = None, cache: Path | None = None) -> None:
    """Decode every image, so that none stops a training halfway.

    Args:
        workers: threads; by default a few more than there are processors.
        cache: a folder to note success in; the same files are then not decoded again.

    Raises:
        DataError: images that cannot be read, counted, and the first ten named.
    """
    stamp = cache / f"images-{splits.fingerprint}.json" if cache else None
    if stamp and stamp.is_file():
        return
    paths = sorted({path for split in (splits.train, splits.val, splits.test) for path in split.paths})
    with ThreadPoolExecutor(workers) as pool:
        faults = [fault for fault in pool.map(_fault, paths) if fault]
    if faults:
        raise unreadable(faults, f"{len(paths)} images of {splits.name}")
    if stamp:
        _write_json(stamp, {"dataset": splits.name, "fingerprint": splits.fingerprint, "images": len(paths)})


def unreadable(faults: Sequence[str], of: str) -> DataError:
    """What to raise for images that cannot be read, of so many: the first ten are named."""
    more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    return DataError("\n  ".join([f"{len(faults)} of {of} cannot be read:", *faults[:_SHOWN], *more]))


def _space(listing: Listing) -> PairSpace:
    pairs = sorted({pair for phase in PHASES for pair in listing.pairs[phase]})
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


def _fault(path: Path) -> str:
    """Why an image cannot be read, empty if it can."""
    try:
        open_rgb(path)
    except DataError as error:
        return str(error)
    return ""


def _write_json(file: Path, content: dict[str, str | int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1))
    os.replace(partial, file)
