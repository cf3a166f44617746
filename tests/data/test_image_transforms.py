from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torchvision import transforms as tv

from czslkit.data.image_set import ImageSet
from czslkit.data.image_transforms import resize_and_crop, to_normalized, to_normalized_tensor
from czslkit.data.images import open_rgb
from czslkit.data.splits import Split
from czslkit.errors import DataError
from czslkit.types import Preprocessing

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZE = 24


def picture(width: int = 50, height: int = 37) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def preprocessed(image: Image.Image, size: int = SIZE) -> torch.Tensor:
    """Return the image after CLIP's own transform, which the authors' programs use."""
    resize = tv.Resize(size, tv.InterpolationMode.BICUBIC)
    tensor: torch.Tensor = tv.Compose([resize, tv.CenterCrop(size), tv.ToTensor(), tv.Normalize(MEAN, STD)])(image)
    return tensor


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_image_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    picture().convert(mode).save(file)
    image = open_rgb(file)
    assert (image.mode, image.size) == ("RGB", (50, 37))


def converted(file: Path) -> np.ndarray:
    """Return the image as the authors' programs read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(file).convert("RGB"))


def save_cmyk(file: Path) -> None:
    picture().convert("CMYK").save(file, "JPEG")


def save_palette(file: Path) -> None:
    picture().convert("P").save(file, "PNG", transparency=bytes(range(256)))


def save_palette_with_a_clear_colour(file: Path) -> None:
    picture().convert("P").save(file, "PNG", transparency=3)


def save_16_bit(file: Path) -> None:
    Image.fromarray(np.arange(0, 600, dtype=np.uint16).reshape(20, 30)).save(file, "PNG")


def save_turned_by_exif(file: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture().save(file, "JPEG", exif=exif)


def save_animation(file: Path) -> None:
    picture().save(file, "GIF", save_all=True, append_images=[picture().transpose(Image.Transpose.ROTATE_180)])


@pytest.mark.parametrize(
    "save",
    [save_cmyk, save_palette, save_palette_with_a_clear_colour, save_16_bit, save_turned_by_exif, save_animation],
)
def test_unusual_images_are_read_bit_by_bit_as_the_originals_read_them(
    tmp_path: Path, save: Callable[[Path], None]
) -> None:
    save(tmp_path / "a.jpg")  # whatever the suffix says
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.jpg")), converted(tmp_path / "a.jpg"))


def test_an_image_turned_by_exif_is_read_as_it_is_stored(tmp_path: Path) -> None:
    save_turned_by_exif(tmp_path / "a.jpg")
    assert open_rgb(tmp_path / "a.jpg").size == picture().size


def test_of_16_bits_what_is_above_255_is_white(tmp_path: Path) -> None:
    save_16_bit(tmp_path / "a.png")
    grey = np.asarray(open_rgb(tmp_path / "a.png"))[:, :, 0].ravel()
    assert np.array_equal(grey, np.minimum(np.arange(600), 255))


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    save_animation(tmp_path / "a.gif")
    picture().save(tmp_path / "first.gif")
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "a.gif")), np.asarray(open_rgb(tmp_path / "first.gif")))


def test_a_truncated_jpeg_is_an_error_wherever_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    picture(200, 150).save(file)
    whole = file.read_bytes()
    for end in (2, 100, len(whole) // 2, len(whole) - 300):
        file.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"a.jpg is not a readable image: "):
            open_rgb(file)


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_an_image_beyond_the_limit_of_pillow_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Literal["error", "ignore"]
) -> None:
    picture(50, 37).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50 * 37 - 1)  # Pillow itself refuses from twice that on
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(DataError, match=r"a.png is not a readable image: DecompressionBomb"):
            open_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0\0\x10JFIF"])
def test_a_file_that_is_no_image_is_an_error_naming_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path / 'a.jpg'))} is not a readable image: "):
        open_rgb(tmp_path / "a.jpg")


def test_an_image_that_is_not_there_is_an_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.jpg is not a readable image: FileNotFoundError"):
        open_rgb(tmp_path / "a.jpg")


@pytest.mark.parametrize(("width", "height"), [(50, 37), (37, 50), (24, 24), (100, 11), (23, 90), (5, 5), (1, 40)])
def test_at_evaluation_an_image_is_what_torchvision_makes_of_it(width: int, height: int) -> None:
    image = picture(width, height)
    assert torch.equal(
        to_normalized_tensor(resize_and_crop(image, Preprocessing(SIZE)), MEAN, STD), preprocessed(image)
    )


def split_of(file: Path) -> Split:
    return Split("test", (file,), torch.tensor([0]), torch.tensor([0]), torch.tensor([[0, 0]]))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("side", [224, 223, 64])
def test_a_file_is_read_as_the_authors_programs_read_it(tmp_path: Path, mode: str, side: int) -> None:
    file = tmp_path / "a.jpg"
    picture(333, 251).convert(mode).save(file, quality=90)
    images = ImageSet(split_of(file), Preprocessing(side, MEAN, STD))
    assert torch.equal(
        to_normalized(images.read([0]).pixels, MEAN, STD)[0], preprocessed(Image.open(file).convert("RGB"), side)
    )


def test_every_pixel_value_is_normalised_as_torchvision_does_it() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    expected = tv.Normalize(MEAN, STD)(tv.ToTensor()(Image.fromarray(values[0].permute(1, 2, 0).numpy())))
    normalised = to_normalized(values, MEAN, STD)
    assert torch.equal(normalised, expected.expand(2, -1, -1, -1))
    assert normalised.is_contiguous()
    assert torch.equal(to_normalized(values.contiguous(memory_format=torch.channels_last), MEAN, STD), normalised)
