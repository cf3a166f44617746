"""TODO."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import DataError
from .images import open_rgb
from .splits import Splits

_SHOWN = 10  # unreadable_images images that a message names


def check_images(splits: Splits, *, workers: int | None = None, cache: Path | None = None) -> None:
    """Decode every image, so that none stops a training halfway.

    Args:
        workers: threads; by default a few more than there are processors.
        cache: a folder to note success in; the same files are then not decoded again.

    Raises:
        DataError: images that cannot be read, counted, and the first ten named.
    """
    stamp = cache / f"images-{splits.fingerprint}.json" if cache else None
    if stamp and stamp.is_file():
        return
    paths = sorted({path for split in (splits.train, splits.val, splits.test) for path in split.paths})
    with ThreadPoolExecutor(workers) as pool:
        faults = [fault for fault in pool.map(_fault, paths) if fault]
    if faults:
        raise unreadable_images(faults, f"{len(paths)} images of {splits.name}")
    if stamp:
        _write_json(stamp, {"dataset": splits.name, "fingerprint": splits.fingerprint, "images": len(paths)})


def unreadable_images(faults: Sequence[str], of: str) -> DataError:
    """What to raise for images that cannot be read, of so many: the first ten are named."""
    more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    return DataError("\n  ".join([f"{len(faults)} of {of} cannot be read:", *faults[:_SHOWN], *more]))


def _fault(path: Path) -> str:
    """Why an image cannot be read, empty if it can."""
    try:
        open_rgb(path)
    except DataError as error:
        return str(error)
    return ""


def _write_json(file: Path, content: dict[str, str | int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1))
    os.replace(partial, file)
