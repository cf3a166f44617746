from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from czslkit.data import demo_world
from czslkit.data.fingerprint import fingerprint
from czslkit.data.layout import images_folder, pairs_file
from czslkit.data.loading import load_dataset
from czslkit.data.splits import Splits
from czslkit.errors import DataError, UnknownNameError

Edit = Callable[[Callable[[list[dict[str, str]]], None]], None]


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
