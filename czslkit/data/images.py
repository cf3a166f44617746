"""Open image files: well-known formats only, few large images at a time, and imported images upright in 8 bits.

Images are read as in the authors' programs, with ``Image.open(path).convert("RGB")``. Images of a dataset that
``czslkit data import`` made are also turned as their EXIF data asks, and scaled to 8 bits if they have more.
"""

from __future__ import annotations

import functools
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import DataError
from .layout import import_record

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Formats that are opened, whatever the suffix is. Pillow's readers of others start programs or read other files."""

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".avif",
    ".heic",
    ".heif",
)
"""Endings of image files, in lower case."""

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_WHITES = (255, 1023, 4095, 16_383, 65_535, 2**31 - 1)  # largest values of 8, 10, 12, 14, 16 and 31 bits
_OVERSHOOT = 0.02  # share of the range by which resampled floats may leave it
_DARKEST_FLOAT = 16  # floats whose largest value lies between 1 and this may be of either range
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MEMORY = 3 << 29  # bytes that the images that a process decodes at the same time may take
_BYTES_PER_PIXEL = 16  # the most that a reader and the conversion to RGB take


class ByteBudget:
    """Memory that the threads of a process share: a thread waits until the part that it needs is free.

    Args:
        size: bytes of all parts together.
    """

    def __init__(self, size: int) -> None:
        self.size = self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, part: int) -> Iterator[None]:
        """Hold ``part`` bytes within the ``with`` block; a part larger than the budget is held alone."""
        part = min(part, self.size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= part)
            self._free -= part
        try:
            yield
        finally:
            with self._changed:
                self._free += part
                self._changed.notify_all()


def is_image(file: Path) -> bool:
    """Return whether a file's name ends with a suffix of image files."""
    return file.suffix.lower() in SUFFIXES


def open_rgb(path: Path) -> Image.Image:
    """Decode a whole image and return it as RGB.

    Only the first frame of an animation is read, and transparency is dropped. If the image belongs to an imported
    dataset, it is upright, and grey values of more than 8 bits are scaled. Otherwise the EXIF orientation is not
    applied, and values above 255 are clipped.

    Raises:
        DataError: the file is in none of ``FORMATS``, not complete, or has more than ``PIL.Image.MAX_IMAGE_PIXELS``
            pixels.
    """
    with decoded(path) as image:
        return image


@contextmanager
def decoded(path: Path, *, imported: bool | None = None) -> Iterator[Image.Image]:
    """Yield an image as ``open_rgb`` returns it.

    Threads of a process that are within this block hold at most 1.5 GiB of pixels together, or a single image.

    Args:
        path: the image file.
        imported: read it as an image of an imported dataset; by default if it is one.

    Raises:
        DataError: as in ``open_rgb``.
    """
    try:
        image = open_image(path)
    except Exception as error:  # each of Pillow's readers fails in its own way
        raise _unreadable(path, error) from error
    with _process_memory(os.getpid()).hold(image.width * image.height * _BYTES_PER_PIXEL):
        try:
            with image:
                rgb = (
                    _upright_in_8_bits(image) if (is_imported(path) if imported is None else imported) else _rgb(image)
                )
        except Exception as error:
            raise _unreadable(path, error) from error
        del image
        try:
            yield rgb
        finally:
            del rgb  # before another thread takes its memory


def open_image(path: Path) -> Image.Image:
    """Open an image file and read its header.

    Raises:
        OSError: there is no regular file, it is empty, or it is in none of ``FORMATS``.
        PIL.Image.DecompressionBombError: it has more than ``PIL.Image.MAX_IMAGE_PIXELS`` pixels.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    if not status.st_size:
        raise OSError("it is empty")
    try:
        image = Image.open(path, formats=_formats())
    except UnidentifiedImageError:
        with path.open("rb") as file:
            start = file.read(12)
        if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS and "HEIF" not in _formats():
            raise UnidentifiedImageError("reading HEIC needs pip install 'czslkit[heic]'") from None
        raise UnidentifiedImageError(f"it is in none of the formats {', '.join(_formats())}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Image.DecompressionBombError(f"it has {_too_many_pixels()}") from None
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f"it has {image.width} x {image.height} pixels, {_too_many_pixels()}")
    return image


def is_imported(image: Path) -> bool:
    """Return whether an image belongs to an imported dataset, whose images are in subfolders of ``images``."""
    images = image.absolute().parent.parent
    return images.name == "images" and import_record(images.parent).is_file()


def depth(image: Image.Image) -> str:
    """Return how a grey image stores its values: ``16-bit``, ``32-bit`` or ``float``, or ``""`` for 8 bits."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return "16-bit"
    return {"I": "32-bit", "F": "float"}.get(image.mode, "")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image; 1 is upright, as is an image without or with unreadable EXIF data."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data fail in many ways, and say nothing about the orientation
        return 1
    return value if value in _TURNS else 1


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return the formats that can be opened here: those of ``FORMATS``, and HEIF if ``pillow_heif`` is installed."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in (*FORMATS, "HEIF") if name in Image.OPEN)


@functools.cache
def _process_memory(process: int) -> ByteBudget:
    """Return the budget of a process; a forked process does not share that of its parent."""
    return ByteBudget(_MEMORY)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable image: {type(error).__name__}: {error}")


def upright(image: Image.Image) -> Image.Image:
    """Return an image that is in memory as RGB, turned as its EXIF data asks, and in 8 bits.

    Raises:
        DataError: its file cannot be decoded, or its values are of no known range.
    """
    try:
        return _upright_in_8_bits(image)
    except Exception as error:  # each of Pillow's readers fails in its own way
        raise DataError(f"the image cannot be read: {type(error).__name__}: {error}") from error


def _too_many_pixels() -> str:
    limit = f"more than {Image.MAX_IMAGE_PIXELS:,}, the limit of Pillow"
    return f"{limit} (PIL.Image.MAX_IMAGE_PIXELS): make it smaller"


def _rgb(image: Image.Image) -> Image.Image:
    image.info.pop("transparency", None)  # Pillow would warn that RGB has none
    if image.mode == "RGB":
        image.load()
        return image  # convert would copy it
    return image.convert("RGB")


def _upright_in_8_bits(image: Image.Image) -> Image.Image:
    """Return an image as RGB, turned as its EXIF data asks, and with all of its grey values.

    Raises:
        ValueError: grey values are not finite, negative, or too large.
    """
    image.load()  # which turns a TIFF
    turn = _TURNS.get(orientation(image))
    rgb = _rgb(_scaled(image) if depth(image) else image)
    return rgb if turn is None else rgb.transpose(turn)


def _scaled(image: Image.Image) -> Image.Image:
    """Return an image of more than 8 bits in 8 bits. Its white is the smallest of 1 and ``_WHITES`` that holds it.

    Raises:
        ValueError: its values are not finite, negative, too large, or floats that may be of two ranges.
    """
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    slack = _OVERSHOOT if image.mode == "F" else 0.0
    whites = (1, *_WHITES) if image.mode == "F" else _WHITES
    white = next((white for white in whites if high <= white * (1 + slack)), None)
    ambiguous = image.mode == "F" and white == 255 and high < _DARKEST_FLOAT
    if white is None or ambiguous or not -slack * white <= low:
        kind = "floats" if image.mode == "F" else "whole numbers"
        ranges = f"from 0 to 1, or from 0 to more than {_DARKEST_FLOAT}" if image.mode == "F" else "from 0"
        raise ValueError(f"its values are {kind} from {low:g} to {high:g}, expected {ranges} to {_WHITES[-1]}")
    scaled = np.multiply(values, 255 / white, dtype=np.float32)
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
