"""Verify a dataset: check its counts, lists, labels and images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ...errors import DataError
from ..dataset_folders import dataset, ensure_folder
from ..datasets import Counts, Dataset
from ..integrity import Finding, dataset_errors, printable, untrained_words
from ..layout import Listing, images_folder
from ..left_out import set_aside_images
from .counts import count_differences, count_listing, named_counts
from .image_files import check_image_files
from .lint import lint

_PLACES_SHOWN = 5  # places of a finding in the text report; the JSON report has all
_SEVERITIES = ("error", "warning", "note")
_REMEDIES = {  # remedies by kind of finding, for findings without a remedy
    "missing": "unpack the images again, or remove images that do not exist from the metadata",
    "outside": "take the metadata from its source",
    "in-two-splits": "keep each image in one split of the metadata only",
    "empty": "take the lists and the metadata from the same download",
}


@dataclass(frozen=True)
class Verification:
    """The result of verifying one dataset."""

    name: str
    folder: Path | None
    """None if the dataset is absent."""
    found: Counts | None
    """None if the lists cannot be read."""
    expected: Counts | None
    """Published counts, None if there are none."""
    findings: tuple[Finding, ...]
    """Errors first, then warnings, then notes."""

    @property
    def passed(self) -> bool:
        """True if the dataset has no error; it may have warnings."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_text(self) -> str:
        """Return a text report: counts, every finding with its first places, and a summary as the last line."""
        lines = [f"{self.name} in {self.folder}" if self.folder else self.name]
        if self.found:
            found = named_counts(self.found)
            columns: dict[str, Iterable[str | int | None]] = {"": found, "found": found.values()}
            if self.expected:
                expected = named_counts(self.expected)
                columns["expected"] = [expected.get(name) for name in found]
            lines += [tabulate(columns, headers="keys", tablefmt="plain", intfmt=",", missingval="-")]
        for finding in self.findings:
            lines += _finding_lines(finding)
        counts = {severity: sum(f.severity == severity for f in self.findings) for severity in ("error", "warning")}
        summary = " and ".join(f"{n} {severity}{'s' if n > 1 else ''}" for severity, n in counts.items() if n)
        return "\n".join([*lines, f"{self.name}: {summary or 'no errors or warnings'}"])

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values, with all places of every finding."""
        return {
            "dataset": self.name,
            "folder": str(self.folder) if self.folder else None,
            "sound": self.passed,
            "found": named_counts(self.found) if self.found else None,
            "expected": named_counts(self.expected) if self.expected else None,
            "findings": [{**vars(finding), "where": list(finding.where)} for finding in self.findings],
        }


def verify(
    name: str, root: str | Path | None = None, *, expected: Counts | None = None, workers: int | None = None
) -> Verification:
    """Check a dataset against published counts, its lists against metadata and files, and decode every image.

    Args:
        name: the dataset, as in ``load_dataset``.
        root: the folder of all datasets, as in ``load_dataset``.
        expected: counts to compare with; by default the published counts of the dataset.
        workers: number of threads; by default a few more than there are processors.

    Raises:
        UnknownNameError: there is no dataset of this name.
    """
    known = dataset(name)
    unpublished = known.unpublished if expected is None else ""
    expected = expected or known.counts
    try:
        folder = ensure_folder(name, root)
    except DataError as error:
        return Verification(name, None, None, expected, (Finding("error", "absent", str(error)),))
    try:
        listing = known.listing(folder)
        set_aside = set_aside_images(folder, listing)
    except DataError as error:
        malformed = Finding("error", "malformed", str(error), remedy=_REMEDIES["empty"])
        return Verification(name, folder, None, expected, (malformed,))
    found = count_listing(listing)
    aside = "replace the files and import the dataset again with --force"
    findings = [
        *([Finding("warning", "set-aside", str(set_aside), set_aside.reasons, aside)] if set_aside else ()),
        *(count_differences(found, expected) if expected else ()),
        *_findings(known, folder, listing, workers),
        *([Finding("note", "unpublished", unpublished)] if unpublished else ()),
    ]
    findings = sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity))
    return Verification(name, folder, found, expected, tuple(findings))


def _findings(known: Dataset, folder: Path, listing: Listing, workers: int | None) -> Iterator[Finding]:
    """Yield all findings about lists, files and labels, each with a remedy if one is known."""
    findings = [*dataset_errors(folder, listing, open_vocabulary=known.open_vocabulary)]
    if known.open_vocabulary:
        findings += [replace(finding, severity="note", remedy="") for finding in untrained_words(listing)]
    findings += [*check_image_files(images_folder(folder), listing, workers), *lint(listing)]
    for finding in findings:
        yield replace(finding, remedy=finding.remedy or _REMEDIES.get(finding.kind, ""))


def _finding_lines(finding: Finding) -> Iterator[str]:
    """Yield the lines of a finding in the text report."""
    yield f"{finding.severity}: {finding.what}"
    for place in finding.where[:_PLACES_SHOWN]:
        yield f"    {printable(place)}"
    if len(finding.where) > _PLACES_SHOWN:
        yield f"    and {len(finding.where) - _PLACES_SHOWN} more"
    if finding.remedy:
        yield f"    -> {finding.remedy}"
