from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from czslkit.data import demo_world, image_check
from czslkit.data.fingerprint import fingerprint
from czslkit.data.image_check import check_images
from czslkit.data.layout import images_folder, pairs_file
from czslkit.data.loading import load_dataset
from czslkit.data.splits import Splits
from czslkit.errors import DataError, UnknownNameError

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


@pytest.fixture
def splits(pets: Path) -> Splits:
    return load_dataset("pets", pets.parent)


def test_words_and_pairs_are_sorted_and_seen_are_those_of_training(splits: Splits) -> None:
    assert (splits.space.attrs, splits.space.objs) == (("dry", "wet"), ("cat", "dog"))
    assert splits.space.pairs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert splits.space.seen.tolist() == [True, False, False, True]


def test_the_pairs_of_a_split_are_in_file_order(splits: Splits) -> None:
    assert splits.train.pairs.tolist() == [[1, 1], [0, 0]]
    assert splits.test.pairs.tolist() == [[1, 0], [0, 0]]


def test_an_image_shows_what_the_metadata_says(splits: Splits, pets: Path) -> None:
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [6, 4, 4]
    assert splits.train.paths[3] == pets / "images" / "dry_cat" / "train0.jpg"
    assert splits.train.attr.tolist() == [1, 1, 1, 0, 0, 0]
    assert splits.val.obj.tolist() == [1, 1, 1, 1]


def test_the_candidates_of_a_phase_are_its_own_pairs_and_those_of_training(splits: Splits) -> None:
    assert splits.candidates("val").tolist() == [True, True, False, True]
    assert splits.candidates("test").tolist() == [True, False, True, True]


def test_there_are_no_candidates_of_training(splits: Splits) -> None:
    with pytest.raises(ValueError, match="candidates of split 'train' were asked for, expected 'val' or 'test'"):
        splits.candidates("train")


def test_the_fingerprint_is_that_of_the_folder(splits: Splits, pets: Path) -> None:
    assert splits.fingerprint == fingerprint(pets)
    assert (splits.name, splits.root) == ("pets", pets)


def test_skipped_instances_are_counted(pets: Path, edit: Edit) -> None:
    edit(lambda entries: entries.extend([{**entries[0], "attr": "NA"}, {**entries[0], "obj": "cow"}]))
    assert load_dataset("pets", pets.parent).skipped == 2


def test_a_dataset_at_odds_with_itself_is_refused(pets: Path) -> None:
    (images_folder(pets) / "wet_dog" / "val1.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 14 images are missing .*: wet_dog/val1.jpg"):
        load_dataset("pets", pets.parent)


def test_a_malformed_list_is_refused(pets: Path) -> None:
    pairs_file(pets, "train").write_text("wet dog cat\n")
    with pytest.raises(DataError, match=r"train_pairs.txt:1: 'wet dog cat'"):
        load_dataset("pets", pets.parent)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no dataset named 'pets'"):
        load_dataset("pets", tmp_path)


def test_the_alias_of_ut_zappos_loads_under_its_one_name(pets: Path) -> None:
    pets.rename(pets.with_name("ut-zap50k"))
    assert load_dataset("ut-zap50k", pets.parent).name == "ut-zappos"


def test_the_demo_is_rendered_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = list(itertools.islice(demo_world.instances(), 0, None, 15))
    monkeypatch.setattr(demo_world, "instances", lambda: iter(some))
    monkeypatch.setenv("CZSLKIT_DATA", str(tmp_path))
    splits = load_dataset("demo")
    assert (splits.space.attrs, splits.space.objs) == (demo_world.ATTRS, demo_world.OBJS)
    assert int(splits.space.seen.sum()) == len(splits.train.pairs) == len(demo_world.split_pairs()["train"])
    shown = next(each for each in some if each[0] == "test")
    stored = np.asarray(Image.open(splits.test.paths[0]))
    assert (stored == np.asarray(demo_world.render_instance(*shown))).all()


def test_images_that_cannot_be_read_are_counted_and_named(splits: Splits, tmp_path: Path) -> None:
    truncated, empty = splits.train.paths[0], splits.test.paths[1]
    truncated.write_bytes(truncated.read_bytes()[:-600])
    empty.write_bytes(b"")
    with pytest.raises(DataError, match="2 of 14 images of pets cannot be read:") as info:
        check_images(splits, workers=2, cache=tmp_path / "cache")
    assert f"{truncated} is not a readable image: OSError: " in str(info.value)
    assert str(empty) in str(info.value)
    assert not (tmp_path / "cache").exists()


def test_of_many_unreadable_images_ten_are_named(splits: Splits) -> None:
    for path in (*splits.train.paths, *splits.val.paths, *splits.test.paths):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="14 of 14 images of pets cannot be read") as info:
        check_images(splits)
    assert str(info.value).count("is not a readable image") == 10
    assert str(info.value).endswith("and 4 more")


def test_images_found_readable_are_not_read_again(
    splits: Splits, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(image_check, "open_rgb", read.append)
    check_images(splits, cache=tmp_path / "cache")
    check_images(splits, cache=tmp_path / "cache")
    assert len(read) == len(set(read)) == 14
    [stamp] = (tmp_path / "cache").iterdir()
    assert json.loads(stamp.read_text()) == {"dataset": "pets", "fingerprint": splits.fingerprint, "images": 14}
    splits.train.paths[0].write_bytes(b"another size")
    check_images(load_dataset("pets", pets.parent), cache=tmp_path / "cache")
    assert len(read) == 28
