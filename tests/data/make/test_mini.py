from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from czslkit.data.image_check import check_images
from czslkit.data.layout import metadata_file, pairs_file
from czslkit.data.loading import load_dataset
from czslkit.data.make.mini import REPLICAS, write_mini
from czslkit.data.pair_lists import read_pairs
from czslkit.errors import ConfigError, DataError, UnknownNameError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("minis")
    for name in REPLICAS:
        write_mini(name, root)
    return root


@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_loads_with_the_structure_it_promises(root: Path, name: str) -> None:
    data = load_dataset(name, root)
    assert (len(data.space.attrs), len(data.space.objs)) == (8, 6)
    assert (len(data.train), len(data.val), len(data.test)) == (24 * 6, 12 * 4, 12 * 4)
    assert len(data.train.pairs) == int(data.space.seen.sum()) == 24
    for name_of_split, split in (("val", data.val), ("test", data.test)):
        seen = (split.pairs[:, None] == data.train.pairs).all(-1).any(1)
        assert (len(split.pairs), int(seen.sum())) == (12, 6)
        assert int(data.candidates(name_of_split).sum()) == 24 + 6
    assert len(data.space.pairs) == 24 + 6 + 6
    check_images(data)


@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_has_instances_that_do_not_count(root: Path, name: str) -> None:
    entries = torch.load(metadata_file(root / name), weights_only=True)
    listed = {pair for split in ("train", "val", "test") for pair in read_pairs(pairs_file(root / name, split))}
    assert sum(entry["attr"] == "NA" for entry in entries) == 3
    assert sum(entry["set"] == "NA" for entry in entries) == 3
    assert sum((entry["attr"], entry["obj"]) not in listed for entry in entries if entry["attr"] != "NA") == 3
    assert load_dataset(name, root).skipped == 9


@pytest.mark.parametrize("name", REPLICAS)
def test_the_training_list_is_not_sorted(root: Path, name: str) -> None:
    pairs = read_pairs(pairs_file(root / name, "train"))
    assert list(pairs) != sorted(pairs)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("mit-states", r"(ancient|adj|\w+)_[a-z]+/[0-9a-f]{32}\.jpg"),
        ("ut-zappos", r"[A-Z][\w.]*_[A-Z][\w.-]*/\d+\.\d+\.jpg"),
        ("cgqa", r"\d+-\d+-[\w]+-[\w-]+\.jpg"),
        ("vaw-czsl", r"[a-zA-Z ]+\+[a-z ]+/\d+\.jpg"),
        ("clothing16k", r"[a-zA-Z]+_[a-z]+/\d{6}\.jpg"),
    ],
)
def test_files_are_named_as_in_the_published_metadata(root: Path, name: str, image: str) -> None:
    entries = torch.load(metadata_file(root / name), weights_only=True)
    keys = {"image", "attr", "obj", "set"} | ({"_image"} if name == "ut-zappos" else set())
    assert all(entry.keys() == keys for entry in entries)
    assert [entry["image"] for entry in entries if not re.fullmatch(image, entry["image"])] == []
    assert len({entry["image"] for entry in entries}) == len(entries)


@pytest.mark.parametrize("name", REPLICAS)
def test_pictures_are_jpegs_of_several_shapes(root: Path, name: str) -> None:
    sizes = set()
    for file in (root / name / "images").rglob("*.jpg"):
        with Image.open(file) as image:
            assert image.format == "JPEG"
            sizes.add(image.size)
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)
    assert min(min(size) for size in sizes) >= 64


def test_words_of_the_replica_of_vaw_czsl_have_spaces_and_its_lists_a_plus(root: Path) -> None:
    lines = pairs_file(root / "vaw-czsl", "train").read_text().splitlines()
    assert all(line.count("+") == 1 for line in lines)
    assert "light blue" in load_dataset("vaw-czsl", root).space.attrs


def test_labels_have_the_unusual_characters_of_the_published_ones() -> None:
    words = {word for replica in REPLICAS.values() for word in replica.attrs + replica.objs}
    assert {"Faux.Fur", "Shoes.Clogs.and.Mules", "Boots.Mid-Calf", "dry-erase_board", "black_and_white"} <= words


def test_the_same_seed_writes_the_same_files(root: Path, tmp_path: Path) -> None:
    folder = write_mini("cgqa", tmp_path)
    files = [file.relative_to(folder) for file in folder.rglob("*.*") if file.is_file()]
    assert len(files) == 240 + 9 + 3 + 1 + 1
    assert all((folder / file).read_bytes() == (root / "cgqa" / file).read_bytes() for file in files)


def test_another_seed_and_an_alias_write_another_replica(root: Path, tmp_path: Path) -> None:
    assert write_mini("ut-zap50k", tmp_path, seed=1) == tmp_path / "ut-zap50k"
    data = load_dataset("ut-zappos", tmp_path)
    assert (data.name, data.root) == ("ut-zappos", tmp_path / "ut-zap50k")
    assert data.train.pairs.tolist() != load_dataset("ut-zappos", root).train.pairs.tolist()


def test_nothing_is_overwritten(pets: Path) -> None:
    pets.rename(pets.with_name("cgqa"))
    with pytest.raises(DataError, match=r"/cgqa exists already and is not changed"):
        write_mini("cgqa", pets.parent)
    assert load_dataset("cgqa", pets.parent).space.objs == ("cat", "dog")


def test_there_is_no_replica_of_an_unknown_dataset(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no small replica of 'cgqq'. Did you mean 'cgqa'\? Known: mit-states"):
        write_mini("cgqq", tmp_path)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"seed {seed} is not a whole number from 0 to 9223372036854775807"):
        write_mini("cgqa", tmp_path, seed)
