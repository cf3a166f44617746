"""Check that a dataset's files do not contradict each other, and that its lists define a compositional task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from ..errors import DataError, first_ten
from ..sizes import counted
from .layout import SPLITS, Listing, images_folder

_MIXED_VERSIONS = "the metadata and the lists have different versions: take both from the same download"

_UNTRAINED_REMEDY = (
    "remove those pairs from the list, or add a training pair with the word; a dataset whose class has "
    "open_vocabulary = True may have such words"
)


@dataclass(frozen=True)
class Finding:
    """One kind of mistake or unusual content in a dataset."""

    severity: Literal["error", "warning", "note"]
    """A dataset with an error cannot be used. A warning may change the meaning of results, a note does not."""
    kind: str
    """Short name of the kind, which stays the same if the text changes."""
    what: str
    """Description for people."""
    where: tuple[str, ...] = ()
    """All affected images, pairs or names."""
    remedy: str = ""
    """Advice on how to correct it."""

    def __str__(self) -> str:
        """Return the description with the first ten places, and the remedy on the next line."""
        text = f"{self.what}: {first_ten([printable(place) for place in self.where])}" if self.where else self.what
        return f"{text}\n    {self.remedy}" if self.remedy else text


def check_listing(folder: Path, listing: Listing, *, open_vocabulary: bool = False) -> None:
    """Check everything that can be checked without opening an image.

    Args:
        open_vocabulary: allow words that are in no training pair.

    Raises:
        DataError: the dataset has errors. The message lists every kind, with its count and first ten places.
    """
    if errors := [str(finding) for finding in dataset_errors(folder, listing, open_vocabulary=open_vocabulary)]:
        raise DataError("\n  ".join([f"{folder} has errors in its lists, metadata or images:", *errors]))


def dataset_errors(folder: Path, listing: Listing, *, open_vocabulary: bool = False) -> Iterator[Finding]:
    """Yield every error that can be found without opening an image; see :func:`check_listing`."""
    yield from listing_errors(listing, open_vocabulary=open_vocabulary)
    yield from _missing_images(images_folder(folder), listing)


def listing_errors(listing: Listing, *, open_vocabulary: bool = False) -> Iterator[Finding]:
    """Yield every error in the lists and the metadata, without looking at image files; see :func:`check_listing`."""
    yield from _empty_splits(listing)
    yield from _stray_pairs(listing)
    if not open_vocabulary:
        yield from untrained_words(listing)
    yield from _images_in_two_splits(listing)


def _empty_splits(listing: Listing) -> Iterator[Finding]:
    for split in SPLITS:
        if not listing.pairs[split]:
            yield Finding("error", "empty", f"{split}_pairs.txt lists no pair")
        elif not listing.instances[split]:
            yield Finding("error", "empty", f"no image of set {split!r} shows a listed pair")


def _stray_pairs(listing: Listing) -> Iterator[Finding]:
    """Find images whose pair is listed only for another split."""
    for split in SPLITS:
        pairs = set(listing.pairs[split])
        strays = [f"{i.image} ({i.attr} {i.obj})" for i in listing.instances[split] if (i.attr, i.obj) not in pairs]
        if strays:
            what = f"{counted(len(strays), 'image')} of set {split!r} with a pair not in {split}_pairs.txt"
            yield Finding("error", "stray-pair", what, tuple(strays), _MIXED_VERSIONS)


def untrained_words(listing: Listing) -> Iterator[Finding]:
    """Find attributes and objects that are in no training pair, so that no pair can be composed of them."""
    for column, kind in enumerate(("attributes", "objects")):
        trained = {pair[column] for pair in listing.pairs["train"]}
        for split in ("val", "test"):
            if words := sorted({pair[column] for pair in listing.pairs[split]} - trained):
                what = f"{len(words)} {kind} of {split}_pairs.txt are in no training pair"
                yield Finding("error", "untrained-word", what, tuple(words), _UNTRAINED_REMEDY)


def _images_in_two_splits(listing: Listing) -> Iterator[Finding]:
    paths = {split: {str(PurePosixPath(i.image)) for i in listing.instances[split]} for split in SPLITS}
    for first, second in combinations(SPLITS, 2):
        if both := sorted(paths[first] & paths[second]):
            what = counted(len(both), "image", f"are in both set {first!r} and set {second!r}")
            yield Finding("error", "in-two-splits", what, tuple(both))


def _missing_images(images: Path, listing: Listing) -> Iterator[Finding]:
    """Find images whose file is missing, and paths that lead out of ``images``."""
    instances = [i for split in SPLITS for i in listing.instances[split]]
    outside = [repr(i.image) for i in instances if leads_out(i.image)]
    if outside:
        yield Finding("error", "outside", counted(len(outside), "image", f"are outside {images}"), tuple(outside))
    missing = [i.image for i in instances if not leads_out(i.image) and not os.path.isfile(images / i.image)]
    if missing:
        what = f"{len(missing)} of {len(instances)} images are missing from {images}"
        yield Finding("error", "missing", what, tuple(missing), _spelling_hint(images, missing[0]))


def leads_out(image: str) -> bool:
    """Return whether the path of an image leads out of its folder, on any operating system."""
    path = PureWindowsPath(image)  # splits at / and at \
    return bool(path.anchor) or ".." in path.parts


def _spelling_hint(images: Path, missing: str) -> str:
    """Return a hint about the spelling of a missing image on the disk, or an empty text.

    MIT-States unpacks to folders with spaces where the metadata has underscores. Metadata made on Windows has ``\\``.
    """
    folder, _, name = missing.rpartition("/")
    with_spaces = f"{folder.replace('_', ' ')}/{name}"
    if with_spaces != missing and os.path.isfile(images / with_spaces):
        return f"There is {with_spaces!r}: in the folder names, write '_' for ' '"
    with_slashes = missing.replace("\\", "/")
    if with_slashes != missing and os.path.isfile(images / with_slashes):
        return f"There is {with_slashes!r}: in the metadata, write '/' for '\\'"
    return ""


def printable(name: str) -> str:
    """Return a name in a form that every terminal can print."""
    return name if name.isprintable() else repr(name)
