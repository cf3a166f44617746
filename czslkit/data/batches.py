"""Batches of a split for one method: pixels, or features if the method's image encoder is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial

import torch
from torch import Tensor

from ..method import Method
from ..types import Batch, ImageFeatures
from .cache import Cache
from .feature_cache import pooled_features
from .image_cache import decoded_images
from .image_set import ImageSet, image_batches
from .splits import Split

ENCODER_BATCH = 64
"""Most images that are encoded at a time for cached features. The last digits of the features may depend on it."""


class Feed:
    """The batches of one split for one method.

    If the method's image encoder is frozen and images are not augmented, every image is encoded once. Its features stay
    in memory, and on disk if there is a cache.

    Args:
        method: a method on the device to compute on.
        split: the images.
        batch_size: images per batch.
        augment: augment images at random, depending on ``seed``, the epoch and the image.
        seed: seed of the augmentation.
        workers: processes that read images; 0 reads them in this process.
        cache: cache of decoded images and features; None writes nothing to disk.
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
        self.caches_features = method.frozen_image and not augment
        self._features: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of batches in one pass."""
        return -(-len(self.split) // self.batch_size)

    @property
    def has_features(self) -> bool:
        """True if the features have been computed; images are then no longer read."""
        return self._features is not None

    @property
    def feature_bytes(self) -> int:
        """Bytes of the features, counted twice because they are concatenated; 0 without cached features."""
        return 2 * len(self.split) * self.method.backbone.dim * 4 if self.caches_features else 0

    def prefetch_bytes(self, size: int) -> int:
        """Return the bytes of the two batches of ``size`` images that each worker reads ahead."""
        return 0 if self.has_features else 2 * self.workers * size * 3 * 4 * self.method.backbone.image_size**2

    def first_images(self, count: int) -> Batch:
        """Read the first ``count`` images from their files, or all if there are fewer: ``[count, 3, H, W]``."""
        return next(self._image_batches(torch.arange(min(count, len(self.split))), 0, count))

    def batches(self, order: Tensor | None = None, epoch: int = 0, size: int | None = None) -> Iterator[Batch]:
        """Yield the batches of one pass over the split, on the method's device.

        Args:
            order: ``[n]`` long, indices of the images in reading order; by default all images in listed order.
            epoch: epoch that the augmentation depends on, counted from 0.
            size: images per batch, if not ``batch_size``.
        """
        size = size or self.batch_size
        if self.caches_features:
            yield from self._feature_batches(order, size)
        else:
            yield from self._image_batches(order, epoch, size)

    def _feature_batches(self, order: Tensor | None, size: int) -> Iterator[Batch]:
        features = self._split_features(min(size, ENCODER_BATCH))
        order = torch.arange(len(self.split)) if order is None else order
        for index in order.split(size):
            rows = index.to(features.device)
            labels = (self.split.attr[index].to(features.device), self.split.obj[index].to(features.device))
            yield Batch(ImageFeatures(features[rows]), *labels)

    def _image_batches(self, order: Tensor | None, epoch: int, size: int) -> Iterator[Batch]:
        self._images.set_epoch(epoch)
        return image_batches(self._images, size, order=order, workers=self.workers, device=self.method.device)

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

    def _split_features(self, size: int) -> Tensor:
        """Return pooled features of every image, ``[N, D]``; the first call encodes ``size`` images at a time."""
        if self._features is None:
            backbone = self.method.backbone
            training = backbone.training
            backbone.eval()
            with torch.no_grad():
                encode = partial(self._encode, size)
                self._features = pooled_features(self.cache, self.method, self.split, encode, size)
            backbone.train(training)
        return self._features

    def _encode(self, size: int) -> Tensor:
        images = (batch.images for batch in self._image_batches(None, 0, size))
        return torch.cat([self.method.encode(pixels).pooled for pixels in images if isinstance(pixels, Tensor)])
