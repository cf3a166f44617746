"""The cache of decoded images: one memory-mapped file with all images of a split, resized and cropped."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import provenance
from ..errors import DataError
from ..foreign_files import check_regular
from ..options import config_id
from ..terminal import tracked
from ..types import Preprocessing
from . import image_transforms
from .cache import Cache
from .image_check import unreadable_images
from .image_transforms import read_square
from .splits import Split

_CHUNK = 256  # images in memory while a file is written
_CHECKSUM = np.dtype("<u4")


@dataclass(frozen=True)
class DecodedImages:
    """A file of decoded images, mapped into memory.

    A worker process receives only the path and opens the file itself. A plain array would be copied to each worker.
    """

    file: Path

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """All images, ``[N, size, size, 3]``, RGB, read-only."""
        pixels: NDArray[np.uint8] = np.lib.format.open_memmap(self.file, mode="r")
        return pixels

    @cached_property
    def checksums(self) -> NDArray[np.uint32] | None:
        """The CRC-32 of each image, ``[N]``, read-only; None for a file of an earlier version, which has none."""
        end: int = self.pixels.offset + self.pixels.nbytes  # type: ignore[attr-defined]
        if self.file.stat().st_size == end:
            return None
        return np.memmap(self.file, _CHECKSUM, "r", end, (len(self.pixels),))

    def image(self, index: int) -> NDArray[np.uint8] | None:
        """Return one image, ``[size, size, 3]``, or None if it was changed after it was written."""
        pixels: NDArray[np.uint8] = self.pixels[index]
        if self.checksums is not None and zlib.crc32(pixels.tobytes()) != self.checksums[index]:
            return None
        return pixels

    def __reduce__(self) -> tuple[type[DecodedImages], tuple[Path]]:
        return DecodedImages, (self.file,)


def decoded_images(
    cache: Cache,
    split: Split,
    preprocessing: Preprocessing,
    *,
    workers: int | None = None,
    progress: bool = False,
) -> DecodedImages | None:
    """Return the decoded images of a split from the cache; decode them if they are not in the cache.

    Args:
        cache: cache of decoded images.
        split: the images.
        preprocessing: how a photo becomes a square image.
        workers: threads that decode; by default a few more than there are processors.
        progress: show how many images are decoded.

    Returns:
        The decoded images, or None if they cannot be written; the log of the cache then gives the reason.

    Raises:
        DataError: some images cannot be read. The message has their number and names the first ten.
    """
    shape = (len(split), preprocessing.size, preprocessing.size, 3)
    kind = "-".join(filter(None, (str(preprocessing.size), preprocessing.resizing)))
    code_version = {"transforms": image_transforms.VERSION, "packages": provenance.packages()}
    return cache.obtain(
        f"images-{split.name}-{kind}-{split.digest}",
        config_id(code_version),
        ".npy",
        description=f"{len(split):,} decoded {split.name} images",
        size=int(np.prod(shape)) + len(split) * _CHECKSUM.itemsize,
        read=partial(_open_decoded, shape=shape),
        write=partial(_write_decoded, split=split, preprocessing=preprocessing, workers=workers, progress=progress),
    )


def _open_decoded(file: Path, shape: tuple[int, ...]) -> DecodedImages:
    """Open a file of decoded images, and check its shape and type.

    Raises:
        ValueError: the file is damaged, or has another shape or type.
    """
    check_regular(file)
    decoded = DecodedImages(file)
    try:
        pixels = decoded.pixels
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged header fails in many ways
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(f"it has shape {list(pixels.shape)} and type {pixels.dtype}, expected {list(shape)} and uint8")
    end, size = pixels.offset + pixels.nbytes, file.stat().st_size  # type: ignore[attr-defined]
    whole = end + len(pixels) * _CHECKSUM.itemsize
    if size not in (end, whole):  # a file of an earlier version has no checksums
        raise ValueError(f"it has {size:,} bytes, expected {whole:,}")
    return decoded


def _write_decoded(file: Path, split: Split, preprocessing: Preprocessing, workers: int | None, progress: bool) -> None:
    """Write the decoded images of a split to a file, followed by the CRC-32 of each image.

    Raises:
        DataError: some images cannot be read.
    """
    errors: list[str] = []
    checksums: list[int] = []
    shape = (len(split), preprocessing.size, preprocessing.size, 3)
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
        decoded = _decode(split.paths, preprocessing, workers)
        for pixels in tracked(decoded, f"{split.name} images decoded", len(split), show=progress):
            if isinstance(pixels, DataError):
                errors.append(str(pixels))
            elif not errors:
                out.write(pixels.tobytes())
                checksums.append(zlib.crc32(pixels.tobytes()))
        out.write(np.array(checksums, _CHECKSUM).tobytes())
    if errors:
        raise unreadable_images(errors, f"{len(split)} {split.name} images")


def _decode(
    paths: Sequence[Path], preprocessing: Preprocessing, workers: int | None
) -> Iterator[NDArray[np.uint8] | DataError]:
    """Yield each image as ``[size, size, 3]``, or the error if it cannot be read."""

    def decode(path: Path) -> NDArray[np.uint8] | DataError:
        try:
            return read_square(path, preprocessing)
        except DataError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), _CHUNK):
            yield from pool.map(decode, paths[start : start + _CHUNK])
