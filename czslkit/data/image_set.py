"""The images of a split, read several at a time."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import get_worker_info

from ..terminal import log_to_stderr
from ..types import Preprocessing
from .augmentation import AugmentOn, Variations, augment, draw_variation, stack_variations
from .image_cache import DecodedImages
from .image_transforms import pixel_tensor, read_square
from .reader_errors import told_reader_errors
from .splits import Split


class RawImages(NamedTuple):
    """Images as they travel from a process that reads."""

    pixels: Tensor  # [B, 3, size, size] uint8
    variations: Variations | None = None  # augmentation that is still to be applied
    errors: Mapping[int, str] = {}  # why images cannot be read, by index; only an image set that goes on has them


class ImageSet:
    """The images of a split, ``[3, size, size]`` uint8 each.

    Args:
        split: the images.
        preprocessing: how a photo becomes a square image, and its mean and standard deviation.
        augment: augment each image at random. The result depends only on ``seed``, the epoch and the image, and not on
            the order, the number of workers or the global random state.
        augment_on: ``device`` draws the same random numbers, and leaves it to the reader to apply them.
        seed: seed of the augmentation.
        decoded: the same images from the cache; if given, the image files are not read.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        *,
        augment: bool = False,
        augment_on: AugmentOn = "cpu",
        seed: int = 0,
        decoded: DecodedImages | None = None,
    ) -> None:
        self.split = split
        self.preprocessing = preprocessing
        self.augment_on = augment_on if augment else None
        self.seed = seed
        self.decoded = decoded
        self.errors: dict[int, str] = {}  # why images are black, by index; a subclass may go on without them

    def __len__(self) -> int:
        return len(self.split)

    def read(self, indices: Sequence[int], epoch: int = 0) -> RawImages:
        """Return several images.

        Args:
            indices: index of each image, plus a multiple of the number of images for another augmentation of it.
            epoch: epoch that the augmentation depends on.
        """
        size = self.preprocessing.size
        pixels = torch.empty(len(indices), 3, size, size, dtype=torch.uint8)
        if reader := get_worker_info():
            with told_reader_errors(reader.num_workers):
                pixels.share_memory_()  # a worker process would otherwise copy them to the main process
        variations = []
        for out, number in zip(pixels, indices, strict=True):
            repeat, index = divmod(number, len(self))
            image = self._decoded(index)
            if self.augment_on:
                variation = draw_variation(size, size, _augmentation_generator(self.seed, epoch, index, repeat))
                variations.append(variation)
                if self.augment_on == "cpu":
                    image = np.asarray(augment(Image.fromarray(image), variation))
            out.copy_(pixel_tensor(image))
        return RawImages(pixels, stack_variations(variations, size) if self.augment_on == "device" else None)

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        """Return one image without augmentation, ``[size, size, 3]``."""
        pixels = self.decoded.image(index) if self.decoded else None
        if self.decoded and pixels is None:
            _report_damage(self.decoded.file)
        return read_square(self.split.paths[index], self.preprocessing) if pixels is None else pixels


@functools.cache
def _report_damage(file: Path) -> None:
    """Print, once in a process, that a file of decoded images is damaged."""
    log_to_stderr(f"{file} is damaged: its damaged images are decoded again. Delete it to have it made again.")


def _augmentation_generator(seed: int, epoch: int, index: int, repeat: int) -> Generator:
    """Return the generator of one augmentation; ``repeat`` counts those of one image in one epoch, from 0."""
    key = [seed, epoch, index, repeat] if repeat else [seed, epoch, index]
    return Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
