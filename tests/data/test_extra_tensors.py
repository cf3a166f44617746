"""Tensors that a dataset gives for each image beside its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import czslkit
from czslkit.data.datasets import DATASETS, Dataset
from czslkit.data.layout import SPLITS, Listing
from czslkit.data.loading import load_dataset
from czslkit.data.pair_lists import listing_files
from czslkit.errors import DataError


class Boxed(Dataset):
    """A dataset in the field's layout whose file ``boxes.pt`` has a box for each image, by its path."""

    def extra(self, folder: Path, listing: Listing) -> Mapping[str, Mapping[str, torch.Tensor]]:
        boxes = torch.load(folder / "boxes.pt", weights_only=True)
        return {split: {"box": torch.tensor([boxes[i.image] for i in listing.instances[split]])} for split in SPLITS}

    def files(self, folder: Path) -> tuple[Path, ...]:
        return (*listing_files(folder), folder / "boxes.pt")


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Dataset]], None]:
    monkeypatch.setattr(DATASETS, "_items", dict(DATASETS.items()))
    return lambda cls: DATASETS.register("pets")(cls) and None


@pytest.fixture
def boxed(pets: Path, register: Callable[[type[Dataset]], None]) -> Path:
    register(Boxed)
    images = sorted(str(file.relative_to(pets / "images")) for file in (pets / "images").rglob("*.jpg"))
    torch.save({image: [n, n, n + 1, n + 2] for n, image in enumerate(images)}, pets / "boxes.pt")
    return pets


def test_each_split_has_the_rows_of_its_images(boxed: Path) -> None:
    data = load_dataset("pets", boxed.parent)
    boxes = torch.load(boxed / "boxes.pt", weights_only=True)
    for split in (data.train, data.val, data.test):
        names = [str(path.relative_to(boxed / "images")) for path in split.paths]
        assert split.extra["box"].tolist() == [boxes[name] for name in names]


def test_a_dataset_has_no_other_tensors_by_default(pets: Path) -> None:
    data = load_dataset("pets", pets.parent)
    assert [dict(split.extra) for split in (data.train, data.val, data.test)] == [{}, {}, {}]


def test_a_batch_has_the_rows_of_its_images(boxed: Path) -> None:
    data = load_dataset("pets", boxed.parent)
    method = czslkit.build("visprod", data.space, backbone="timm/resnet10t/random", image_size=32)
    batches = czslkit.Feed(method, data.train, 4).batches(torch.tensor([5, 0, 3, 2, 1]))
    assert [batch.extra["box"].tolist() for batch in batches] == [
        data.train.extra["box"][rows].tolist() for rows in ([5, 0, 3, 2], [1])
    ]


def test_changed_tensors_are_changed_data(boxed: Path) -> None:
    before = load_dataset("pets", boxed.parent).fingerprint
    boxes = torch.load(boxed / "boxes.pt", weights_only=True)
    torch.save({image: [0, 0, 1, 1] for image in boxes}, boxed / "boxes.pt")
    assert load_dataset("pets", boxed.parent).fingerprint != before


def rows(train: Any, val: Any, test: Any) -> dict[str, dict[str, Any]]:
    return {"train": {"box": train}, "val": {"box": val}, "test": {"box": test}}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (rows(torch.zeros(6, 4), torch.zeros(3, 4), torch.zeros(4, 4)), r"'box' of val is \[3, 4\], .* of 4 images"),
        (rows(torch.zeros(6, 4), torch.zeros(4, 4), torch.zeros(())), r"'box' of test is \[\], expected a tensor with"),
        (rows([0] * 6, torch.zeros(4), torch.zeros(4)), r"'box' of train is list, expected a tensor with one row"),
        (
            rows(torch.zeros(6, 4), torch.zeros(4, 4), torch.zeros(4, 5)),
            r"'box' of test has rows \[5\] torch.float32, expected \[4\] torch.float32 as in train",
        ),
        (
            rows(torch.zeros(6, 4), torch.zeros(4, 4).long(), torch.zeros(4, 4)),
            r"'box' of val has rows \[4\] torch.int64, expected \[4\] torch.float32 as in train",
        ),
        (
            None,
            r"returned a NoneType, expected a dict of tensors by name for each split, or {} .* change extra of .*Wrong",
        ),
        ({"train": torch.zeros(6)}, r"returned a Tensor for train, expected a dict of tensors by name"),
        ({"train": {"box": torch.zeros(6)}}, r"returned the splits train, expected train, val, test"),
        (rows(*map(torch.zeros, (6, 4, 4))) | {"test": {"mask": torch.zeros(4)}}, r"'test': \['mask'\]}, expected the"),
    ],
)
def test_tensors_that_do_not_fit_the_images_are_refused(
    extra: Any, message: str, pets: Path, register: Callable[[type[Dataset]], None]
) -> None:
    class Wrong(Dataset):
        def extra(self, folder: Path, listing: Listing) -> Mapping[str, Mapping[str, torch.Tensor]]:
            return extra  # type: ignore[no-any-return]

    register(Wrong)
    with pytest.raises(DataError, match=rf"^extra of dataset pets:? .*{message}"):
        load_dataset("pets", pets.parent)
