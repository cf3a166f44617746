from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from czslkit.data import demo_world
from czslkit.data.check.file_damage import file_damage
from czslkit.data.check.image_files import examined_images
from czslkit.data.images import open_image

Damage = Callable[[bytes], str]


def picture(n: int) -> Image.Image:
    """Noise, a rendered object or a blurred pattern."""
    rng = np.random.default_rng(n)
    if n % 3 == 0:
        return Image.fromarray(rng.integers(0, 256, (24 + n, 30, 3), np.uint8))
    if n % 3 == 1:
        return demo_world.render(demo_world.ATTRS[n % 8], demo_world.OBJS[n % 6], rng)
    return Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


@pytest.fixture
def damage(tmp_path: Path) -> Damage:
    """Returns what the check of an image file finds, given its content."""

    def examine(content: bytes) -> str:
        (tmp_path / "a").write_bytes(content)
        [(_, found)] = examined_images([tmp_path / "a"], imported=False, workers=1)
        return found.error

    return examine


@pytest.mark.parametrize(("name", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"quality": 95})])
@pytest.mark.parametrize("where", ["end", "anywhere"])
def test_of_60_images_with_half_of_the_file_zeroed_all_are_found(
    damage: Damage, name: str, options: dict[str, object], where: str
) -> None:
    for n in range(60):
        content = bytearray(encoded(picture(n), name, **options))
        half = len(content) // 2
        start = len(content) - half if where == "end" else int(np.random.default_rng(n).integers(0, half))
        content[start : start + half] = bytes(half)
        assert damage(bytes(content)), n


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}])
def test_a_zeroed_end_is_found_whatever_the_coding_is(damage: Damage, options: dict[str, bool]) -> None:
    for n in range(12):
        content = encoded(picture(n), "JPEG", **options)
        assert damage(content[: len(content) // 2] + bytes(len(content) // 2)), n


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def with_a_thumbnail() -> bytes:
    """A JPEG whose EXIF segment has another JPEG, with a start and an end mark."""
    content, small = encoded(picture(0), "JPEG"), encoded(picture(0).resize((8, 8)), "JPEG")
    segment = b"Exif\0\0" + small
    return content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]


JPEGS = [
    *({"quality": quality, "subsampling": samples} for quality in (5, 75, 100) for samples in ("4:4:4", "4:2:0")),
    {"progressive": True},
    {"progressive": True, "quality": 100, "subsampling": "4:4:4"},
    {"optimize": True},
    {"exif": turned(), "comment": b"a comment", "icc_profile": bytes(70_000)},
    {"restart_marker_blocks": 1},
    {"restart_marker_rows": 1, "progressive": True},
]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEGS)
def test_no_sound_jpeg_is_refused(damage: Damage, options: dict[str, object], mode: str) -> None:
    for n in range(3):
        assert damage(encoded(picture(n).convert(mode), "JPEG", **options)) == ""


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("colour", ["white", "black", "red"])
def test_no_flat_image_is_refused(damage: Damage, options: dict[str, bool], colour: str) -> None:
    image = Image.new("RGB", (3000, 2000), colour)
    assert damage(encoded(image, "JPEG", **options)) == ""
    image.paste(picture(2), (500, 700))
    assert damage(encoded(image, "JPEG", **options)) == ""


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_no_gradient_is_refused(damage: Damage, options: dict[str, bool], quality: int) -> None:
    for turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270):
        image = Image.linear_gradient("L").resize((3000, 3000), Image.Resampling.BICUBIC).transpose(turn)
        assert damage(encoded(image.convert("RGB"), "JPEG", quality=quality, **options)) == ""


def test_jpegs_with_a_thumbnail_and_of_several_pictures_are_sound(damage: Damage) -> None:
    assert damage(with_a_thumbnail()) == ""
    several = encoded(picture(0), "MPO", save_all=True, append_images=[picture(1)])
    assert damage(several) == ""
    assert damage(several[:500] + bytes(500) + several[1000:])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_no_sound_png_is_refused(damage: Damage, mode: str) -> None:
    image = (
        Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
        if mode == "I;16"
        else picture(0).convert(mode)
    )
    assert damage(encoded(image, "PNG")) == ""
    assert damage(encoded(image, "PNG", compress_level=0)) == ""
    frames = [picture(1).convert("RGB")]
    assert damage(encoded(picture(0), "PNG", save_all=True, append_images=frames, exif=turned())) == ""


def interlaced() -> bytes:
    """An interlaced PNG of one grey pixel, by hand."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\7")) + chunk(b"IEND", b"")


def test_an_interlaced_png_is_sound(damage: Damage) -> None:
    assert damage(interlaced()) == ""


@pytest.mark.parametrize("name", ["PNG", "JPEG"])
def test_bytes_after_the_end_are_accepted(damage: Damage, name: str) -> None:
    content = encoded(picture(0), name)
    for tail in (b"\0" * 5000, b"ftypmp42" * 100, encoded(picture(1), name), b"\xff"):
        assert damage(content + tail) == ""


def test_each_damage_is_told(damage: Damage) -> None:
    png, jpeg = encoded(picture(0), "PNG"), encoded(picture(0), "JPEG")
    last = len(png) - 12
    wrong = png[: last - 4] + bytes(4) + png[last:]
    assert damage(wrong) == "it is damaged: the PNG chunk at byte 33 does not have its checksum"
    assert damage(png[:last]) == "it is cut off: the last PNG chunk is missing"
    assert damage(jpeg[:-2] + bytes(500)) == "it is cut off: the JPEG end mark is missing"
    middle = len(jpeg) - 400
    assert damage(jpeg[:middle] + bytes(200) + jpeg[middle + 200 :]).startswith(
        f"it is damaged: there are only zeros from byte {middle}"
    )


def test_an_unexpected_marker_is_told(tmp_path: Path) -> None:
    content = encoded(picture(0), "JPEG")
    middle = len(content) - 400
    (tmp_path / "a.jpg").write_bytes(content[:middle] + b"\xff\x37" + content[middle + 2 :])
    said = f"it is damaged: byte {middle} has an unexpected JPEG marker, 37"
    assert file_damage(tmp_path / "a.jpg", "JPEG") == said


def test_missing_scans_of_a_progressive_jpeg_are_told(damage: Damage) -> None:
    content = encoded(picture(2), "JPEG", progressive=True)
    cut = content.rindex(b"\xff\xda")
    assert damage(content[:cut] + b"\xff\xd9") == "it is damaged: scans of the progressive JPEG are missing"


def test_other_formats_have_nothing_to_compare(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.bmp")
    with open_image(tmp_path / "a.bmp") as image:
        assert file_damage(tmp_path / "a.bmp", image.format or "") == ""
