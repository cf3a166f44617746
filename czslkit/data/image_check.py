"""Check before training that every image of a dataset can be decoded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import DataError, first_ten
from ..files import write_text
from ..terminal import tracked
from .image_transforms import open_rgb
from .splits import Splits


def check_images(
    splits: Splits, *, workers: int | None = None, cache: Path | None = None, progress: bool = False
) -> None:
    """Decode every image, so that a broken image cannot stop a training halfway.

    Args:
        splits: the loaded dataset.
        workers: threads; by default a few more than there are processors.
        cache: folder in which success is recorded; the same files are then not decoded again.
        progress: show how many images are decoded.

    Raises:
        DataError: some images cannot be read. The message has their number and names the first ten.
    """
    record = cache / f"images-{splits.fingerprint}.json" if cache else None
    if record and record.is_file():
        return
    paths = sorted({path for split in (splits.train, splits.val, splits.test) for path in split.paths})
    with ThreadPoolExecutor(workers) as pool:
        checked = tracked(pool.map(_read_error, paths), f"images of {splits.name} checked", len(paths), show=progress)
        errors = [error for error in checked if error]
    if errors:
        raise unreadable_images(errors, f"{len(paths)} images of {splits.name}")
    if record:
        content = {"dataset": splits.name, "fingerprint": splits.fingerprint, "images": len(paths)}
        write_text(record, json.dumps(content, indent=1))


def unreadable_images(errors: Sequence[str], total: str) -> DataError:
    """Return the error to raise for unreadable images; its message lists the first ten.

    Args:
        errors: error message of each unreadable image.
        total: number and description of all checked images, such as ``21 train images``.
    """
    separator = "\n  "
    return DataError(f"{len(errors)} of {total} cannot be read:{separator}{first_ten(errors, separator)}")


def _read_error(path: Path) -> str:
    """Return the error message of an unreadable image, or an empty text for a readable image."""
    try:
        open_rgb(path)
    except DataError as error:
        return str(error)
    return ""
