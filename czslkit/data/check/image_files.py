"""Check a dataset's image files: find unreadable and unusual images, copies in several splits and unknown files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from ...errors import DataError
from ...files import file_digest
from ...sizes import counted
from ...terminal import tracked
from ..fingerprint import image_sizes
from ..images import decoded, depth, open_image, orientation
from ..integrity import Finding, leads_out
from ..layout import SPLITS, Listing, import_record
from .file_damage import file_damage

_DEPTHS = {
    "16-bit": "are grey with 16 bits",
    "32-bit": "are grey with whole numbers of 32 bits",
    "float": "are grey with floating-point numbers",
}
#: Kind of unusual image: severity, what the finding says, remedy.
_UNUSUAL: dict[str, tuple[Literal["warning", "note"], str, str]] = {
    **{
        kind: (
            "warning",
            what,
            "values above 255 are read as white and fractions as black, as in the authors' programs: convert the "
            "images to 8 bits",
        )
        for kind, what in _DEPTHS.items()
    },
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
#: Remedies for imported datasets, where they differ.
_IMPORTED: dict[str, str] = {
    **dict.fromkeys(
        _DEPTHS,
        "they are read in 8 bits; white is the largest value of 1 (floats), 8, 10, 12, 14, 16 or 31 bits, whichever is "
        "the first to hold the values of an image: convert the images yourself if their white is another one",
    ),
    "turned": "they are read upright, because the dataset was imported",
}


@dataclass(frozen=True)
class ExaminedImage:
    """What the check of an image file has found."""

    error: str = ""
    """Why the image cannot be used, empty if it can."""
    kinds: tuple[str, ...] = ()
    """Ways in which it is unusual: ``16-bit``, ``32-bit``, ``float``, ``animated``, ``damaged``, ``turned``."""


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
        what = f"{counted(len(unknown), 'file')} of {images} not in the metadata"
        yield Finding("note", "unreferenced", what, unknown)


def _decoding_findings(images: Path, names: Sequence[str], workers: int | None) -> Iterator[Finding]:
    """Decode every image, and yield findings about unreadable and unusual images."""
    unreadable: list[str] = []
    unusual: dict[str, list[str]] = defaultdict(list)
    imported = import_record(images.parent).is_file()
    examined = examined_images([images / name for name in names], imported=imported, workers=workers)
    for name, (_, found) in zip(names, examined, strict=True):
        unreadable += [f"{name}: {found.error}"] if found.error else []
        for kind in found.kinds:
            unusual[kind].append(name)
    if unreadable:
        what = f"{len(unreadable)} of {len(names)} images cannot be read"
        yield Finding("error", "unreadable", what, tuple(unreadable), "replace them or remove them from the metadata")
    for kind, places in sorted(unusual.items()):
        severity, what, remedy = _UNUSUAL[kind]
        remedy = _IMPORTED.get(kind, remedy) if imported else remedy
        yield Finding(severity, kind, counted(len(places), "image", what), tuple(places), remedy)


def examined_images(
    files: Sequence[Path], *, imported: bool, workers: int | None = None
) -> Iterator[tuple[Path, ExaminedImage]]:
    """Decode image files in threads, look for damage, and yield what was found about each, with a progress bar.

    Args:
        files: the image files.
        imported: read them as images of an imported dataset.
        workers: number of threads; by default a few more than there are processors.
    """
    with ThreadPoolExecutor(workers) as pool:
        examined = pool.map(partial(_examine_image, imported=imported), files)
        yield from zip(files, tracked(examined, "images decoded", len(files)), strict=True)


def _examine_image(file: Path, imported: bool) -> ExaminedImage:
    try:
        with decoded(file, imported=imported):
            pass
    except DataError as error:
        return ExaminedImage(str(error.__cause__))
    with open_image(file) as image:
        if damage := file_damage(file, image.format or ""):
            return ExaminedImage(damage)
        # Pillow turns every TIFF itself, so that it is never read without the rotation, and would decode a PNG again to
        # look for EXIF data after the pixels.
        skips_exif = "exif" not in image.info if image.format == "PNG" else image.format == "TIFF" and not imported
        try:
            applies = {
                depth(image): True,
                "animated": getattr(image, "is_animated", False),
                "turned": not skips_exif and orientation(image) != 1,
            }
        except Exception:  # the first frame was read above, so the damage is in a later frame
            return ExaminedImage(kinds=("damaged",))
    return ExaminedImage(kinds=tuple(kind for kind, is_true in applies.items() if kind and is_true))


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
        what = counted(len(copies), "image", "have a copy in another split")
        places = tuple(" = ".join(f"{name} ({split_of[name]})" for name in sorted(names)) for names in copies)
        remedy = "splits that share images are not independent; the published datasets are used as they are"
        yield Finding("warning", "copies", what, places, remedy)


def _in_several_splits(names: Sequence[str], split_of: dict[str, str]) -> bool:
    return len({split_of[name] for name in names}) > 1
