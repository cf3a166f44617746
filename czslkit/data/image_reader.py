"""Batches of images from processes that read, normalised on the device to compute on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from .augmentation import augment_batch
from .image_set import ImageSet, RawImages
from .image_transforms import to_normalized
from .reader_errors import Failure, ReaderTraceback, ReportedImages, check_queues, tell_deaths, told_reader_errors

T = TypeVar("T")


class ImageReader:
    """Reads images of a split in batches. Its processes start with a pass, serve later passes, and end with the reader.

    Images travel as whole numbers from 0 to 255, which takes a quarter of the memory of normalised images.

    Args:
        images: the images.
        workers: processes that read images; 0 reads images in this process.
        device: device to put the batches on; by default the CPU.
    """

    def __init__(self, images: ImageSet, *, workers: int = 0, device: torch.device | None = None) -> None:
        self.images, self.workers, self.device = images, workers, device or torch.device("cpu")
        self._idle: DataLoader[RawImages | Failure] | None = None  # of a pass that has ended

    def batches(self, index_batches: Sequence[Tensor], epoch: int = 0) -> Iterator[Tensor]:
        """Read images and yield them in batches, ``[n, 3, size, size]`` normalised.

        An error in a process that reads images is raised here as it was raised there, with its traceback as the cause.

        Args:
            index_batches: indices of the images of every batch, ``[n]`` long each; see :meth:`ImageSet.read`.
            epoch: epoch that the augmentation depends on.

        Raises:
            DataError: an image cannot be read.
            ReaderError: a process has ended, or the shared memory is full.
        """
        loader, batches = self._take_loader(min(self.workers, len(index_batches))), None
        plan: Any = loader.batch_sampler
        plan[:] = [(epoch, index.tolist()) for index in index_batches]
        workers, failed = loader.num_workers, True
        try:
            for _ in index_batches:
                with told_reader_errors(workers):
                    if batches is None:
                        batches = _started(loader)
                    raw = _next_images(batches)
                yield self._on_device(raw)
            failed = False
        except GeneratorExit:  # the caller wants no more batches
            failed = False
        finally:
            if not failed:
                self._idle = loader
            del loader, batches, plan  # processes end with their loader, which an error would keep with this frame

    def end_processes(self) -> None:
        """End the processes that wait for another pass; a later pass starts others."""
        self._idle = None

    def _take_loader(self, workers: int) -> DataLoader[RawImages | Failure]:
        """Return a loader that no other pass uses, with at least so many processes if it has to be made."""
        loader, self._idle = self._idle, None
        if loader is not None and loader.num_workers >= workers:
            return loader
        return DataLoader(
            ReportedImages(self.images),
            batch_sampler=[],  # filled by every pass
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_unchanged,  # the set returns whole batches
            pin_memory=self.device.type == "cuda",
            generator=Generator(),  # by default, the loader would draw from the global generator
        )

    def _on_device(self, raw: RawImages) -> Tensor:
        """Return images on the device: augmented if they are not yet, and normalised."""
        preprocessing = self.images.preprocessing
        self.images.errors |= raw.errors
        pixels = raw.pixels.to(self.device, non_blocking=True)
        if raw.variations is not None:
            pixels = augment_batch(pixels, raw.variations)
        return to_normalized(pixels, preprocessing.mean, preprocessing.std)


def _started(loader: DataLoader[T]) -> Iterator[T]:
    """Start a pass, and processes for it if none of the loader wait.

    Raises:
        OSError: the processes cannot be started.
    """
    if loader.num_workers and loader._iterator is None:
        check_queues(loader.num_workers)
    batches = iter(loader)
    if loader.num_workers:
        tell_deaths(loader.num_workers)
    return batches


def _next_images(batches: Iterator[RawImages | Failure]) -> RawImages:
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
