"""Images that are not used, because the lists do not have their pair or they could not be read when imported."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, first_ten
from ..foreign_files import read_json
from .integrity import printable
from .layout import ABSENT, SPLITS, Listing, Pair, import_record

LARGEST_SHARE = 0.01  # largest share of a split's images that may be left out without the user's consent


@dataclass(frozen=True)
class LeftOut:
    """The images of one split that are not used, because no list has their pair."""

    split: str
    images: int
    of: int  # images of the split in the metadata
    pairs: tuple[str, ...]  # the pairs of these images, each with a listed pair that is spelled alike, if there is one

    def __str__(self) -> str:
        """Return a sentence with the numbers and the first ten pairs."""
        what = f"{self.images} of {self.of} {self.split} images are left out, because their pair is in no list"
        return f"{what}: {first_ten(self.pairs)}"


def left_out_images(listing: Listing) -> tuple[LeftOut, ...]:
    """Return the images of each split whose pair is in no list; images without attribute or set do not count."""
    listed = {_spelling(pair): pair for split in SPLITS for pair in listing.pairs[split]}
    found = []
    for split in SPLITS:
        shown = [(i.attr, i.obj) for i in listing.skipped if i.set == split and i.attr != ABSENT]
        pairs = tuple(
            repr(" ".join(pair)) + (f" (listed: {' '.join(alike)!r})" if (alike := listed.get(_spelling(pair))) else "")
            for pair in dict.fromkeys(shown)
        )
        if shown:
            found.append(LeftOut(split, len(shown), len(shown) + len(listing.instances[split]), pairs))
    return tuple(found)


def refuse_large_shares(name: str, left_out: Iterable[LeftOut]) -> None:
    """Check that few images of each split are left out.

    Raises:
        DataError: more than ``LARGEST_SHARE`` of a split is left out.
    """
    if large := [str(one) for one in left_out if one.images > LARGEST_SHARE * one.of]:
        remedy = (
            "spell the labels of the metadata as in the lists, or remove the lists, which are then rebuilt from the "
            "metadata; --allow-missing (allow_missing=True) runs without these images"
        )
        raise DataError(
            "\n  ".join([f"{name}: more than {LARGEST_SHARE:.0%} of a split would be missing:", *large, remedy])
        )


@dataclass(frozen=True)
class SetAside:
    """The pictures that could not be read when a dataset was imported, and are therefore in no split."""

    images: int
    of: int  # pictures of the source
    reasons: tuple[str, ...]  # the file and the reason of each

    @property
    def many(self) -> bool:
        """Whether they are more than may be missing without the user's consent."""
        return self.images > LARGEST_SHARE * self.of

    def __str__(self) -> str:
        """Return a sentence with the numbers."""
        return f"{self.images} of {self.of} pictures could not be read and were set aside when the dataset was imported"


def set_aside_images(folder: Path, listing: Listing) -> SetAside | None:
    """Return the pictures that the import of a dataset set aside, None if there are none.

    Raises:
        DataError: ``imported.json`` cannot be read.
    """
    record = import_record(folder)
    if not record.is_file():
        return None
    try:
        reasons = tuple(f"{one['file']}: {one['reason']}" for one in read_json(record).get("set_aside", ()))
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        remedy = "import the dataset again with --force"
        raise DataError(f"{record} is not as czslkit writes it: {type(error).__name__}: {error}; {remedy}") from error
    images = sum(map(len, listing.instances.values())) + len(listing.skipped)
    return SetAside(len(reasons), images + len(reasons), reasons) if reasons else None


def refuse_many_set_aside(name: str, set_aside: SetAside | None) -> None:
    """Check that few pictures were set aside when a dataset was imported.

    Raises:
        DataError: more than ``LARGEST_SHARE`` of the pictures were.
    """
    if set_aside and set_aside.many:
        reasons = list(map(printable, set_aside.reasons))
        raise DataError(
            f"{name}: {set_aside}, which is more than {LARGEST_SHARE:.0%}: {first_ten(reasons)}\n  replace "
            "these files and import the dataset again with --force; --allow-missing (allow_missing=True) runs without "
            "them"
        )


def _spelling(pair: Pair) -> tuple[str, ...]:
    """Return a pair without case, joining characters, spaces and differences in the encoding of accents."""
    return tuple(re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", word).casefold()) for word in pair)
