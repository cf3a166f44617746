from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from czslkit import provenance
from czslkit.data import image_cache, image_transforms
from czslkit.data.cache import Cache
from czslkit.data.image_cache import DecodedImages, decoded_images
from czslkit.data.image_reader import ImageReader
from czslkit.data.image_set import ImageSet
from czslkit.data.image_transforms import resize_and_crop
from czslkit.data.images import open_rgb
from czslkit.data.loading import load_dataset
from czslkit.data.splits import Split
from czslkit.errors import DataError
from czslkit.types import Preprocessing

SIZE = 24
SCALE = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture
def train(pets: Path) -> Split:
    return load_dataset("pets", pets.parent).train


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> Cache:
    return Cache(tmp_path / "cache", images=True, log=said.append)


def made(cache: Cache, split: Split, size: int = SIZE) -> DecodedImages:
    found = decoded_images(cache, split, Preprocessing(size))
    assert found is not None
    return found


def test_decoded_images_are_the_images_as_they_are_read(cache: Cache, train: Split, said: list[str]) -> None:
    pixels = made(cache, train).pixels
    assert np.array_equal(
        pixels, [np.asarray(resize_and_crop(open_rgb(path), Preprocessing(SIZE))) for path in train.paths]
    )
    [file] = cache.folder.glob("*.npy")
    assert np.array_equal(np.load(file, mmap_mode="r"), pixels)
    assert said == [f"making 6 decoded train images: 10 kB in {file}"]


def test_decoded_images_are_mapped_and_cannot_be_changed(cache: Cache, train: Split) -> None:
    pixels = made(cache, train).pixels
    assert isinstance(pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_a_damaged_decoded_image_is_told_once_and_decoded_again(
    cache: Cache, train: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    found = made(cache, train)
    right = ImageSet(train, Preprocessing(SIZE))
    content = bytearray(found.file.read_bytes())
    content[found.pixels.offset + 2 * SIZE * SIZE * 3 + 40] ^= 1  # type: ignore[attr-defined]
    found.file.write_bytes(content)
    again = made(cache, train)
    assert [again.image(index) is None for index in range(6)] == [False, False, True, False, False, False]
    damaged = ImageSet(train, Preprocessing(SIZE), decoded=again)
    for _ in range(2):
        assert torch.equal(damaged.read(range(6)).pixels, right.read(range(6)).pixels)
    message = f"{found.file} is damaged: its damaged images are decoded again. Delete it to have it made again.\n"
    assert capsys.readouterr().err == message


def test_decoded_images_of_an_earlier_version_have_no_checksums_and_are_used(
    cache: Cache, train: Split, said: list[str]
) -> None:
    found = made(cache, train)
    found.file.write_bytes(found.file.read_bytes()[: -4 * 6])
    again = made(cache, train)
    assert again.checksums is None
    assert np.array_equal(again.image(5), again.pixels[5])  # type: ignore[arg-type]
    assert len(said) == 1


@pytest.mark.parametrize("change", [-1, 1])
def test_decoded_images_of_another_length_are_made_again(
    cache: Cache, train: Split, said: list[str], change: int
) -> None:
    file = made(cache, train).file
    whole = file.read_bytes()
    file.write_bytes(whole[:change] if change < 0 else whole + b"x")
    made(cache, train)
    assert file.read_bytes() == whole
    assert f"is made again: it has {len(whole) + change:,} bytes, expected {len(whole):,}" in said[1]


def test_decoded_images_are_made_once(cache: Cache, train: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    made(cache, train)
    monkeypatch.setattr(image_cache, "read_square", lambda path, preprocessing: pytest.fail("read again"))
    made(cache, train)


def test_another_process_gets_the_file_and_not_the_pixels(cache: Cache, train: Split) -> None:
    found = made(cache, train)
    packed = pickle.dumps(found)
    assert len(packed) < 1000 < found.pixels.nbytes
    assert np.array_equal(pickle.loads(packed).pixels, found.pixels)


def test_sizes_are_kept_apart(cache: Cache, train: Split) -> None:
    assert [made(cache, train, size).pixels.shape for size in (16, 24, 16)] == [(6, n, n, 3) for n in (16, 24, 16)]
    assert len(list(cache.folder.glob("*.npy"))) == 2


def test_decoded_images_of_images_that_have_changed_are_not_used(cache: Cache, pets: Path, train: Split) -> None:
    before = made(cache, train).pixels
    open_rgb(train.paths[1]).rotate(90, expand=True).save(train.paths[0])
    after = made(cache, load_dataset("pets", pets.parent).train).pixels
    assert not np.array_equal(after[0], before[0])
    assert np.array_equal(after[1:], before[1:])


def test_decoded_images_of_an_image_edited_to_the_same_size_are_not_used(
    cache: Cache, pets: Path, train: Split
) -> None:
    before = made(cache, train).pixels
    small, *_, large = sorted(train.paths, key=lambda path: path.stat().st_size)
    large.write_bytes(small.read_bytes().ljust(large.stat().st_size, b"\0"))  # what follows a picture is not read
    after, at = made(cache, load_dataset("pets", pets.parent).train).pixels, train.paths.index(large)
    assert not np.array_equal(after[at], before[at])


def test_every_way_to_resize_has_decoded_images_of_its_own(cache: Cache, train: Split) -> None:
    ways = [
        Preprocessing(SIZE),
        Preprocessing(SIZE, mode="squash"),
        Preprocessing(SIZE, mode="longest", fill=(9, 9, 9)),
    ]
    for way in [*ways, *ways]:
        found = decoded_images(cache, train, way)
        assert found is not None
        assert np.array_equal(found.pixels, [np.asarray(resize_and_crop(open_rgb(path), way)) for path in train.paths])
    names = sorted(file.name.partition(f"-{train.digest}")[0] for file in cache.folder.glob("*.npy"))
    assert names == [
        "images-train-24",
        "images-train-24-longest-bicubic-1.0-9-9-9",
        "images-train-24-squash-bicubic-1.0",
    ]


def test_the_mean_of_a_model_makes_no_decoded_images_of_its_own(cache: Cache, train: Split) -> None:
    for way in (Preprocessing(SIZE), Preprocessing(SIZE, *SCALE)):
        assert decoded_images(cache, train, way) is not None
    assert len(list(cache.folder.glob("*.npy"))) == 1


def test_decoded_images_made_by_another_pillow_are_made_again(
    cache: Cache, train: Split, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(cache, train)
    monkeypatch.setattr(provenance, "packages", lambda: {"pillow": "1.0"})
    made(cache, train)
    assert "was made by another version of the code or packages and is deleted" in said[1]
    assert len(list(cache.folder.glob("*.npy"))) == 1


def test_decoded_images_of_another_version_of_the_transforms_are_made_again(
    cache: Cache, train: Split, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(cache, train)
    monkeypatch.setattr(image_transforms, "VERSION", image_transforms.VERSION + 1)
    made(cache, train)
    assert "was made by another version of the code or packages and is deleted" in said[1]
    assert len(list(cache.folder.glob("*.npy"))) == 1


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def one_image_less(file: Path) -> None:
    np.save(file, np.load(file)[1:])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "mmap length is greater than file size"),
        (empty, "EOF: reading magic string"),
        (one_image_less, r"it has shape \[5, 24, 24, 3\] and type uint8, expected \[6, 24, 24, 3\] and uint8"),
    ],
)
def test_a_damaged_file_is_made_again(cache: Cache, train: Split, said: list[str], damage, reason: str) -> None:
    expected = made(cache, train).pixels.copy()
    [file] = cache.folder.glob("*.npy")
    damage(file)
    assert np.array_equal(made(cache, train).pixels, expected)
    assert re.match(rf"{file} does not contain 6 decoded train images and is made again: {reason}", said[1])


def test_images_that_cannot_be_read_are_counted_and_named_and_nothing_is_kept(cache: Cache, train: Split) -> None:
    for path in train.paths[1:3]:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="2 of 6 train images cannot be read:") as info:
        decoded_images(cache, train, Preprocessing(SIZE))
    assert all(f"{path} is not a readable image: " in str(info.value) for path in train.paths[1:3])
    assert [each.suffix for each in cache.folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", [False, True])
def test_batches_are_the_same_from_the_cache_and_from_files(
    cache: Cache, train: Split, workers: int, augment: bool
) -> None:
    from_cache, order = made(cache, train), torch.tensor([3, 1, 5, 0, 4, 2])

    def batches(decoded: DecodedImages | None, workers: int) -> list[torch.Tensor]:
        images = ImageSet(train, Preprocessing(SIZE, *SCALE), augment=augment, seed=3, decoded=decoded)
        return list(ImageReader(images, workers=workers).batches(order.split(4), epoch=2))

    for one, other in zip(batches(from_cache, workers), batches(None, 0), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("place", range(6, 60, 7))
def test_a_damaged_header_is_no_reason_to_fail(cache: Cache, train: Split, place: int) -> None:
    expected = np.array(made(cache, train).pixels)
    [file] = cache.folder.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[place] ^= 0x55
    file.write_bytes(content)
    assert np.array_equal(made(cache, train).pixels, expected)
