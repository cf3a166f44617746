"""Small copies of test images as ``data:`` URIs, found below a folder that may be absent or hold something else."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import CzslkitError, DataError
from .escaping import printable

SIDE = 160  # pixels of the longest side of a thumbnail
MOST_BYTES = 12_000  # of a thumbnail, before base64
PAGE_BYTES = 1_500_000  # of all thumbnails of a page, as base64
_QUALITIES = (85, 65, 45, 25)  # of JPEG, until a thumbnail has at most MOST_BYTES


@dataclass
class Thumbnails:
    """The thumbnails of a page, which have at most ``PAGE_BYTES`` together.

    Args:
        data: folder of all datasets; None looks where the images were when they were predicted, and then in the
            default folder of all datasets.
    """

    data: Path | None
    left: int = PAGE_BYTES

    def of(self, dataset: str, recorded: str) -> Pictures:
        """Return the pictures of a dataset whose images were in the folder ``recorded``."""
        where = recorded if self.data is None else str(self.data / dataset)
        return Pictures(self, _images_folder(dataset, recorded, self.data), where)


@dataclass
class Pictures:
    """The thumbnails of one dataset."""

    page: Thumbnails
    folder: Path | None
    where: str  # where the folder was looked for
    _asked: int = 0
    _reasons: Counter[str] = field(default_factory=Counter)

    def of(self, image: str) -> str:
        """Return the thumbnail of an image as a ``data:`` URI; empty if it is not shown, which :meth:`gaps` tells."""
        self._asked += 1
        try:
            uri = self._uri(image)
        except DataError as error:
            self._reasons[printable(str(error))[:300]] += 1
            return ""
        self.page.left -= len(uri)
        return uri

    def gaps(self) -> list[str]:
        """Return a sentence on the pictures that are not shown, with the first reason; none if all are shown."""
        missing = sum(self._reasons.values())
        if not missing:
            return []
        return [f"{missing} of {self._asked} pictures are not shown: {next(iter(self._reasons))}."]

    def _uri(self, image: str) -> str:
        """Return a thumbnail.

        Raises:
            DataError: there is no such image, it cannot be read, or the page has no room for it.
        """
        path = PurePosixPath(image)
        if self.folder is None:
            raise DataError(f"there are no images in {self.where}; give the folder of the datasets with --data")
        if path.is_absolute() or ".." in path.parts:
            raise DataError("the path of an image leads out of the folder of images")
        try:
            is_file = (self.folder / path).is_file()
        except OSError as error:  # a name that is too long, or a folder that may not be entered
            raise DataError(f"{self.folder / path} cannot be read: {error.strerror}") from error
        if not is_file:
            raise DataError(f"{self.folder / path} is absent; give the folder of the datasets with --data")
        content = thumbnail(self.folder / path)
        uri = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        if len(uri) > self.page.left:
            raise DataError(f"the thumbnails of a page have at most {PAGE_BYTES:,} bytes")
        return uri


def thumbnail(path: Path) -> bytes:
    """Return an image as a JPEG of at most ``SIDE`` pixels and ``MOST_BYTES`` bytes.

    Raises:
        DataError: the image cannot be read, or does not get small enough.
    """
    from ..data.images import open_rgb

    image = open_rgb(path)
    image.thumbnail((SIDE, SIDE))
    for quality in _QUALITIES:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= MOST_BYTES:
            return out.getvalue()
    raise DataError(f"{path} has more than {MOST_BYTES:,} bytes as a thumbnail")


def _images_folder(dataset: str, recorded: str, data: Path | None) -> Path | None:
    """Return the folder of the images of a dataset, None if there is none.

    A folder that a result names is used only if it is that of a dataset, since somebody else may have written it.
    """
    from ..data.dataset_folders import find_folder, is_in_dataset
    from ..data.layout import images_folder

    named = Path(recorded)
    try:
        if data is None and named.is_absolute() and is_in_dataset(named / "image") and named.is_dir():
            return named
        folder = find_folder(dataset, data)
        return images_folder(folder) if folder and images_folder(folder).is_dir() else None
    except (CzslkitError, OSError):
        return None
