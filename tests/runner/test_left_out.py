"""Images whose pair is in no list: counted, printed, stored, noted, and refused if they are many."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import czslkit
from czslkit.cli import main
from czslkit.data.layout import metadata_file
from czslkit.data.writing import write_dataset
from czslkit.errors import DataError

PAIRS = {
    "train": [("rosé", "box"), ("blue", "tea cup")],
    "val": [("blue", "tea cup"), ("rosé", "tea cup")],
    "test": [("rosé", "box"), ("blue", "box")],
}


@pytest.fixture
def mine(tmp_path: Path) -> Callable[[Callable[[dict[str, str]], dict[str, str]]], Path]:
    """Write a dataset with 8, 4 and 4 images, given a function that changes the metadata of an image."""

    def write(change: Callable[[dict[str, str]], dict[str, str]]) -> Path:
        images = (
            (
                {"image": f"{split}{n}{attr}{obj}.png", "attr": attr, "obj": obj, "set": split},
                Image.fromarray(np.full((16, 16, 3), 9 * n, np.uint8)),
            )
            for split, pairs in PAIRS.items()
            for attr, obj in pairs
            for n in range(4 if split == "train" else 2)
        )
        folder = tmp_path / "data" / "mine"
        write_dataset(folder, PAIRS, images)
        entries = torch.load(metadata_file(folder), weights_only=True)
        torch.save([change(entry) for entry in entries], metadata_file(folder))
        return tmp_path / "data"

    return write


def run(data: Path, clip_file: Path, **arguments: Any) -> tuple[Any, list[str]]:
    lines: list[str] = []
    where = {"data": data, "runs": data.parent / "runs", "cache": "off", "progress": False, "log": lines.append}
    return czslkit.bench("clip", "mine", "closed", settings={"backbone": str(clip_file)}, **where, **arguments), lines


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tea cup", "tea  cup"),
        ("tea cup", "tea_cup"),
        ("tea cup", "Tea Cup"),
        ("rosé", unicodedata.normalize("NFD", "rosé")),
        ("rosé", "rosé "),
    ],
)
def test_labels_that_are_spelled_otherwise_than_in_the_lists_are_named(
    mine: Any, clip_file: Path, old: str, new: str
) -> None:
    renamed = mine(lambda entry: {key: new if value == old and entry["set"] == "train" else value
                                  for key, value in entry.items()})  # fmt: skip
    found, _ = run(renamed, clip_file)
    message = found.results[0]["error"]["message"]
    assert message.startswith("mine: more than 1% of a split would be missing:\n  4 of 8 train images are left out")
    listed = next(" ".join(pair) for pair in PAIRS["train"] if old in pair)
    assert f"(listed: {listed!r})" in message
    assert "--allow-missing (allow_missing=True) runs without these images" in message


def test_allowed_images_that_are_left_out_are_counted_printed_stored_and_noted(mine: Any, clip_file: Path) -> None:
    data = mine(lambda entry: entry | ({"obj": "Box"} if entry["image"] in ("test0roséBox.png", "test1roséBox.png",
                                                                          "test0rosébox.png") else {}))  # fmt: skip
    found, lines = run(data, clip_file, allow_missing=True)
    (result,) = found.results
    assert result["left_out"] == {"test": {"images": 1, "of": 4}}
    assert result["metrics"]["n_seen"] + result["metrics"]["n_unseen"] == 3
    said = "1 of 4 test images are left out, because their pair is in no list: 'rosé Box' (listed: 'rosé box')"
    assert any(line.endswith(said) for line in lines)
    note = "mine: left out, because their pair is in no list: 1 of 4 test images\n"
    assert note in found.table().to_text()


def test_nothing_is_said_where_nothing_is_left_out(mine: Any, clip_file: Path) -> None:
    found, lines = run(mine(lambda entry: entry), clip_file)
    assert not {"left_out", "set_aside"} & found.results[0].keys()
    assert not any("left out" in text or "set aside" in text for text in (*lines, found.table().to_text()))


def test_images_without_attribute_or_set_may_be_many(mine: Any, clip_file: Path) -> None:
    data = mine(lambda entry: entry | ({"attr": "NA"} if entry["image"].startswith("train0") else {}))
    found, _ = run(data, clip_file)
    assert found.failed == 0


def test_the_command_line_allows_missing_images(mine: Any, clip_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = mine(lambda entry: entry | ({"obj": "Box"} if entry["image"] == "test0rosébox.png" else {}))
    runs, settings = str(data.parent / "runs"), ["--set", f"backbone={clip_file}"]
    command = ["bench", "--methods", "clip", "--datasets", "mine", "--worlds", "closed", "--data", str(data)]
    assert main([*command, "--runs", runs, *settings]) == 1
    assert "1 of 4 test images are left out" in capsys.readouterr().out
    assert main([*command, "--runs", runs, *settings, "--allow-missing"]) == 0


@pytest.mark.parametrize("name", ["cgqa", "vaw-czsl"])
def test_a_published_dataset_is_used_as_it_was_published(name: str, tmp_path: Path) -> None:
    from czslkit.data.left_out import refuse_large_shares
    from czslkit.data.make.mini import write_mini
    from czslkit.runner.data_source import DataSource

    write_mini(name, tmp_path)
    data = DataSource(tmp_path, tmp_path / "checked", None).load(name)
    assert [(one.split, one.images, one.of) for one in data.left_out] == [("train", 3, 147)]
    with pytest.raises(DataError, match=rf"{name}: more than 1% of a split .*\n  3 of 147 train images are left out"):
        refuse_large_shares(name, data.left_out)


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """Return the folder of a dataset ``mine`` that was imported from 36 pictures, of which one could not be read."""
    rng = np.random.default_rng(0)
    for attr in ("dry", "old", "wet"):
        for obj in ("cat", "dog", "fish"):
            (folder := tmp_path / "photos" / f"{attr}_{obj}").mkdir(parents=True)
            for n in range(4):
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{n}.png")
    (tmp_path / "photos" / "wet_dog" / "3.png").write_text("no image")
    czslkit.import_dataset(tmp_path / "photos", "mine", tmp_path / "data")
    return tmp_path / "data"


def test_many_pictures_that_were_set_aside_are_an_error(imported: Path, clip_file: Path) -> None:
    found, _ = run(imported, clip_file)
    message = found.results[0]["error"]["message"]
    said = "mine: 1 of 36 pictures could not be read and were set aside when the dataset was imported, which is more "
    assert message.startswith(f"{said}than 1%: {imported.parent / 'photos' / 'wet_dog' / '3.png'}: it is in none of")
    assert "--allow-missing (allow_missing=True) runs without them" in message


def test_allowed_pictures_that_were_set_aside_are_printed_stored_and_noted(imported: Path, clip_file: Path) -> None:
    found, lines = run(imported, clip_file, allow_missing=True)
    assert found.results[0]["set_aside"] == {"images": 1, "of": 36}
    said = "1 of 36 pictures could not be read and were set aside when the dataset was imported"
    assert any(line.endswith(said) for line in lines)
    note = "mine: could not be read and were set aside when the dataset was imported: 1 of 36 pictures\n"
    assert note in found.table().to_text()
