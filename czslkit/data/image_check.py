"""Check before training that every image of a dataset can be decoded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from ..errors import DataError, LockError, first_ten
from ..files import file_lock, remove_unfinished, write_text
from ..terminal import log_to_stderr, tracked
from .images import open_rgb
from .splits import Splits


def check_images(
    splits: Splits,
    *,
    workers: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
    log: Callable[[str], None] = log_to_stderr,
) -> None:
    """Decode every image, so that a broken image cannot stop a training halfway.

    If several processes check the same images, one of them decodes and the others wait.

    Args:
        splits: the loaded dataset.
        workers: threads; by default a few more than there are processors.
        cache: folder in which success is recorded; the same files are then not decoded again.
        progress: show how many images are decoded.
        log: called with a line of text if success cannot be recorded, and if this process has to wait.

    Raises:
        DataError: some images cannot be read. The message has their number and names the first ten.
    """
    if cache is None:
        _decode_all(splits, workers, progress)
        return
    record = cache / f"images-{splits.fingerprint}.json"
    if os.path.isfile(record):  # also without the right to look into the folder
        return
    with ExitStack() as stack:
        with suppress(LockError):  # nothing can be written there: the images are checked by each process
            stack.enter_context(file_lock(cache / f".images-{splits.fingerprint}.lock", log))
        if os.path.isfile(record):  # another process may have checked them meanwhile
            return
        count = _decode_all(splits, workers, progress)
        content = {"dataset": splits.name, "fingerprint": splits.fingerprint, "images": count}
        remove_unfinished(cache)
        try:
            write_text(record, json.dumps(content, indent=1))
        except OSError as error:
            log(f"the images of {splits.name} are readable, but the record of it cannot be written: {error}")


def _decode_all(splits: Splits, workers: int | None, progress: bool) -> int:
    """Decode every image of a dataset and return their number.

    Raises:
        DataError: some images cannot be read.
    """
    paths = sorted({path for split in (splits.train, splits.val, splits.test) for path in split.paths})
    with ThreadPoolExecutor(workers) as pool:
        checked = tracked(pool.map(_read_error, paths), f"images of {splits.name} checked", len(paths), show=progress)
        errors = [error for error in checked if error]
    if errors:
        raise unreadable_images(errors, f"{len(paths)} images of {splits.name}")
    return len(paths)


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
