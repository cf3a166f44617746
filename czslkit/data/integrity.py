"""Whether a dataset holds what its own lists say, and the lists make a task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..errors import DataError
from .layout import PHASES, Instance, Listing, images_folder, listed


def check_listing(folder: Path, listing: Listing) -> None:
    """Check everything that can be checked without opening an image.

    Raises:
        DataError: all that was found, the first ten of each kind named and the rest counted.
    """
    found = [*_empty(listing), *_strays(listing), *_untrained_words(listing), *_shared(listing)]
    found += _misplaced(images_folder(folder), listing)
    if found:
        raise DataError("\n  ".join([f"{folder} does not hold what its lists say:", *found]))


def _empty(listing: Listing) -> Iterator[str]:
    for phase in PHASES:
        if not listing.pairs[phase]:
            yield f"{phase}_pairs.txt lists no pair"
        elif not listing.instances[phase]:
            yield f"no image is of set {phase!r} and shows a listed pair"


def _strays(listing: Listing) -> Iterator[str]:
    """Images whose pair is listed, but for another split."""
    for phase in PHASES:
        pairs = set(listing.pairs[phase])
        strays = [f"{i.image} ({i.attr} {i.obj})" for i in listing.instances[phase] if (i.attr, i.obj) not in pairs]
        if strays:
            yield f"{len(strays)} images of set {phase!r} show a pair not in {phase}_pairs.txt: {listed(strays)}"


def _untrained_words(listing: Listing) -> Iterator[str]:
    """Attributes and objects that no training pair teaches: nothing could be composed from them."""
    for column, kind in enumerate(("attributes", "objects")):
        trained = {pair[column] for pair in listing.pairs["train"]}
        for phase in ("val", "test"):
            if words := sorted({pair[column] for pair in listing.pairs[phase]} - trained):
                yield f"{len(words)} {kind} of {phase}_pairs.txt are in no training pair: {listed(words)}"


def _shared(listing: Listing) -> Iterator[str]:
    paths = {phase: {str(PurePosixPath(i.image)) for i in listing.instances[phase]} for phase in PHASES}
    for one, other in combinations(PHASES, 2):
        if both := sorted(paths[one] & paths[other]):
            yield f"{len(both)} images are both of set {one!r} and of set {other!r}: {listed(both)}"


def _misplaced(images: Path, listing: Listing) -> Iterator[str]:
    """Images that are not there, or not below ``images``."""
    instances = [i for phase in PHASES for i in listing.instances[phase]]
    outside = [repr(i.image) for i in instances if _escapes(i)]
    if outside:
        yield f"{len(outside)} images lie outside {images}: {listed(outside)}"
    missing = [i.image for i in instances if not _escapes(i) and not os.path.isfile(images / i.image)]
    if missing:
        count = f"{len(missing)} of {len(instances)} images are missing from {images}"
        yield f"{count}: {listed(missing)}{_hint(images, missing[0])}"


def _escapes(instance: Instance) -> bool:
    path = PureWindowsPath(instance.image)  # splits at / and at \
    return bool(path.anchor) or ".." in path.parts


def _hint(images: Path, missing: str) -> str:
    """MIT-States unpacks to folders with spaces; the metadata has underscores."""
    folder, _, name = missing.rpartition("/")
    unpacked = f"{folder.replace('_', ' ')}/{name}"
    found = unpacked != missing and os.path.isfile(images / unpacked)
    return f"\n  There is {unpacked!r}: in the folder names, write '_' for ' '" if found else ""
