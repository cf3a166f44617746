"""Images from file to normalised tensor, as they are at evaluation and as training varies them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from ..errors import DataError
from ..types import Batch
from .splits import Split

#: Raise it when the pixels change.
VERSION = 1
T = TypeVar("T")

_FLIP_CHANCE = 0.5
_PERSPECTIVE_CHANCE = 0.5
_DISTORTION = 0.5
_DEGREES = 5.0


def open_rgb(path: Path) -> Image.Image:
    """An image, decoded to its end, as ``Image.open(path).convert("RGB")`` has it.

    That is: of an animation its first frame; not turned as EXIF says; without transparency; 16-bit grey not scaled
    to 8 bits but cut off at 255.

    Raises:
        DataError: the file is not an image, not a whole one, or larger than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            image.info.pop("transparency", None)  # Pillow would warn that RGB has none
            return image.convert("RGB")
    except Exception as error:  # Pillow's readers fail with whatever their formats bring about
        raise DataError(f"{path} is not a readable image: {type(error).__name__}: {error}") from error


def resize_center_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle of an image whose shorter side is brought to ``size``, ``size`` x ``size``."""
    return tv.center_crop(tv.resize(image, [size], InterpolationMode.BICUBIC), [size, size])


def augment(image: Image.Image, generator: Generator) -> Image.Image:
    """An image flipped, seen askew and turned, each by chance; the same size, black where nothing is left to see.

    The chances, their order and their defaults are those of torchvision's ``RandomHorizontalFlip``,
    ``RandomPerspective`` and ``RandomRotation(5)``, but drawn from ``generator``.
    """
    if torch.rand(1, generator=generator) < _FLIP_CHANCE:
        image = tv.hflip(image)
    if torch.rand(1, generator=generator) < _PERSPECTIVE_CHANCE:
        image = tv.perspective(image, *_corners(*image.size, generator), InterpolationMode.BILINEAR, fill=0)
    angle = torch.empty(1).uniform_(-_DEGREES, _DEGREES, generator=generator).item()
    return tv.rotate(image, angle, InterpolationMode.NEAREST, fill=0)


def to_normalized_tensor(
    image: Image.Image | NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], out: Tensor | None = None
) -> Tensor:
    """An RGB image as ``[3, H, W]`` float, each channel less its mean, over its deviation; in ``out`` if there is one.

    To the bit what torchvision's ``ToTensor`` and ``Normalize`` make of it.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    mean_of, std_of = (torch.tensor(tuple(each))[:, None, None] for each in (mean, std))
    out = torch.empty(pixels.shape) if out is None else out
    return out.copy_(pixels).div_(255).sub_(mean_of).div_(std_of)


class ImageSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The images of a split as ``(image [3, size, size], attr, obj)``.

    Args:
        split: which images, and what they show.
        size: side of the square images, in pixels.
        mean: of each channel, on a scale from 0 to 1.
        std: of each channel.
        augment: vary each image by chance. How depends on ``seed``, the epoch and the image alone: neither the order
            nor the number of workers matters, and no global random state is used.
        seed: of the variations.
        decoded: the same images, decoded before; the files are then not read.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        augment: bool = False,
        seed: int = 0,
        decoded: DecodedImages | None = None,
    ) -> None:
        self.split = split
        self.size = size
        self.mean, self.std = tuple(mean), tuple(std)
        self.augment = augment
        self.seed = seed
        self.decoded = decoded
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Vary the images anew; holds for loaders first asked for a batch from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        images, attr, obj = self.__getitems__([index])
        return images[0], attr[0], obj[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Several at once, stacked: what a ``DataLoader`` asks for."""
        images = torch.empty(len(indices), 3, self.size, self.size)
        if get_worker_info():
            images.share_memory_()  # else they are copied on their way to the process that asked
        for image, index in zip(images, indices, strict=True):
            to_normalized_tensor(self._pixels(index), self.mean, self.std, out=image)
        return images, self.split.attr[indices], self.split.obj[indices]

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        """``[size, size, 3]``."""
        if self.decoded is None:
            pixels = np.asarray(resize_center_crop(open_rgb(self.split.paths[index]), self.size))
        else:
            pixels = self.decoded.pixels[index]
        if self.augment:
            pixels = np.asarray(augment(Image.fromarray(pixels), _generator(self.seed, self.epoch, index)))
        return pixels


def loader(image_set: ImageSet, batch_size: int, *, order: Tensor | None = None, workers: int = 0) -> Iterator[Batch]:
    """The images once, in batches; the last one may be smaller.

    Args:
        order: which images, in which order, ``[n]`` long; by default all as they are listed.
        workers: processes that read images; 0 reads them in this one. They last as long as the iterator.
    """
    indices = list(range(len(image_set))) if order is None else order.tolist()
    batches = DataLoader(
        image_set,
        batch_size=batch_size,
        sampler=indices,
        num_workers=workers,
        collate_fn=_as_it_is,  # the set gives whole batches
        pin_memory=torch.cuda.is_available(),
        generator=Generator(),  # else the loader draws its workers' seeds from the global one
    )
    for images, attr, obj in batches:
        yield Batch(images, attr, obj)


def _as_it_is(batch: T) -> T:
    return batch


def _generator(seed: int, epoch: int, index: int) -> Generator:
    state = np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))


def _corners(width: int, height: int, generator: Generator) -> tuple[list[list[int]], list[list[int]]]:
    """The corners of an image, clockwise from the upper left, and where a random perspective moves them inwards."""
    inwards = [int(_DISTORTION * (side // 2)) + 1 for side in (width, height)]  # at most, exclusive
    corners = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    return corners, [[_inwards(at, n, generator) for at, n in zip(corner, inwards, strict=True)] for corner in corners]


def _inwards(at: int, most: int, generator: Generator) -> int:
    """A coordinate moved by less than ``most`` towards the middle of the image; 0 is its near end."""
    first = at - most + 1 if at else 0
    return int(torch.randint(first, first + most, (1,), generator=generator))


@dataclass(frozen=True)
class DecodedImages:
    """A file of images; another process that gets this opens the file anew."""

    file: Path

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """``[N, size, size, 3]``, RGB, read only."""
        pixels: NDArray[np.uint8] = np.lib.format.open_memmap(self.file, mode="r")
        return pixels

    def __reduce__(self) -> tuple[type[DecodedImages], tuple[Path]]:
        return DecodedImages, (self.file,)
