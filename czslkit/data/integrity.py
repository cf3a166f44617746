"""Whether a dataset holds what its own lists say, and the lists make a task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from ..errors import DataError
from .layout import SPLITS, Listing, images_folder, listed

_METADATA = "the metadata and the lists are not of one version: take both from the same download"


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is wrong, or odd, with a dataset."""

    severity: Literal["error", "warning", "note"]
    """An error keeps the dataset from being used, a warning may change what its numbers mean, a note is to be known."""
    kind: str
    """A name that stays, whatever the words say."""
    what: str
    where: tuple[str, ...] = ()
    """Everything that it is true of."""
    remedy: str = ""

    def __str__(self) -> str:
        """The first ten places, and the remedy on a line of its own."""
        found = f"{self.what}: {listed([printable(place) for place in self.where])}" if self.where else self.what
        return f"{found}\n    {self.remedy}" if self.remedy else found


def check_listing(folder: Path, listing: Listing) -> None:
    """Check everything that can be checked without opening an image.

    Raises:
        DataError: all that was found, the first ten of each kind named and the rest counted.
    """
    if found := [str(finding) for finding in contradictions(folder, listing)]:
        raise DataError("\n  ".join([f"{folder} does not hold what its lists say:", *found]))


def contradictions(folder: Path, listing: Listing) -> Iterator[Finding]:
    """Every error that can be found without opening an image."""
    yield from disagreements(listing)
    yield from _misplaced(images_folder(folder), listing)


def disagreements(listing: Listing) -> Iterator[Finding]:
    """Every error that can be found without a look at the images."""
    yield from _empty(listing)
    yield from _strays(listing)
    yield from _untrained_words(listing)
    yield from _shared(listing)


def _empty(listing: Listing) -> Iterator[Finding]:
    for phase in SPLITS:
        if not listing.pairs[phase]:
            yield Finding("error", "empty", f"{phase}_pairs.txt lists no pair")
        elif not listing.instances[phase]:
            yield Finding("error", "empty", f"no image is of set {phase!r} and shows a listed pair")


def _strays(listing: Listing) -> Iterator[Finding]:
    """Images whose pair is listed, but for another split."""
    for phase in SPLITS:
        pairs = set(listing.pairs[phase])
        strays = [f"{i.image} ({i.attr} {i.obj})" for i in listing.instances[phase] if (i.attr, i.obj) not in pairs]
        if strays:
            what = f"{len(strays)} images of set {phase!r} show a pair not in {phase}_pairs.txt"
            yield Finding("error", "stray-pair", what, tuple(strays), _METADATA)


def _untrained_words(listing: Listing) -> Iterator[Finding]:
    """Attributes and objects that no training pair teaches: nothing could be composed from them."""
    for column, kind in enumerate(("attributes", "objects")):
        trained = {pair[column] for pair in listing.pairs["train"]}
        for phase in ("val", "test"):
            if words := sorted({pair[column] for pair in listing.pairs[phase]} - trained):
                what = f"{len(words)} {kind} of {phase}_pairs.txt are in no training pair"
                yield Finding("error", "untrained-word", what, tuple(words))


def _shared(listing: Listing) -> Iterator[Finding]:
    paths = {phase: {str(PurePosixPath(i.image)) for i in listing.instances[phase]} for phase in SPLITS}
    for one, other in combinations(SPLITS, 2):
        if both := sorted(paths[one] & paths[other]):
            what = f"{len(both)} images are both of set {one!r} and of set {other!r}"
            yield Finding("error", "in-two-splits", what, tuple(both))


def _misplaced(images: Path, listing: Listing) -> Iterator[Finding]:
    """Images that are not there, or not below ``images``."""
    instances = [i for phase in SPLITS for i in listing.instances[phase]]
    outside = [repr(i.image) for i in instances if escapes(i.image)]
    if outside:
        yield Finding("error", "outside", f"{len(outside)} images lie outside {images}", tuple(outside))
    missing = [i.image for i in instances if not escapes(i.image) and not os.path.isfile(images / i.image)]
    if missing:
        what = f"{len(missing)} of {len(instances)} images are missing from {images}"
        yield Finding("error", "missing", what, tuple(missing), _hint(images, missing[0]))


def escapes(image: str) -> bool:
    """Whether the path of an image leads out of ``images``, on any system."""
    path = PureWindowsPath(image)  # splits at / and at \
    return bool(path.anchor) or ".." in path.parts


def _hint(images: Path, missing: str) -> str:
    """MIT-States unpacks to folders with spaces, the metadata has underscores; metadata made on Windows has ``\\``."""
    folder, _, name = missing.rpartition("/")
    unpacked = f"{folder.replace('_', ' ')}/{name}"
    if unpacked != missing and os.path.isfile(images / unpacked):
        return f"There is {unpacked!r}: in the folder names, write '_' for ' '"
    turned = missing.replace("\\", "/")
    if turned != missing and os.path.isfile(images / turned):
        return f"There is {turned!r}: in the metadata, write '/' for '\\'"
    return ""


def printable(name: str) -> str:
    """A name as it can be printed anywhere."""
    return name if name.isprintable() else repr(name)
