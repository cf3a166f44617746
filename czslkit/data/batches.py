"""Batches of a split for one method: pixels, or features if the method's image encoder is frozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor

from .. import distributed
from ..deferred import sent
from ..method import Method
from ..precision import Precision, computing_in
from ..terminal import tracked
from ..types import Batch, ImageFeatures
from .augmentation import AugmentOn
from .cache import Cache
from .feature_cache import pooled_features
from .fixed_features import close, has_fixed_features, probe_features
from .image_cache import decoded_images
from .image_reader import ImageReader
from .image_set import ImageSet
from .splits import Split

ENCODER_BATCH = 64
"""Most images that are encoded at a time for cached features. The last digits of the features may depend on it."""

#: Number of images that are encoded to measure whether features are fixed.
SAMPLE = 3
#: A function from the images of a batch, ``[B]`` long, to the indices of its companions by name, ``[k]`` long each; -1
#: for none.
Companions = Callable[[Tensor], Mapping[str, Tensor]]
_OWN = ""  # name of the images of a batch itself, next to the names of its companions


class Feed:
    """The batches of one split for one method.

    If the image features of the method are fixed and images are not augmented, every image is encoded once. The
    features stay in memory, and on disk if there is a cache. Whether features are fixed is measured (see
    :func:`czslkit.data.fixed_features.has_fixed_features`), and checked again before every pass.

    Args:
        method: a method on the device to compute on.
        split: the images.
        batch_size: images per batch.
        augment: augment images at random, depending on ``seed``, the epoch and the image.
        augment_on: ``cpu`` augments where images are read, ``device`` whole batches on the method's device.
        seed: seed of the augmentation.
        workers: processes that read images, which end with the feed; 0 reads them in this process.
        cache: cache of decoded images and features; None writes nothing to disk.
        progress: show the progress of whatever reads the images.
        precision: number format in which cached features are computed.
    """

    def __init__(
        self,
        method: Method,
        split: Split,
        batch_size: int,
        *,
        augment: bool = False,
        augment_on: AugmentOn = "cpu",
        seed: int = 0,
        workers: int = 0,
        cache: Cache | None = None,
        progress: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        self.method, self.split, self.batch_size, self.workers = method, split, batch_size, workers
        self.augment, self.augment_on, self.seed, self.cache, self.progress = augment, augment_on, seed, cache, progress
        self.precision: Precision = precision
        self._fixed = False if augment else None  # whether features are fixed; None before it is measured
        self._features: Tensor | None = None
        self._probe: Tensor | None = None  # features of the sample from the same encoder

    def __len__(self) -> int:
        """Return the number of batches in one pass."""
        return -(-len(self.split) // self.batch_size)

    @property
    def caches_features(self) -> bool:
        """True if the features of every image are computed once, since they are fixed and images are not augmented.

        Raises:
            ConfigError: the method needs other features than its parts declare.
        """
        if self._fixed is None:
            with computing_in(self.precision, self.method.device):
                self._fixed = distributed.first(lambda: has_fixed_features(self.method, self._measured_images))
        return self._fixed

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
        return 0 if self.has_features else 2 * self.workers * size * 3 * self.method.backbone.image_size**2

    def sample(self, count: int | Tensor, companions: Companions | None = None) -> Batch:
        """Read the first ``count`` images from their files, or all if there are fewer: ``[count, 3, H, W]``.

        Args:
            count: a number of images, or the indices of other images, ``[n]`` long.
            companions: chooses other images of the split that the batch has in addition.
        """
        return self.batch_like(count, self._read_here, companions)

    def batch_like(
        self, count: int | Tensor, images: Callable[[Tensor], Tensor], companions: Companions | None = None
    ) -> Batch:
        """Return the batch of ``sample`` with the pixels or features that ``images`` returns for indices of images."""
        index = torch.arange(min(count, len(self.split))) if isinstance(count, int) else count
        part = {_OWN: index, **(companions(index) if companions else {})}
        return _batch(self.split, part, images(_chosen(part)))

    def features_have_changed(self) -> bool:
        """Return whether the method now encodes images in another way than when their features were cached.

        In training mode it also has to encode them without random numbers, and as in evaluation mode.
        """
        if self._features is None:
            return False
        with computing_in(self.precision, self.method.device):
            probe = probe_features(self.method, self._measured_images)
            if probe is None or self._probe is None or not close(probe, self._probe):
                return True
            return self.method.training and not has_fixed_features(self.method, self._measured_images)

    def batches(
        self,
        order: Tensor | None = None,
        epoch: int = 0,
        size: int | None = None,
        companions: Companions | None = None,
        part: Callable[[int], slice] | None = None,
    ) -> Iterator[Batch]:
        """Yield the batches of one pass over the split, on the method's device.

        Args:
            order: ``[n]`` long, indices of the images in reading order; by default all images in listed order.
            epoch: epoch that the augmentation depends on, counted from 0.
            size: images per batch, if not ``batch_size``.
            companions: chooses other images of the split that every batch has in addition.
            part: returns the rows to read of a batch of a given size, if it has no companions; by default all.
        """
        if distributed.first(self.features_have_changed):
            self._features, self._fixed = None, False
        elif self._features is None and self._fixed:  # measured earlier, and the method may have changed since
            self._fixed = None if self.method.training else distributed.first(lambda: self._probed() is not None)
        size = size or self.batch_size
        order = torch.arange(len(self.split)) if order is None else order
        whole = order.split(size) if len(order) else ()
        parts = [{_OWN: index, **(companions(index) if companions else {})} for index in whole]
        index_batches = self._numbered([_chosen(indices) for indices in parts])
        if part and not companions:
            parts = [{_OWN: index[part(len(index))]} for index in whole]
            index_batches = [index[part(len(index))] for index in index_batches]
        images: Iterator[Tensor]
        if self.caches_features:
            features = self._split_features(min(size, ENCODER_BATCH))
            images = (features[index.to(features.device)] for index in index_batches)
        else:
            images = self._read(index_batches, epoch)
        for indices in parts:
            yield _batch(self.split, indices, next(images))

    def _read(self, index_batches: Sequence[Tensor], epoch: int) -> Iterator[Tensor]:
        """Yield the pixels of some images at a time, ``[n, 3, size, size]``."""
        return self._reader.batches(index_batches, epoch)

    def _read_here(self, index: Tensor) -> Tensor:
        """Return the pixels of some images, ``[n, 3, size, size]``, read in this process."""
        return next(ImageReader(self._images, device=self.method.device).batches(self._numbered([index])))

    @cached_property
    def _reader(self) -> ImageReader:
        return ImageReader(self._images, workers=self.workers, device=self.method.device)

    def _numbered(self, index_batches: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return indices of images by which every repeat of an image has an augmentation of its own."""
        return _numbered_repeats(index_batches, len(self.split)) if self.augment else index_batches

    @cached_property
    def _images(self) -> ImageSet:
        preprocessing, cache = self.method.backbone.preprocessing, self.cache
        return ImageSet(
            self.split,
            preprocessing,
            augment=self.augment,
            augment_on=self.augment_on,
            seed=self.seed,
            decoded=decoded_images(cache, self.split, preprocessing) if cache and cache.images else None,
        )

    @cached_property
    def _measured_images(self) -> Tensor:
        """The pixels of some images of the split, from its beginning to its end, for measurements: ``[n, 3, H, W]``."""
        index = torch.linspace(0, len(self.split) - 1, SAMPLE).long()
        return self._read_here(index)

    def _split_features(self, size: int) -> Tensor:
        """Return pooled features of every image, ``[N, D]``; the first call encodes ``size`` images at a time."""
        if self._features is None:
            method = self.method
            training = {module: module.training for module in method.modules()}
            method.eval()
            with torch.no_grad(), computing_in(self.precision, self.method.device):
                encode = partial(self._encode, size)
                self._features = pooled_features(self.cache, method, self.split, encode, size, self.precision)
            for module, mode in training.items():
                module.training = mode
            self._probe = self._probed()
            self._reader.end_processes()
        return self._features

    def _encode(self, size: int) -> Tensor:
        batches = torch.arange(len(self.split)).split(size)
        own = batches[distributed.share(len(batches))]
        name, show = f"{self.split.name} images encoded, batches", self.progress
        read = tracked(self._read(own, 0), name, len(own), show=show)
        encoded = [self.method.encode(pixels).pooled.float() for pixels in read]
        return distributed.concatenated(encoded, self.method.device)

    def _probed(self) -> Tensor | None:
        with computing_in(self.precision, self.method.device):
            return probe_features(self.method, self._measured_images)


def _numbered_repeats(index_batches: Sequence[Tensor], images: int) -> list[Tensor]:
    """Return indices in which the n-th repeat of an image has ``n * images`` added, for an augmentation of its own.

    >>> [index.tolist() for index in _numbered_repeats([torch.tensor([1, 0]), torch.tensor([1, 1])], 3)]
    [[1, 0], [4, 7]]
    """
    seen: Counter[int] = Counter()
    numbered = []
    for index in index_batches:
        row = []
        for i in index.tolist():
            row.append(i + seen[i] * images)
            seen[i] += 1
        numbered.append(torch.tensor(row, dtype=torch.long))
    return numbered


def _chosen(part: Mapping[str, Tensor]) -> Tensor:
    """Return the images of a batch and its companions, ``[n]`` long, one part after the other."""
    return torch.cat([index[index >= 0] for index in part.values()])


def _batch(split: Split, part: Mapping[str, Tensor], images: Tensor) -> Batch:
    """Return a batch with its companions.

    Args:
        part: indices of the images, by name of the companions; -1 for none.
        images: pixels or features of all these images, one part after the other.
    """
    device = images.device

    def batch(index: Tensor, images: Tensor) -> Batch:
        extra = {name: sent(values[index], device) for name, values in split.extra.items()}
        values = ImageFeatures(images) if images.ndim == 2 else images
        attr, obj, index = (sent(labels, device) for labels in (split.attr[index], split.obj[index], index))
        return Batch(values, attr, obj, index, extra)

    rows = [(index >= 0).nonzero()[:, 0] for index in part.values()]
    pieces = images.split([len(places) for places in rows]) if len(part) > 1 else [images]
    chosen = (index[places] for index, places in zip(part.values(), rows, strict=True))
    own, *others = map(batch, chosen, pieces)
    numbered = (replace(b, rows=sent(places, device)) for b, places in zip(others, rows[1:], strict=True))
    return replace(own, companions=dict(zip(list(part)[1:], numbered, strict=True)))
