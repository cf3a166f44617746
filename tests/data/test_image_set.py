from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from czslkit.data.augmentation import AugmentOn
from czslkit.data.image_reader import ImageReader
from czslkit.data.image_set import ImageSet
from czslkit.data.image_transforms import pixel_tensor, resize_and_crop, to_normalized
from czslkit.data.images import open_rgb
from czslkit.data.loading import load_dataset
from czslkit.data.splits import Split
from czslkit.errors import DataError
from czslkit.types import Preprocessing

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZE = 24


@pytest.fixture
def train(pets: Path) -> Split:
    return load_dataset("pets", pets.parent).train


@pytest.fixture
def augmented(train: Split) -> ImageSet:
    return ImageSet(train, Preprocessing(SIZE, MEAN, STD), augment=True, seed=3)


def images_of(
    images: ImageSet, size: int, order: Sequence[int] = range(6), workers: int = 0, epoch: int = 0
) -> torch.Tensor:
    reader = ImageReader(images, workers=workers)
    return torch.cat(list(reader.batches(torch.tensor(order).split(size), epoch)))


def test_images_are_whole_numbers(train: Split) -> None:
    raw = ImageSet(train, Preprocessing(SIZE, MEAN, STD)).read([4])
    assert torch.equal(raw.pixels[0], pixel_tensor(resize_and_crop(open_rgb(train.paths[4]), Preprocessing(SIZE))))
    assert (raw.pixels.shape, raw.pixels.dtype, raw.variations) == ((1, 3, SIZE, SIZE), torch.uint8, None)


def test_batches_are_normalised_and_follow_the_order_asked_for(train: Split) -> None:
    images = ImageSet(train, Preprocessing(SIZE, MEAN, STD))
    batches = list(ImageReader(images).batches([torch.tensor([5, 0]), torch.tensor([3])]))
    assert [len(batch) for batch in batches] == [2, 1]
    assert torch.equal(torch.cat(batches), to_normalized(images.read([5, 0, 3]).pixels, MEAN, STD))


@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_variations_do_not_depend_on_workers_order_batch_size_or_place(train: Split, augment_on: AugmentOn) -> None:
    order = (3, 1, 5, 0, 4, 2)
    images = ImageSet(train, Preprocessing(SIZE, MEAN, STD), augment=True, augment_on=augment_on, seed=3)
    expected = images_of(ImageSet(train, Preprocessing(SIZE, MEAN, STD), augment=True, seed=3), 1, epoch=2)
    assert torch.equal(images_of(images, 4, epoch=2), expected)
    assert torch.equal(images_of(images, 2, order, workers=2, epoch=2), expected[list(order)])


def test_workers_see_the_epoch(augmented: ImageSet) -> None:
    reader = ImageReader(augmented, workers=1)
    passes = [torch.cat(list(reader.batches(torch.arange(6).split(3), epoch))) for epoch in (0, 1, 0)]
    assert torch.equal(passes[0], passes[2])
    assert not torch.equal(passes[0], passes[1])


def test_variations_depend_on_seed_epoch_and_image(train: Split, augmented: ImageSet) -> None:
    first = Split(train.name, (train.paths[0],) * 2, train.attr[:2], train.obj[:2], train.pairs)
    images = ImageSet(first, Preprocessing(SIZE, MEAN, STD), augment=True, seed=3)
    one, other = images.read([0, 1]).pixels
    assert torch.equal(one, augmented.read([0]).pixels[0])
    assert not torch.equal(one, other)
    another = ImageSet(first, Preprocessing(SIZE, MEAN, STD), augment=True, seed=4)
    assert not torch.equal(another.read([0]).pixels[0], one)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_global_random_state_is_used_or_changed(augmented: ImageSet, workers: int) -> None:
    def states() -> tuple[bytes, object, str]:
        return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(np.random.get_state())

    before = states()
    once = images_of(augmented, 2, workers=workers)
    assert states() == before
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert torch.equal(images_of(augmented, 2, workers=workers), once)


def test_a_broken_image_is_named_whoever_reads_it(train: Split) -> None:
    train.paths[1].write_bytes(b"")
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"train1.jpg is not a readable image"):
            images_of(ImageSet(train, Preprocessing(SIZE, MEAN, STD)), 2, workers=workers)
