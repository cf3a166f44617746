"""Variations of training images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator
from torchvision import transforms as tv

from czslkit.data.augmentation import Variation, augment, augment_batch, draw_variation, stack_variations
from czslkit.data.image_transforms import pixel_tensor

SIZE = 47


def picture(seed: int = 0, width: int = SIZE, height: int = SIZE) -> Image.Image:
    """Smooth shapes with grain, and no black at the borders."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(40, 256, (5, 6, 3), np.uint8)).resize((width, height))
    return Image.fromarray((np.asarray(shapes) + rng.normal(0, 9, (height, width, 1))).clip(1, 255).astype(np.uint8))


def drawn(seed: int, width: int = SIZE, height: int = SIZE) -> Variation:
    return draw_variation(width, height, Generator().manual_seed(seed))


def test_variations_are_those_of_torchvision() -> None:
    oracle = tv.Compose([tv.RandomHorizontalFlip(), tv.RandomPerspective(), tv.RandomRotation(5)])
    image = picture(0, 50, 37)
    with torch.random.fork_rng(devices=[]):
        for seed in range(40):
            torch.manual_seed(seed)
            expected = np.asarray(oracle(image))
            assert (np.asarray(augment(image, drawn(seed, 50, 37))) == expected).all(), seed


@pytest.mark.parametrize("size", [24, 47, 224])
def test_a_batch_is_varied_like_its_images(size: int) -> None:
    images = [picture(n, size, size) for n in range(40)]
    variations = [drawn(n, size, size) for n in range(40)]
    kinds = Counter((variation.flipped, variation.corners is None) for variation in variations)
    assert len(kinds) == 4
    found = augment_batch(torch.stack([*map(pixel_tensor, images)]), stack_variations(variations, size))
    for n, (image, variation) in enumerate(zip(images, variations, strict=True)):
        assert torch.equal(found[n], pixel_tensor(augment(image, variation))), n


def test_a_batch_is_varied_like_its_images_at_extreme_numbers() -> None:
    middle, far = SIZE // 2, SIZE - 1
    squeezed = [[middle // 2, middle // 2], [far - middle // 2, 0], [far, far], [0, far - middle // 2]]
    variations = [
        Variation(flipped, corners, degrees)
        for flipped in (False, True)
        for corners in (None, squeezed)
        for degrees in (0.0, 5.0, -5.0, 1e-9)
    ]
    found = augment_batch(pixel_tensor(picture()).repeat(16, 1, 1, 1), stack_variations(variations, SIZE))
    for n, variation in enumerate(variations):
        assert torch.equal(found[n], pixel_tensor(augment(picture(), variation))), n


def test_an_image_without_variation_stays_as_it_is() -> None:
    images = pixel_tensor(picture())[None]
    assert torch.equal(augment_batch(images, stack_variations([Variation(False, None, 0.0)], SIZE)), images)


def test_empty_parts_are_black_and_borders_do_not_fade() -> None:
    white = torch.full((20, 3, SIZE, SIZE), 255, dtype=torch.uint8)
    found = augment_batch(white, stack_variations([drawn(seed) for seed in range(20)], SIZE))
    assert set(found.unique().tolist()) == {0, 255}


def test_single_precision_is_off_by_little() -> None:
    """Devices without double precision, such as MPS, compute with single precision."""
    from czslkit.data import augmentation

    images = torch.stack([pixel_tensor(picture(n)) for n in range(16)])
    flipped, perspective, rotation = stack_variations([drawn(n) for n in range(16)], SIZE)
    exact = augmentation._varied(images, flipped, perspective, rotation)
    single = augmentation._varied(images, flipped, perspective.float(), rotation)
    difference = (exact.int() - single.int()).abs()
    assert difference.float().mean() < 0.05
    assert (difference > 1).float().mean() < 0.002
