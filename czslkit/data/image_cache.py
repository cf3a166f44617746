"""The images of a split decoded and cut to squares, in one file that is mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import provenance
from ..errors import DataError
from ..options import config_id
from .cache import Cache
from .image_check import unreadable_images
from .images import DecodedImages, ImageSet, open_rgb, resize_center_crop
from .splits import Split

_AT_A_TIME = 256  # images in memory while a file is written


def decoded_images(cache: Cache, split: Split, size: int, *, workers: int | None = None) -> DecodedImages | None:
    """The images of a split as squares of ``size`` pixels, each decoded now if they are not in the cache.

    Args:
        workers: threads that decode; by default a few more than there are processors.

    Returns:
        None, having said why, where they cannot be kept.

    Raises:
        DataError: images that cannot be read, counted, and the first ten named.
    """
    shape = (len(split), size, size, 3)
    made_by = {"code": provenance.class_versions([ImageSet]), "packages": provenance.packages()}
    return cache.obtain(
        f"images-{split.name}-{size}-{split.digest}",
        config_id(made_by),
        ".npy",
        about=f"{len(split):,} decoded {split.name} images",
        size=int(np.prod(shape)),
        read=partial(_opened, shape=shape),
        write=partial(_write, split=split, shape=shape, workers=workers),
    )


def _opened(file: Path, shape: tuple[int, ...]) -> DecodedImages:
    found = DecodedImages(file)
    try:
        pixels = found.pixels
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged header fails in many ways
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(f"it holds {list(pixels.shape)} of {pixels.dtype}, expected {list(shape)} of uint8")
    return found


def _write(file: Path, split: Split, shape: tuple[int, ...], workers: int | None) -> None:
    faults: list[str] = []
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for pixels in _decoded(split.paths, shape[1], workers):
            if isinstance(pixels, DataError):
                faults.append(str(pixels))
            elif not faults:
                out.write(pixels.tobytes())
    if faults:
        raise unreadable_images(faults, f"{len(split)} {split.name} images")


def _decoded(paths: Sequence[Path], size: int, workers: int | None) -> Iterator[NDArray[np.uint8] | DataError]:
    """Each image as ``[size, size, 3]``, or why it cannot be read."""

    def decode(path: Path) -> NDArray[np.uint8] | DataError:
        try:
            return np.asarray(resize_center_crop(open_rgb(path), size))
        except DataError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), _AT_A_TIME):
            yield from pool.map(decode, paths[start : start + _AT_A_TIME])
