from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from czslkit.data.image_set import ImageSet, image_batches
from czslkit.data.image_transforms import resize_and_crop, to_normalized_tensor
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


def images_of(images: ImageSet, size: int, order: Sequence[int] = range(6), workers: int = 0) -> torch.Tensor:
    return torch.cat(list(image_batches(images, torch.tensor(order).split(size), workers=workers)))


def test_an_item_is_the_image(train: Split) -> None:
    image = ImageSet(train, Preprocessing(SIZE, MEAN, STD))[4]
    assert torch.equal(
        image, to_normalized_tensor(resize_and_crop(open_rgb(train.paths[4]), Preprocessing(SIZE)), MEAN, STD)
    )
    assert (image.shape, image.dtype) == ((3, SIZE, SIZE), torch.float32)


def test_batches_follow_the_order_asked_for(train: Split) -> None:
    images = ImageSet(train, Preprocessing(SIZE, MEAN, STD))
    batches = list(image_batches(images, [torch.tensor([5, 0]), torch.tensor([3])]))
    assert [len(batch) for batch in batches] == [2, 1]
    assert torch.equal(torch.cat(batches), torch.stack([images[i] for i in (5, 0, 3)]))


def test_variations_do_not_depend_on_workers_order_or_batch_size(augmented: ImageSet) -> None:
    order = (3, 1, 5, 0, 4, 2)
    augmented.set_epoch(2)
    expected = torch.stack([augmented[i] for i in range(6)])
    assert torch.equal(images_of(augmented, 4), expected)
    assert torch.equal(images_of(augmented, 2, order, workers=2), expected[list(order)])


def test_workers_see_the_epoch(augmented: ImageSet) -> None:
    passes = []
    for epoch in (0, 1, 0):
        augmented.set_epoch(epoch)
        passes.append(images_of(augmented, 3, workers=1))
    assert torch.equal(passes[0], passes[2])
    assert not torch.equal(passes[0], passes[1])


def test_variations_depend_on_seed_epoch_and_image(train: Split, augmented: ImageSet) -> None:
    first = Split(train.name, (train.paths[0],) * 2, train.attr[:2], train.obj[:2], train.pairs)
    images = ImageSet(first, Preprocessing(SIZE, MEAN, STD), augment=True, seed=3)
    assert torch.equal(images[0], augmented[0])
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(ImageSet(first, Preprocessing(SIZE, MEAN, STD), augment=True, seed=4)[0], images[0])


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
