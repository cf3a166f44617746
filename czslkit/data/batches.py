"""Batches of a split for one method: pixels, or features where the image encoder never changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from ..method import Method
from ..types import Batch, ImageFeatures
from .cache import Cache
from .feature_cache import BATCH, features
from .image_cache import decoded_images
from .images import ImageSet, loader
from .splits import Split


class Feed:
    """A split, as one method wants to see it.

    Where the method's image encoder is frozen and images are not augmented, every image
    is encoded once and its features are kept: here, and on disk if there is a cache.

    Args:
        method: on the device it is to run on.
        split: the images.
        batch_size: images a batch.
        augment: change images at random, by ``seed``, epoch and image.
        seed: of the augmentation.
        workers: processes that read images; 0 reads in this one.
        cache: what was decoded and encoded before; nothing if None.
    """

    def __init__(
        self,
        method: Method,
        split: Split,
        batch_size: int,
        *,
        augment: bool = False,
        seed: int = 0,
        workers: int = 0,
        cache: Cache | None = None,
    ) -> None:
        self.method, self.split, self.batch_size, self.workers = method, split, batch_size, workers
        self.augment, self.seed, self.cache = augment, seed, cache
        self._keeps = method.frozen_image and not augment
        self._features: Tensor | None = None

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-len(self.split) // self.batch_size)

    @property
    def encoded(self) -> bool:
        """Whether batches will hold features that are there already."""
        return self._features is not None

    @property
    def kept_bytes(self) -> int:
        """What the features take that are or will be kept; twice as much while they are put together."""
        return 2 * len(self.split) * self.method.backbone.dim * 4 if self._keeps else 0

    def waiting_bytes(self, size: int) -> int:
        """What the batches take that workers have read ahead, so many images each; there are two for each worker."""
        return 0 if self.encoded else 2 * self.workers * size * 3 * 4 * self.method.backbone.image_size**2

    def sample(self, images: int) -> Batch:
        """The first few images, ``[n, 3, H, W]``, read anew."""
        return next(self._pixels(torch.arange(min(images, len(self.split))), 0, images))

    def batches(self, order: Tensor | None = None, epoch: int = 0, size: int | None = None) -> Iterator[Batch]:
        """One pass over the split, in ``order`` ``[N]`` or as it comes, on the method's device.

        Args:
            size: images a batch, where they are to be others than usual.
        """
        size = size or self.batch_size
        if not self._keeps:
            yield from self._pixels(order, epoch, size)
            return
        features = self._encoded(size)
        order = torch.arange(len(self.split)) if order is None else order
        for index in order.split(size):
            rows = index.to(features.device)
            labels = (self.split.attr[index].to(features.device), self.split.obj[index].to(features.device))
            yield Batch(ImageFeatures(features[rows]), *labels)

    def _pixels(self, order: Tensor | None, epoch: int, size: int) -> Iterator[Batch]:
        device = self.method.device
        self._images.set_epoch(epoch)
        for batch in loader(self._images, size, order=order, workers=self.workers):
            assert isinstance(batch.images, Tensor)
            yield replace(
                batch,
                images=batch.images.to(device, non_blocking=True),
                attr=batch.attr.to(device, non_blocking=True),
                obj=batch.obj.to(device, non_blocking=True),
            )

    @cached_property
    def _images(self) -> ImageSet:
        backbone, cache = self.method.backbone, self.cache
        return ImageSet(
            self.split,
            backbone.image_size,
            backbone.mean,
            backbone.std,
            augment=self.augment,
            seed=self.seed,
            decoded=decoded_images(cache, self.split, backbone.image_size) if cache and cache.images else None,
        )

    def _encoded(self, size: int) -> Tensor:
        """Pooled features of every image, ``[N, D]``, made of at most ``size`` images at a time."""
        if self._features is None:
            backbone = self.method.backbone
            training = backbone.training
            backbone.eval()
            with torch.no_grad():
                self._features = features(self.cache, self.method, self.split, self._encode, min(size, BATCH))
            backbone.train(training)
        return self._features

    def _encode(self, size: int) -> Tensor:
        pixels = (batch.images for batch in self._pixels(None, 0, size))
        return torch.cat([self.method.encode(p).pooled for p in pixels if isinstance(p, Tensor)])
