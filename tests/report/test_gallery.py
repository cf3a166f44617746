"""Which images the page shows, chosen by hand, and what happens without predictions, images or rows."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from czslkit.errors import CzslkitError, DataError
from czslkit.metrics.predictions import FILE, Predictions
from czslkit.options import config_id
from czslkit.report import gallery as module
from czslkit.report import thumbnails
from czslkit.report.gallery import Gallery, galleries
from czslkit.report.table import Table
from czslkit.report.thumbnails import Thumbnails, thumbnail
from czslkit.result_store import Store

Make = Callable[..., dict[str, Any]]
PAIRS = [("wet", "dog", True), ("wet", "cat", False), ("dry", "dog", False), ("dry", "cat", True)]
IMAGES = [f"{i}.png" for i in range(12)]
ORDER = sorted(range(12), key=lambda i: hashlib.sha256(IMAGES[i].encode()).hexdigest())
TRUE = [0] * 12
GOOD = [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3]  # right, attribute right, object right, wrong
POOR = [0, 3, 3, 3, 0, 1, 0, 2, 2, 2, 3, 3]


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no environment variable name a folder of datasets."""
    monkeypatch.delenv("CZSLKIT_DATA", raising=False)


def stored(predicted: list[int], folder: str = "/nowhere/images", images: list[str] = IMAGES) -> bytes:
    return Predictions(folder, images, PAIRS, TRUE, predicted).to_bytes()


def gallery_of(files: dict[str, bytes | Exception | None], result: Make, data: Path | None = None) -> Gallery:
    """Return the gallery of methods whose AUCs fall in the order given."""
    results = [result(name, auc=0.9 - i / 100) for i, name in enumerate(files)]

    def attached(found: Any, name: str) -> bytes | None:
        content = files[found["cell"]["method"]] if name == FILE else None
        if isinstance(content, Exception):
            raise content
        return content

    (found,) = galleries(Table(results).arrangement, results, attached, data)
    return found


def shown(cards: Any) -> list[int]:
    return [IMAGES.index(card.image) for card in cards]


def test_images_are_chosen_by_the_outcome_of_the_best_method_and_by_digest(result: Make) -> None:
    found = gallery_of({"good": stored(GOOD), "poor": stored(POOR)}, result)
    assert found.best == "good" and found.images == 12
    expected = {name: [i for i in ORDER if GOOD[i] == kind][:3] for kind, name in enumerate(
        ("right", "attribute right", "object right", "wrong"))}  # fmt: skip
    assert {name: shown(cards) for name, cards in found.groups} == expected
    assert list(dict(found.groups)) == list(expected)
    card = found.groups[0][1][0]
    assert (card.attr, card.obj, card.seen, card.picture) == ("wet", "dog", True, "")
    i = IMAGES.index(card.image)
    assert [(g.label, g.attr, g.obj) for g in card.guesses] == [
        ("good", *PAIRS[GOOD[i]][:2]),
        ("poor", *PAIRS[POOR[i]][:2]),
    ]


def test_outcomes_are_counted_for_each_row(result: Make) -> None:
    found = gallery_of({"good": stored(GOOD), "poor": stored(POOR)}, result)
    assert found.counts == [[1, 4, 2, 5], [5, 3, 1, 3]]  # wrong, object right, attribute right, right
    assert found.alone == [3, 1]  # images 1, 2, 3; image 6
    same = sum(a == b for a, b in zip(GOOD, POOR, strict=True)) / 12
    assert found.agreement == [[1, same], [same, 1]]


def test_images_that_half_of_the_rows_name_right_are_shown_as_disagreement(result: Make) -> None:
    third = [0, 3, 3, 3, 3, 0, 0, 0, 2, 2, 3, 3]
    fourth = [3, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    files = {"good": stored(GOOD), "poor": stored(POOR), "third": stored(third), "fourth": stored(fourth)}
    found = gallery_of(files, result)
    above = {i for _, cards in found.groups for i in shown(cards)}
    right = [sum(row[i] == 0 for row in (GOOD, POOR, third, fourth)) for i in range(12)]
    candidates = [i for i in ORDER if i not in above and 0 < right[i] < 4]
    assert shown(found.disagreeing) == sorted(candidates, key=lambda i: abs(right[i] - 2))[:6]
    assert found.disagreeing


def test_one_row_has_no_disagreement(result: Make) -> None:
    found = gallery_of({"good": stored(GOOD)}, result)
    assert (found.disagreeing, found.alone, found.agreement) == ([], [0], [[1]])


def test_rows_without_predictions_are_named_with_the_remedy(result: Make) -> None:
    found = gallery_of({"good": stored(GOOD), "old": None, "older": None}, result)
    assert found.labels == ["good"]
    assert found.gaps[0].startswith("No predictions per image are stored for old, older, as by earlier versions")
    assert "remove closed.json of the cell and run czslkit bench again" in found.gaps[0]
    assert gallery_of({"old": None}, result).labels == ()


def test_a_file_that_cannot_be_used_is_named(result: Make) -> None:
    found = gallery_of({"good": stored(GOOD), "torn": b"{}", "gone": CzslkitError("closed.json.gz is gone")}, result)
    assert found.labels == ["good"]
    assert found.gaps[0].startswith(f"torn on demo (closed): {FILE}: holds no predictions")
    assert found.gaps[1] == f"gone on demo (closed): {FILE}: closed.json.gz is gone"


def test_rows_of_other_images_are_not_compared(result: Make) -> None:
    other = stored(GOOD, images=[*IMAGES[:-1], "other.png"])
    found = gallery_of({"good": stored(GOOD), "other": other}, result)
    assert found.labels == ["good"]
    assert "other was measured on other images than good, and is not compared." in found.gaps


def test_of_many_rows_the_best_are_compared(result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    found = gallery_of({name: stored(GOOD) for name in "cba"}, result)
    assert found.labels == ["c", "b"]
    assert "Of 3 rows, the 2 with the highest AUC are compared." in found.gaps


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of datasets in which ``demo`` has the images."""
    images = tmp_path / "demo" / "images"
    images.mkdir(parents=True)
    for name in IMAGES:
        Image.new("RGB", (320, 200), (200, 30, 30)).save(images / name)
    return tmp_path


def test_pictures_are_found_where_they_were_or_in_the_folder_given(result: Make, data: Path) -> None:
    recorded = gallery_of({"good": stored(GOOD, str(data / "demo" / "images"))}, result)
    given = gallery_of({"good": stored(GOOD)}, result, data)
    for found in (recorded, given):
        uris = [card.picture for _, cards in found.groups for card in cards]
        head, _, content = uris[0].partition(",")
        assert head == "data:image/jpeg;base64" and all(uris)
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        assert picture.size == (160, 100)
        assert found.gaps == []


def test_absent_pictures_are_a_stated_gap(result: Make, data: Path) -> None:
    (gap,) = gallery_of({"good": stored(GOOD)}, result).gaps
    assert gap == (
        "9 of 9 pictures are not shown: there are no images in /nowhere/images; give the folder of the datasets with "
        "--data."
    )
    (gap,) = gallery_of({"good": stored(GOOD)}, result, data / "elsewhere").gaps
    assert f"there are no images in {data / 'elsewhere' / 'demo'}; give" in gap
    for name in IMAGES[1:]:
        (data / "demo" / "images" / name).unlink()
    found = gallery_of({"good": stored(GOOD)}, result, data)
    assert "are not shown: " in found.gaps[0] and "is absent; give the folder of the datasets" in found.gaps[0]


def test_a_result_cannot_name_a_folder_that_is_no_dataset(result: Make, data: Path) -> None:
    (data / "demo").rename(data / "private")
    assert "there are no images in" in gallery_of({"a": stored(GOOD, str(data / "private" / "images"))}, result).gaps[0]


@pytest.mark.parametrize("image", ["../secret.png", "/etc/passwd", "a/../../b.png"])
def test_no_path_leads_out_of_the_folder_of_images(data: Path, image: str) -> None:
    pictures = Thumbnails(data).of("demo", "")
    assert pictures.of(image) == ""
    assert pictures.gaps() == ["1 of 1 pictures are not shown: the path of an image leads out of the folder of images."]


def test_a_name_that_no_file_can_have_is_a_gap(data: Path) -> None:
    pictures = Thumbnails(data).of("demo", "/" + "x" * 300)
    assert pictures.of("x" * 300) == ""
    assert pictures.gaps()[0].startswith(f"1 of 1 pictures are not shown: {data}")


def test_thumbnails_of_a_page_have_a_limit(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Thumbnails(data, left=2500).of("demo", "")
    uris = [pictures.of(name) for name in IMAGES]
    assert 0 < sum(map(len, uris)) <= 2500 and uris[-1] == ""
    assert "the thumbnails of a page have at most 1,500,000 bytes" in pictures.gaps()[0]


def test_a_thumbnail_of_noise_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert len(thumbnail(tmp_path / "noise.png")) <= thumbnails.MOST_BYTES
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 100)
    with pytest.raises(DataError, match=r"noise\.png has more than 100 bytes as a thumbnail"):
        thumbnail(tmp_path / "noise.png")


def test_a_file_that_is_no_image_is_a_gap(data: Path) -> None:
    (data / "demo" / "images" / "0.png").write_text("<svg onload=alert(1)>")
    pictures = Thumbnails(data).of("demo", "")
    assert pictures.of("0.png") == "" and "0.png" in pictures.gaps()[0]


def test_a_report_with_pictures_and_figures_needs_no_torch(tmp_path: Path, data: Path, result: Make) -> None:
    store = Store(tmp_path / "runs")
    for name in ("good", "poor"):
        made = result(name, config_id=config_id({}))
        files = store.attach(made["cell"], {FILE: stored(GOOD if name == "good" else POOR)})
        store.put({**made, "config": {}, "files": files})
    code = "import sys; from czslkit.cli import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    arguments = ["report", str(tmp_path / "runs"), "--data", str(data)]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["0 False"], done.stderr
    text = (tmp_path / "runs" / "report.html").read_text()
    assert text.count("data:image/jpeg") == 10 and "<svg" in text
