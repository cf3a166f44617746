from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from czslkit.data import images
from czslkit.data.images import FORMATS, ByteBudget, decoded, depth, open_image, open_rgb
from czslkit.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"
HEIC_HEADER = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic"


def noise(width: int = 12, height: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], Path]:
    """Returns the path of an image in an imported dataset, given its name."""
    (tmp_path / "mine" / "images" / "wet_dog").mkdir(parents=True)
    (tmp_path / "mine" / "imported.json").write_text("{}")
    return lambda name: tmp_path / "mine" / "images" / "wet_dog" / name


@pytest.mark.parametrize("name", FORMATS)
def test_every_named_format_is_opened_whatever_the_suffix_is(tmp_path: Path, name: str) -> None:
    noise().save(tmp_path / "a.jpg", name)
    assert (open_rgb(tmp_path / "a.jpg").mode, open_rgb(tmp_path / "a.jpg").size) == ("RGB", (12, 8))


@pytest.mark.parametrize("content", [EPS, b"\xd7\xcd\xc6\x9a" + bytes(60), b"8BPS\0\1" + bytes(60)])
def test_other_formats_start_no_program(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *args, **options: pytest.fail("a program was started"))
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(
        DataError, match=r"photo.jpg is not a readable .* none of the formats JPEG, PNG, WEBP, GIF, BMP"
    ):
        open_rgb(tmp_path / "photo.jpg")


def test_a_format_that_pillow_reads_and_czslkit_does_not_is_refused(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png", "SGI")
    with pytest.raises(DataError, match=r"a.png is not a readable image: .*it is in none of the formats JPEG"):
        open_rgb(tmp_path / "a.png")


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match=r"a.jpg is not a readable image: OSError: it is empty$"):
        open_rgb(tmp_path / "a.jpg")


def test_a_pipe_named_like_an_image_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg is not a readable image: OSError: it is not a regular file"):
        open_rgb(tmp_path / "a.jpg")


def test_heic_without_its_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_formats", lambda: FORMATS)
    (tmp_path / "a.heic").write_bytes(HEIC_HEADER)
    with pytest.raises(DataError, match=r"a.heic is not .*pip install 'czslkit\[heic\]'"):
        open_rgb(tmp_path / "a.heic")


def test_heic_is_read_with_its_reader(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    images._formats()  # registers the reader, and with it the writer
    noise(64, 48).resize((64, 48)).save(tmp_path / "a.jpg", "HEIF", quality=100)
    assert (open_rgb(tmp_path / "a.jpg").mode, open_rgb(tmp_path / "a.jpg").size) == ("RGB", (64, 48))


def test_an_image_that_claims_more_pixels_than_the_limit_says_so(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"a.png is not .* more than 89,478,485, the limit of Pillow .*: make it smaller"
    ):
        open_rgb(tmp_path / "a.png")


def test_a_budget_lets_threads_wait() -> None:
    budget, held, most = ByteBudget(10), [], []

    def work(part: int) -> None:
        with budget.hold(part):
            held.append(part)
            most.append(sum(min(each, 10) for each in held))
            time.sleep(0.01)
            held.remove(part)

    threads = [threading.Thread(target=work, args=(part,)) for part in (4, 5, 25, 3, 10, 6, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 7
    assert max(most) <= 10


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise().save(tmp_path / "a.png")
    budget = ByteBudget(12 * 8 * 16 + 1)
    monkeypatch.setattr(images, "_process_memory", lambda process: budget)
    inside, most = [], []

    def read() -> None:
        with decoded(tmp_path / "a.png"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1, 1, 1, 1]


def test_a_photo_of_a_limit_picture_takes_most_of_the_memory() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit and images._MEMORY / 2 < limit * images._BYTES_PER_PIXEL <= images._MEMORY


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_imported_images_are_read_upright(place: Callable[[str], Path], orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    noise().save(place("a.jpg"), name, exif=exif)
    with Image.open(place("a.jpg")) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(np.asarray(open_rgb(place("a.jpg"))), expected)


GREY = np.array([[0, 40], [100, 200]])


@pytest.mark.parametrize(
    ("values", "white"),
    [
        ((GREY / 200).astype(np.float32), 1),
        ((GREY / 200 * 1.01 - 0.005).astype(np.float32), 1),
        (GREY.astype(np.float32), 255),
        (GREY.astype(np.int32), 255),
        (GREY.astype(np.uint16) * 5, 1023),
        (GREY.astype(np.uint16) * 20, 4095),
        (GREY.astype(np.uint16) * 80, 16_383),
        (GREY.astype(np.uint16) * 320, 65_535),
        (GREY.astype(np.float32) * 320, 65_535),
        (GREY.astype(np.int32) * 10_000_000, 2**31 - 1),
    ],
)
def test_imported_images_of_more_than_8_bits_are_scaled(
    place: Callable[[str], Path], values: np.ndarray, white: int
) -> None:
    Image.fromarray(values).save(place("a.tif"))
    read = np.asarray(open_rgb(place("a.tif")))
    expected = np.clip(np.round(values.astype(np.float64) * 255 / white), 0, 255)
    assert all(np.array_equal(read[:, :, channel], expected) for channel in range(3))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[-1.0, 1.0]], "its values are floats from -1 to 1, expected from 0 to 1, or from 0 to more than 16"),
        ([[0.0, 4.0]], "its values are floats from 0 to 4, expected from 0 to 1, or from 0 to more than 16"),
        ([[0.0, np.nan]], "its values are floats from nan to nan"),
        ([[0.0, np.inf]], "its values are floats from 0 to inf"),
    ],
)
def test_imported_values_of_no_known_range_are_refused(
    place: Callable[[str], Path], values: list[list[float]], said: str
) -> None:
    Image.fromarray(np.array(values, np.float32)).save(place("a.tif"))
    with pytest.raises(DataError, match=said):
        open_rgb(place("a.tif"))


def test_imported_negative_whole_numbers_are_refused(place: Callable[[str], Path]) -> None:
    Image.fromarray(np.array([[-5, 7]], np.int32)).save(place("a.tif"))
    with pytest.raises(DataError, match="its values are whole numbers from -5 to 7, expected from 0 to 2147483647"):
        open_rgb(place("a.tif"))


def test_the_depth_of_grey_images_is_told() -> None:
    kinds = {}
    for name, kind in (("16", np.uint16), ("32", np.int32), ("float", np.float32), ("8", np.uint8)):
        file = io.BytesIO()
        Image.fromarray(GREY.astype(kind)).save(file, "TIFF")
        kinds[name] = depth(Image.open(file))
    assert kinds == {"16": "16-bit", "32": "32-bit", "float": "float", "8": ""}


def test_16_bit_grey_of_pgm_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([1, 300], ">u2").tobytes())
    with open_image(tmp_path / "a.pgm") as image:
        assert depth(image) == "16-bit"
