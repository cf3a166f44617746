"""The images of a split as a torch dataset, and as batches from a ``DataLoader``."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..terminal import log_to_stderr
from ..types import Preprocessing
from .image_cache import DecodedImages
from .image_transforms import augment, read_square, to_normalized_tensor
from .reader_errors import Failure, ReaderTraceback, ReportedImages, check_queues, tell_deaths, told_reader_errors
from .splits import Split

T = TypeVar("T")


class ImageSet(Dataset[Tensor]):
    """The images of a split, ``[3, size, size]`` each.

    Args:
        split: the images.
        preprocessing: how a photo becomes a square image, and its mean and standard deviation.
        augment: augment each image at random. The result depends only on ``seed``, the epoch and the image, and not on
            the order, the number of workers or the global random state.
        seed: seed of the augmentation.
        decoded: the same images from the cache; if given, the image files are not read.
    """

    def __init__(
        self,
        split: Split,
        preprocessing: Preprocessing,
        *,
        augment: bool = False,
        seed: int = 0,
        decoded: DecodedImages | None = None,
    ) -> None:
        self.split = split
        self.preprocessing = preprocessing
        self.augment = augment
        self.seed = seed
        self.decoded = decoded
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch for the augmentation of all batches that are requested afterwards."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> Tensor:
        """Return several images ``[B, 3, size, size]``; a ``DataLoader`` calls this."""
        preprocessing = self.preprocessing
        images = torch.empty(len(indices), 3, preprocessing.size, preprocessing.size)
        if reader := get_worker_info():
            with told_reader_errors(reader.num_workers):
                images.share_memory_()  # a worker process would otherwise copy them to the main process
        for image, index in zip(images, indices, strict=True):
            to_normalized_tensor(self._pixels(index), preprocessing.mean, preprocessing.std, out=image)
        return images

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        """Return one image as ``[size, size, 3]``, augmented if ``augment`` is set.

        Args:
            index: index of the image, plus a multiple of the number of images for another augmentation of it.
        """
        repeat, index = divmod(index, len(self))
        pixels = self.decoded.image(index) if self.decoded else None
        if self.decoded and pixels is None:
            _report_damage(self.decoded.file)
        if pixels is None:
            pixels = read_square(self.split.paths[index], self.preprocessing)
        if self.augment:
            generator = _augmentation_generator(self.seed, self.epoch, index, repeat)
            pixels = np.asarray(augment(Image.fromarray(pixels), generator))
        return pixels


def image_batches(
    images: ImageSet, index_batches: Sequence[Tensor], *, workers: int = 0, device: torch.device | None = None
) -> Iterator[Tensor]:
    """Read images and yield them in batches, ``[n, 3, size, size]``.

    An error in a process that reads images is raised here as it was raised there, with its traceback as the cause.

    Args:
        images: the images.
        index_batches: indices of the images of every batch, ``[n]`` long each.
        workers: processes that read images, which end with the iterator; 0 reads images in this process.
        device: device to put the batches on; by default the CPU.

    Raises:
        DataError: an image cannot be read.
        ReaderError: a process has ended, or the shared memory is full.
    """
    loader: DataLoader[Tensor | Failure] = DataLoader(
        ReportedImages(images) if workers else images,
        batch_sampler=[index.tolist() for index in index_batches],
        num_workers=workers,
        collate_fn=_unchanged,  # the set returns whole batches
        pin_memory=torch.cuda.is_available(),
        generator=Generator(),  # by default, the loader would draw from the global generator
    )
    batches = None
    for _ in index_batches:
        with told_reader_errors(workers):
            if batches is None:
                if workers:
                    check_queues(workers)
                batches = iter(loader)
                if workers:
                    tell_deaths(workers)
            pixels = _next_images(batches)
        yield pixels.to(device, non_blocking=True)


@functools.cache
def _report_damage(file: Path) -> None:
    """Print, once in a process, that a file of decoded images is damaged."""
    log_to_stderr(f"{file} is damaged: its damaged images are decoded again. Delete it to have it made again.")


def _next_images(batches: Iterator[Tensor | Failure]) -> Tensor:
    """Return the next images; raise the error of the process that reads them."""
    images = next(batches)
    if not isinstance(images, Failure):
        return images
    try:
        raise images.error from ReaderTraceback(images.traceback)
    finally:
        del images  # would keep the processes alive, as the error keeps this frame


def _unchanged(batch: T) -> T:
    return batch


def _augmentation_generator(seed: int, epoch: int, index: int, repeat: int) -> Generator:
    """Return the generator of one augmentation; ``repeat`` counts those of one image in one epoch, from 0."""
    key = [seed, epoch, index, repeat] if repeat else [seed, epoch, index]
    return Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
