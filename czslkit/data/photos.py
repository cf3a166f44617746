"""Photos to predict: found in folders and by patterns, and read in batches; an unreadable one stops nothing."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import ConfigError, DataError, first_ten
from ..method import Method
from ..options import user_path
from .batches import Feed
from .dataset_folders import is_in_dataset
from .image_set import ImageSet, RawImages
from .image_transforms import resize_and_crop
from .images import decoded, is_image, upright
from .splits import Split

#: A photo: the path of its file, or the photo itself.
Photo: TypeAlias = "Path | Image.Image"


def find_photos(given: Iterable[str | Path]) -> list[Path]:
    """Return the image files that paths stand for, each once, in the order given.

    A path is a file, a folder, or a pattern such as ``photos/**/*.jpg``. Of a folder, all files with a suffix of
    images count, also those in subfolders; hidden files and folders do not. The case of suffixes is ignored.

    Raises:
        DataError: a folder has no images, or no file fits a pattern; the message lists all such paths.
    """
    found: dict[Path, None] = {}
    problems = []
    for text in given:
        path = user_path(text)
        if path.is_dir():
            files = _images_in(path)
            problems += [] if files else [f"{path} has no images, not even in its subfolders"]
        elif os.path.lexists(path) or not glob.has_magic(str(path)):
            files = [path]  # a file that does not exist is named when it is read
        else:
            files = sorted(_matching(str(path)))
            problems += [] if files else [f"no image fits the pattern {str(text)!r}"]
        found |= dict.fromkeys(files)
    if problems:
        raise DataError("\n  ".join(problems))
    return list(found)


def _images_in(folder: Path) -> list[Path]:
    """Return the image files below a folder that are not hidden, in the same order on every system."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [file for name in sorted(names) if not name.startswith(".") and is_image(file := Path(parent, name))]
    return files


def _matching(pattern: str) -> Iterable[Path]:
    """Yield the image files that fit a pattern, whatever the case of their suffix is, and those in folders that do."""
    stem, suffix = os.path.splitext(pattern)
    any_case = "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in suffix)
    for text in glob.iglob(stem + (suffix if glob.has_magic(suffix) else any_case), recursive=True):
        path = Path(text)
        if path.is_dir() and "**" not in pattern:
            yield from _images_in(path)
        elif is_image(path) and not path.is_dir():
            yield path


def as_photos(images: Any) -> list[Photo]:
    """Return photos of paths, PIL images or arrays, or of a single one of them.

    Raises:
        ConfigError: one is none of these, or an array has another shape or dtype; the message lists the first ten.
    """
    if isinstance(images, np.ndarray):
        single = images.dtype.kind not in "OU" and images.ndim < 4  # an array of paths is a list of them
    else:
        single = isinstance(images, (str, os.PathLike, Image.Image, Tensor)) or not isinstance(images, Iterable)
    photos: list[Photo] = []
    problems = []
    for number, image in enumerate([images] if single else images):
        if isinstance(image, (str, os.PathLike)):
            photos.append(user_path(os.fspath(image)))
        elif isinstance(image, Image.Image):
            photos.append(image)
        elif isinstance(image, np.ndarray) and _is_picture(image):
            photos.append(Image.fromarray(image))
        else:
            shape = f" of {image.dtype} {list(image.shape)}" if hasattr(image, "dtype") else ""
            problems.append(
                f"image {number} is a {type(image).__name__}{shape}, expected a path, a PIL image, or an array of "
                "uint8 [H, W], [H, W, 3] or [H, W, 4]"
            )
    if problems:
        raise ConfigError([first_ten(problems, "\n  ")])
    return photos


def _is_picture(array: NDArray[Any]) -> bool:
    """Return whether an array has the dtype and a shape of pictures."""
    return array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))


@contextmanager
def opened(photo: Photo) -> Iterator[Image.Image]:
    """Yield a photo as RGB, upright and in 8 bits; a file of a dataset is read as in its trainings.

    Raises:
        DataError: the photo cannot be read.
    """
    if isinstance(photo, Image.Image):
        yield upright(photo)
        return
    with decoded(photo, imported=None if is_in_dataset(photo) else True) as image:
        yield image


class PhotoSet(ImageSet):
    """The photos of a split. Those that cannot be read are black, and ``errors`` has the reasons.

    Args:
        photos: one for each image of ``split``.
        split: the images, with any labels.
        preprocessing: as for :class:`ImageSet`.
    """

    def __init__(self, photos: Sequence[Photo], split: Split, preprocessing: Any) -> None:
        super().__init__(split, preprocessing)
        self.photos = photos

    def read(self, indices: Sequence[int], epoch: int = 0) -> RawImages:
        raw = super().read(indices, epoch)
        return raw._replace(errors={index: self.errors[index] for index in indices if index in self.errors})

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        preprocessing = self.preprocessing
        try:
            with opened(self.photos[index]) as image:
                return np.asarray(resize_and_crop(image, preprocessing))
        except DataError as error:
            self.errors[index] = str(error)
            return np.zeros((preprocessing.size, preprocessing.size, 3), np.uint8)


class PhotoFeed(Feed):
    """The batches of photos for one method; see :class:`Feed`.

    Args:
        method: the method, on the device to compute on.
        photos: the photos.
        pair: attribute and object index ``[2]`` that stand for the unknown pair of every photo.
        batch_size, workers, progress: as for :class:`Feed`.
    """

    def __init__(
        self,
        method: Method,
        photos: Sequence[Photo],
        pair: Tensor,
        batch_size: int,
        *,
        workers: int = 0,
        progress: bool = False,
    ) -> None:
        self.photos = photos
        labels = pair.expand(len(photos), 2)
        paths = tuple(Path(str(index)) for index in range(len(photos)))
        split = Split("new", paths, labels[:, 0].clone(), labels[:, 1].clone(), pair[None])
        super().__init__(method, split, batch_size, workers=workers, progress=progress)

    @property
    def errors(self) -> dict[int, str]:
        """Why photos cannot be read, by their index; complete once all photos have been read."""
        return self._images.errors

    @cached_property
    def _images(self) -> ImageSet:
        return PhotoSet(self.photos, self.split, self.method.backbone.preprocessing)


def photo_name(photo: Photo, index: int) -> str:
    """Return the path of a photo, or its number if it has none."""
    if isinstance(photo, Path):
        return str(photo)
    return str(getattr(photo, "filename", "") or index)
