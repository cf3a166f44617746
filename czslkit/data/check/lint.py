"""Find unusual entries in a dataset's lists, labels and metadata. They may be mistakes, but do not stop a run."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from ...sizes import counted
from ..integrity import Finding
from ..layout import ABSENT, SPLITS, Listing

MISSING_LABELS = ("nan", "none", "null", "n/a")
"""Labels, in lower case, that programs write for a missing value."""

_JOINERS = "_-.'+&"  # characters that may stand between the letters and digits of a label


def lint(listing: Listing) -> Iterator[Finding]:
    """Yield every warning and note about the pair lists and the metadata."""
    yield from _repeated_images(listing)
    yield from _pairs_without_images(listing)
    yield from _one_sided_splits(listing)
    for kind, labels in _labels_by_kind(listing).items():
        yield from _unusual_labels(kind, labels)
        yield from _similar_labels(kind, labels)
    yield from _skipped_instances(listing)


def _repeated_images(listing: Listing) -> Iterator[Finding]:
    for split in SPLITS:
        counts = Counter(i.image for i in listing.instances[split])
        if repeated := tuple(f"{image} ({n} times)" for image, n in counts.items() if n > 1):
            what = counted(len(repeated), "image", f"are listed more than once for {split}")
            yield Finding("warning", "repeated", what, repeated, "an image counts as often as it is listed")


def _pairs_without_images(listing: Listing) -> Iterator[Finding]:
    for split in SPLITS:
        shown = {(i.attr, i.obj) for i in listing.instances[split]}
        if pairs := tuple(" ".join(pair) for pair in listing.pairs[split] if pair not in shown):
            what = f"{len(pairs)} of {len(listing.pairs[split])} pairs of {split}_pairs.txt have no image"
            yield Finding("warning", "pair-without-image", what, pairs, "images may be missing from the metadata")


def _one_sided_splits(listing: Listing) -> Iterator[Finding]:
    """Yield a warning for each split that cannot show the trade-off between seen and unseen pairs."""
    trained = set(listing.pairs["train"])
    for split in ("val", "test"):
        seen = sum(pair in trained for pair in listing.pairs[split])
        for kind, count in (("seen", seen), ("unseen", len(listing.pairs[split]) - seen)):
            if not count:
                what = f"{split}_pairs.txt lists no {kind} pair"
                remedy = "the AUC and the harmonic mean of this split have no meaning" + (
                    "; the epoch is selected by the validation accuracy" if split == "val" else ""
                )
                yield Finding("warning", "one-sided", what, (), remedy)


def _labels_by_kind(listing: Listing) -> dict[str, set[str]]:
    """Return the labels of the lists and of skipped instances, by ``attribute`` and ``object``."""
    pairs = [pair for split in SPLITS for pair in listing.pairs[split]]
    pairs += [(i.attr, i.obj) for i in listing.skipped]
    return {kind: {pair[column] for pair in pairs} - {ABSENT} for column, kind in enumerate(("attribute", "object"))}


def _unusual_labels(kind: str, labels: Iterable[str]) -> Iterator[Finding]:
    labels = sorted(labels)
    if spaced := tuple(repr(label) for label in labels if not label or label != " ".join(label.split())):
        what = f"{len(spaced)} {kind} names are empty or have stray spaces"
        remedy = "pair lists cannot contain them, so their images do not count: correct the metadata"
        yield Finding("warning", "space-in-name", what, spaced, remedy)
    if missing := tuple(repr(label) for label in labels if label.lower() in MISSING_LABELS):
        what = f"{len(missing)} {kind} names look like missing labels"
        yield Finding("warning", "missing-label", what, missing, f"write {ABSENT} for a missing label")
    if odd := tuple(label for label in labels if label == " ".join(label.split()) and not is_plain_label(label)):
        what = f"{len(odd)} {kind} names have unusual characters"
        remedy = "options that take names with commas between them, and folders named by pairs, may not accept them"
        yield Finding("warning", "odd-name", what, odd, remedy)


def is_plain_label(label: str) -> bool:
    """Return whether a label consists of letters and digits of any script, possibly with joining characters or
    spaces inside.

    >>> is_plain_label("dry-erase_board"), is_plain_label("hot/dog")
    (True, False)
    """
    known_characters = all(char in _JOINERS + " " or unicodedata.category(char)[0] in "LMN" for char in label)
    return known_characters and label == label.strip(_JOINERS + " ") and unicodedata.is_normalized("NFC", label)


def _similar_labels(kind: str, labels: Iterable[str]) -> Iterator[Finding]:
    """Yield a warning for labels that differ only in case, in joining characters or in the encoding of accents."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        spellings[re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", label).casefold())].append(label)
    if similar := tuple(" = ".join(map(repr, group)) for group in spellings.values() if len(group) > 1):
        what = f"{len(similar)} {kind} names have several spellings"
        yield Finding(
            "warning", "look-alike", what, similar, "a model treats them as different: do they mean the same?"
        )


def _skipped_instances(listing: Listing) -> Iterator[Finding]:
    """Yield a note for each reason why instances of the metadata do not count."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for i in listing.skipped:
        if ABSENT in (i.attr, i.set):
            reasons["have no attribute" if i.attr == ABSENT else "have no set"].append(i.image)
        else:
            reasons["show a pair that is in no list"].append(f"{i.image} ({i.attr} {i.obj})")
    for reason, images in reasons.items():
        yield Finding("note", "skipped", f"{len(images)} instances {reason} and do not count", tuple(images))
