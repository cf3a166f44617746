"""What is odd about a dataset's lists, labels and metadata, and yet keeps nothing from running."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from ..integrity import Finding
from ..layout import ABSENT, SPLITS, Listing

MISSING = ("nan", "none", "null", "n/a")
"""What programs write, in any case, for a label that nobody gave."""

_JOINTS = "_-.'+&"


def lint(listing: Listing) -> Iterator[Finding]:
    """Every warning and note that the files with text give rise to."""
    yield from _repeated(listing)
    yield from _unshown(listing)
    yield from _one_sided(listing)
    for kind, words in _words(listing).items():
        yield from _unusual(kind, words)
        yield from _look_alikes(kind, words)
    yield from _skipped(listing)


def _repeated(listing: Listing) -> Iterator[Finding]:
    for phase in SPLITS:
        counts = Counter(i.image for i in listing.instances[phase])
        if repeated := tuple(f"{image} ({n} times)" for image, n in counts.items() if n > 1):
            what = f"{len(repeated)} images are listed more than once for {phase}"
            yield Finding("warning", "repeated", what, repeated, "each of them counts as often as it is listed")


def _unshown(listing: Listing) -> Iterator[Finding]:
    for phase in SPLITS:
        shown = {(i.attr, i.obj) for i in listing.instances[phase]}
        if unshown := tuple(" ".join(pair) for pair in listing.pairs[phase] if pair not in shown):
            what = f"{len(unshown)} of {len(listing.pairs[phase])} pairs of {phase}_pairs.txt have no image"
            yield Finding("warning", "pair-without-image", what, unshown, "images may have been lost from the metadata")


def _one_sided(listing: Listing) -> Iterator[Finding]:
    """Splits that cannot show the trade between seen and unseen pairs."""
    trained = set(listing.pairs["train"])
    for phase in ("val", "test"):
        seen = sum(pair in trained for pair in listing.pairs[phase])
        for kind, count in (("seen", seen), ("unseen", len(listing.pairs[phase]) - seen)):
            if not count:
                what = f"{phase}_pairs.txt lists no {kind} pair"
                remedy = "AUC and harmonic mean of this split mean nothing"
                yield Finding("warning", "one-sided", what, (), remedy)


def _words(listing: Listing) -> dict[str, set[str]]:
    pairs = [pair for phase in SPLITS for pair in listing.pairs[phase]]
    pairs += [(i.attr, i.obj) for i in listing.skipped]
    return {kind: {pair[column] for pair in pairs} - {ABSENT} for column, kind in enumerate(("attribute", "object"))}


def _unusual(kind: str, words: Iterable[str]) -> Iterator[Finding]:
    words = sorted(words)
    if spaced := tuple(repr(word) for word in words if word.split() != [word]):
        what = f"{len(spaced)} {kind} names are empty or have spaces"
        remedy = "a pair list cannot hold them, so their images do not count: write '_' for ' ' in the metadata"
        yield Finding("warning", "space-in-name", what, spaced, remedy)
    if missing := tuple(repr(word) for word in words if word.lower() in MISSING):
        what = f"{len(missing)} {kind} names look like missing ones"
        yield Finding("warning", "missing-label", what, missing, f"write {ABSENT} for a label that nobody gave")
    if odd := tuple(word for word in words if word.split() == [word] and not plain(word)):
        what = f"{len(odd)} {kind} names have unusual characters"
        remedy = "options that take names with commas, and folders named by pairs, may not take these"
        yield Finding("warning", "odd-name", what, odd, remedy)


def plain(word: str) -> bool:
    """Whether a name is letters and digits of any script, joined by a few characters, and encoded as is usual."""
    letters = all(char in _JOINTS or unicodedata.category(char)[0] in "LMN" for char in word)
    return letters and word == word.strip(_JOINTS) and unicodedata.is_normalized("NFC", word)


def _look_alikes(kind: str, words: Iterable[str]) -> Iterator[Finding]:
    """Names that differ by case, by what joins their words or by how an accent is encoded."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for word in sorted(words):
        spellings[re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", word).casefold())].append(word)
    if alike := tuple(" = ".join(map(repr, group)) for group in spellings.values() if len(group) > 1):
        what = f"{len(alike)} {kind} names have several spellings"
        yield Finding("warning", "look-alike", what, alike, "a model is to tell them apart: are they one and the same?")


def _skipped(listing: Listing) -> Iterator[Finding]:
    """Instances of the metadata that do not count, by the reason."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for i in listing.skipped:
        if ABSENT in (i.attr, i.set):
            reasons["have no attribute" if i.attr == ABSENT else "are of no set"].append(i.image)
        else:
            reasons["show a pair that no list holds"].append(f"{i.image} ({i.attr} {i.obj})")
    for reason, images in reasons.items():
        yield Finding("note", "skipped", f"{len(images)} instances {reason}, and do not count", tuple(images))
