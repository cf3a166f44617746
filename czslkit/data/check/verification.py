"""A dataset against what is published about it, and every file of it against what it is to be."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import ExifTags, Image
from tabulate import tabulate
from tqdm import tqdm

from ...errors import DataError
from ...files import file_digest
from ..datasets import Counts, SplitCounts
from ..fingerprint import image_sizes
from ..folders import dataset, ensure_folder
from ..image_transforms import open_rgb
from ..integrity import Finding, dataset_errors, leads_out, printable
from ..layout import SPLITS, Listing, images_folder
from .lint import lint

_SHOWN = 5  # places that a report names; all are in its JSON
_REMEDIES = {
    "missing": "unpack the images again, or take those that nobody has out of the metadata",
    "outside": "take the metadata from its source",
    "in-two-splits": "leave each image in one split of the metadata",
    "untrained-word": "take those pairs out of the list, or add a training pair with the word",
    "empty": "take the lists and the metadata from one download",
}
_PECULIAR = {
    "16-bit": ("are grey with 16 bits", "what is above 255 is read as white, as in the originals: convert them"),
    "animated": ("have several frames", "the first one is read"),
    "damaged": ("are damaged after what is read of them", "the first frame is whole; replace them all the same"),
    "turned": ("are to be turned, says their EXIF", "they are read as stored, as in the originals"),
}


@dataclass(frozen=True)
class Verification:
    """What came of verifying a dataset."""

    name: str
    folder: Path | None
    """None where the dataset is absent."""
    found: Counts | None
    """None where its lists cannot be read."""
    expected: Counts | None
    """None where nobody published any."""
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether there is no error; there may be warnings."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_text(self) -> str:
        """A report to read."""
        lines = [f"{self.name} in {self.folder}" if self.folder else self.name]
        if self.found:
            columns = {"": quantities(self.found), "found": quantities(self.found).values()}
            if self.expected:
                columns["expected"] = quantities(self.expected).values()
            lines += [tabulate(columns, headers="keys", tablefmt="plain", intfmt=",")]
        for finding in self.findings:
            places = [printable(place) for place in finding.where]
            more = [f"and {len(places) - _SHOWN} more"] if len(places) > _SHOWN else []
            remedy = [f"-> {finding.remedy}"] if finding.remedy else []
            lines += [f"{finding.severity}: {finding.what}", *(f"    {x}" for x in (*places[:_SHOWN], *more, *remedy))]
        counts = {severity: sum(f.severity == severity for f in self.findings) for severity in ("error", "warning")}
        said = " and ".join(f"{n} {severity}{'s' if n > 1 else ''}" for severity, n in counts.items() if n)
        return "\n".join([*lines, f"{self.name}: {said or 'sound'}"])

    def to_json(self) -> dict[str, Any]:
        """The same and every place of every finding, as plain values."""
        return {
            "dataset": self.name,
            "folder": str(self.folder) if self.folder else None,
            "sound": self.sound,
            "found": quantities(self.found) if self.found else None,
            "expected": quantities(self.expected) if self.expected else None,
            "findings": [{**vars(finding), "where": list(finding.where)} for finding in self.findings],
        }


def verify(
    name: str, root: str | Path | None = None, *, expected: Counts | None = None, workers: int | None = None
) -> Verification:
    """Check a dataset against published counts, its lists against each other and the files, and decode every image.

    Args:
        name: as for ``load_dataset``.
        root: as for ``load_dataset``.
        expected: by default what is registered with the dataset.
        workers: threads; by default a few more than there are processors.

    Raises:
        UnknownNameError: no such dataset.
    """
    expected = expected or dataset(name).counts
    try:
        folder = ensure_folder(name, root)
    except DataError as error:
        return Verification(name, None, None, expected, (Finding("error", "absent", str(error)),))
    try:
        listing = dataset(name).listing(folder)
    except DataError as error:
        remedy = "take the lists and the metadata from one download"
        return Verification(name, folder, None, expected, (Finding("error", "malformed", str(error), remedy=remedy),))
    found = count(listing)
    findings = [*(_differences(found, expected) if expected else ()), *dataset_errors(folder, listing)]
    findings += [*_files(images_folder(folder), listing, workers), *lint(listing)]
    findings = [replace(f, remedy=f.remedy or _REMEDIES.get(f.kind, "")) for f in findings]
    order = ("error", "warning", "note")
    return Verification(name, folder, found, expected, tuple(sorted(findings, key=lambda f: order.index(f.severity))))


def count(listing: Listing) -> Counts:
    """How much a dataset holds, counted as the published numbers are: words and pairs are those of the lists."""
    pairs = {pair for phase in SPLITS for pair in listing.pairs[phase]}
    trained = set(listing.pairs["train"])
    phases = {}
    for phase in SPLITS:
        seen = sum(pair in trained for pair in listing.pairs[phase])
        phases[phase] = SplitCounts(seen, len(listing.pairs[phase]) - seen, len(listing.instances[phase]))
    attrs, objs = ({pair[column] for pair in pairs} for column in (0, 1))
    return Counts(attrs=len(attrs), objs=len(objs), pairs=len(pairs), splits=phases)


def quantities(counts: Counts) -> dict[str, int]:
    """Counts by the names they are reported under."""
    whole = {"attributes": counts.attrs, "objects": counts.objs, "attributes x objects": counts.attrs * counts.objs}
    named = {**whole, "pairs": counts.pairs}
    for phase, each in counts.splits.items():
        pairs = {f"{phase} pairs": each.seen}
        if phase != "train":
            pairs = {f"{phase} seen pairs": each.seen, f"{phase} unseen pairs": each.unseen}
        named |= {**pairs, f"{phase} images": each.images}
    return named


def _differences(found: Counts, expected: Counts) -> Iterator[Finding]:
    asked, there = quantities(expected), quantities(found)
    differing = [name for name in asked if there[name] != asked[name]]
    if wrong := tuple(f"{name} {there[name]:,} instead of {asked[name]:,}" for name in differing):
        remedy = "these are other splits than published numbers are on: take the lists and the metadata from the source"
        yield Finding("error", "counts", f"{len(wrong)} of {len(asked)} counts are not as expected", wrong, remedy)


def _files(images: Path, listing: Listing, workers: int | None) -> Iterator[Finding]:
    """What is wrong or odd about the files below ``images``."""
    phases: dict[str, str] = {}
    for phase in SPLITS:
        phases |= {PurePosixPath(i.image).as_posix(): phase for i in listing.instances[phase]}
    used = {image: phase for image, phase in phases.items() if not leads_out(image) and os.path.isfile(images / image)}
    yield from _unreadable(images, sorted(used), workers)
    yield from _copies(images, used)
    known = phases.keys() | {PurePosixPath(i.image).as_posix() for i in listing.skipped}
    if unused := tuple(sorted(image_sizes(images).keys() - known)):
        yield Finding("note", "unreferenced", f"{len(unused)} files of {images} are not in the metadata", unused)


def _unreadable(images: Path, names: list[str], workers: int | None) -> Iterator[Finding]:
    """Images that cannot be decoded, and those that are not what they look like in a viewer."""
    faults: list[str] = []
    peculiar: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(workers) as pool:
        examined = pool.map(_examined, (images / name for name in names))
        shown = tqdm(examined, "images decoded", len(names), leave=False, disable=None)  # on a terminal alone
        for name, (fault, kinds) in zip(names, shown, strict=True):
            faults += [f"{name}: {fault}"] if fault else []
            for kind in kinds:
                peculiar[kind].append(name)
    if faults:
        what = f"{len(faults)} of {len(names)} images cannot be read"
        yield Finding("error", "unreadable", what, tuple(faults), "replace them, or take them out of the metadata")
    for kind, found in sorted(peculiar.items()):
        what, remedy = _PECULIAR[kind]
        severity: Any = "warning" if kind in ("16-bit", "damaged") else "note"
        yield Finding(severity, kind, f"{len(found)} images {what}", tuple(found), remedy)


def _examined(file: Path) -> tuple[str, list[str]]:
    """Why an image cannot be read, empty if it can, and what of ``_PECULIAR`` is true of it."""
    try:
        open_rgb(file)
    except DataError as error:
        return str(error.__cause__), []
    try:
        with Image.open(file) as image:
            true_of = {
                "16-bit": image.mode.startswith("I;16"),
                "animated": getattr(image, "is_animated", False),
                "turned": image.getexif().get(ExifTags.Base.Orientation, 1) != 1,
            }
    except Exception:  # what is read of it, its first frame, is whole
        return "", ["damaged"]
    return "", [kind for kind, holds in true_of.items() if holds]


def _copies(images: Path, used: dict[str, str]) -> Iterator[Finding]:
    """Files of different splits with the same content."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for image in used:
        by_size[os.path.getsize(images / image)].append(image)
    by_content: dict[tuple[int, str], list[str]] = defaultdict(list)
    for size, group in by_size.items():
        if len({used[image] for image in group}) > 1:
            for image in group:
                by_content[size, file_digest(images / image)].append(image)
    copies = [group for group in by_content.values() if len({used[image] for image in group}) > 1]
    if copies:
        where = tuple(" = ".join(f"{image} ({used[image]})" for image in sorted(group)) for group in copies)
        remedy = "what was trained on is tested on; the published datasets are used as they are"
        yield Finding("warning", "copies", f"{len(copies)} images have a copy in another split", where, remedy)
