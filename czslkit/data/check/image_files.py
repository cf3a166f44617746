"""Check a dataset's image files: find unreadable and unusual images, copies in several splits and unknown files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import ExifTags, Image

from ...errors import DataError
from ...files import file_digest
from ...terminal import tracked
from ..fingerprint import image_sizes
from ..image_transforms import open_rgb
from ..integrity import Finding, leads_out
from ..layout import SPLITS, Listing

#: Kind of unusual image: severity, what the finding says, remedy.
_UNUSUAL: dict[str, tuple[Literal["warning", "note"], str, str]] = {
    "16-bit": (
        "warning",
        "are grey with 16 bits",
        "values above 255 are read as white, as in the authors' programs: convert the images to 8 bits",
    ),
    "animated": ("note", "have several frames", "only the first frame is read"),
    "damaged": (
        "warning",
        "are damaged after the first frame",
        "the first frame is complete; replace the files anyway",
    ),
    "turned": (
        "note",
        "are rotated by their EXIF data",
        "they are read without the rotation, as in the authors' programs",
    ),
}


def check_image_files(images: Path, listing: Listing, workers: int | None = None) -> Iterator[Finding]:
    """Yield every finding about the files in a dataset's ``images`` folder.

    Images that are missing or outside the folder are skipped; ``integrity.dataset_errors`` reports them.

    Args:
        images: the ``images`` folder.
        listing: the dataset's lists and metadata.
        workers: number of threads; by default a few more than there are processors.
    """
    split_of: dict[str, str] = {}
    for split in SPLITS:
        split_of |= {PurePosixPath(i.image).as_posix(): split for i in listing.instances[split]}
    present = {name: split for name, split in split_of.items() if not leads_out(name) and os.path.isfile(images / name)}
    yield from _decoding_findings(images, sorted(present), workers)
    yield from _copies_across_splits(images, present)
    known = split_of.keys() | {PurePosixPath(i.image).as_posix() for i in listing.skipped}
    if unknown := tuple(sorted(image_sizes(images).keys() - known)):
        yield Finding("note", "unreferenced", f"{len(unknown)} files of {images} are not in the metadata", unknown)


def _decoding_findings(images: Path, names: Sequence[str], workers: int | None) -> Iterator[Finding]:
    """Decode every image, and yield findings about unreadable and unusual images."""
    unreadable: list[str] = []
    unusual: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(workers) as pool:
        examined = pool.map(_examine_image, (images / name for name in names))
        found = zip(names, examined, strict=True)
        for name, (error, kinds) in tracked(found, "images decoded", len(names)):
            unreadable += [f"{name}: {error}"] if error else []
            for kind in kinds:
                unusual[kind].append(name)
    if unreadable:
        what = f"{len(unreadable)} of {len(names)} images cannot be read"
        yield Finding("error", "unreadable", what, tuple(unreadable), "replace them or remove them from the metadata")
    for kind, places in sorted(unusual.items()):
        severity, what, remedy = _UNUSUAL[kind]
        yield Finding(severity, kind, f"{len(places)} images {what}", tuple(places), remedy)


def _examine_image(file: Path) -> tuple[str, list[str]]:
    """Return the error of reading an image, empty if there is none, and the kinds of ``_UNUSUAL`` that apply to it."""
    try:
        open_rgb(file)
    except DataError as error:
        return str(error.__cause__), []
    try:
        with Image.open(file) as image:
            applies = {
                "16-bit": image.mode.startswith("I;16"),
                "animated": getattr(image, "is_animated", False),
                "turned": image.getexif().get(ExifTags.Base.Orientation, 1) != 1,
            }
    except Exception:  # the first frame was read above, so the damage is in a later frame
        return "", ["damaged"]
    return "", [kind for kind, is_true in applies.items() if is_true]


def _copies_across_splits(images: Path, split_of: dict[str, str]) -> Iterator[Finding]:
    """Yield one warning that lists all files with equal content in different splits, or nothing if there are none."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for name in split_of:
        by_size[os.path.getsize(images / name)].append(name)
    by_content: dict[tuple[int, str], list[str]] = defaultdict(list)
    for size, names in by_size.items():
        if _in_several_splits(names, split_of):
            for name in names:
                by_content[size, file_digest(images / name)].append(name)
    copies = [names for names in by_content.values() if _in_several_splits(names, split_of)]
    if copies:
        what = f"{len(copies)} images have a copy in another split"
        places = tuple(" = ".join(f"{name} ({split_of[name]})" for name in sorted(names)) for names in copies)
        remedy = "splits that share images are not independent; the published datasets are used as they are"
        yield Finding("warning", "copies", what, places, remedy)


def _in_several_splits(names: Sequence[str], split_of: dict[str, str]) -> bool:
    return len({split_of[name] for name in names}) > 1
