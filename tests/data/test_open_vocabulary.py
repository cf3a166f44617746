"""A dataset whose validation and test have words that no training image shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import czslkit
from czslkit.data.check.verification import verify
from czslkit.data.datasets import DATASETS, Dataset
from czslkit.data.loading import load_dataset
from czslkit.data.writing import write_dataset
from czslkit.errors import DataError

PAIRS = {
    "train": [("dotted", "heart"), ("wet", "star"), ("dotted", "star")],
    "val": [("dotted", "heart"), ("striped", "heart"), ("wet", "heart")],
    "test": [("wet", "star"), ("striped", "ring"), ("wet", "ring")],
}


def pictures() -> Iterator[tuple[dict[str, str], Image.Image]]:
    for split, pairs in PAIRS.items():
        for attr, obj in pairs:
            for n in range(3):
                entry = {"image": f"{attr}_{obj}/{split}{n}.png", "attr": attr, "obj": obj, "set": split}
                yield entry, Image.effect_noise((32, 32), 20 * n + 10).convert("RGB")


class Open(Dataset):
    open_vocabulary = True


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(DATASETS, "_items", dict(DATASETS.items()))
    assert write_dataset(tmp_path / "data" / "wild", PAIRS, pictures())
    return tmp_path / "data"


def test_words_that_training_never_shows_are_refused_with_the_way_to_allow_them(root: Path) -> None:
    message = r"1 attributes of val_pairs.txt are in no training pair: striped\n(.|\n)*has open_vocabulary = True may"
    with pytest.raises(DataError, match=message):
        load_dataset("wild", root)


def test_a_dataset_with_an_open_vocabulary_has_them_in_its_label_space(root: Path) -> None:
    DATASETS.register("wild")(Open)
    data = load_dataset("wild", root)
    assert (data.space.attrs, data.space.objs) == (("dotted", "striped", "wet"), ("heart", "ring", "star"))
    assert int(data.space.seen.sum()) == 3
    assert data.candidates("test").sum() == 3 + 2


def test_other_contradictions_are_still_refused(root: Path) -> None:
    DATASETS.register("wild")(Open)
    (root / "wild" / "images" / "striped_ring" / "test0.png").unlink()
    with pytest.raises(DataError, match=r"1 of 27 images are missing .*: striped_ring/test0.png"):
        load_dataset("wild", root)


def test_verification_notes_them(root: Path) -> None:
    DATASETS.register("wild")(Open)
    found = verify("wild", root, workers=1)
    assert found.passed
    notes = {finding.what: finding.where for finding in found.findings if finding.severity == "note"}
    assert notes == {
        "1 attributes of val_pairs.txt are in no training pair": ("striped",),
        "1 attributes of test_pairs.txt are in no training pair": ("striped",),
        "1 objects of test_pairs.txt are in no training pair": ("ring",),
    }


def test_methods_are_trained_and_evaluated_in_both_worlds(root: Path, clip_file: Path, tmp_path: Path) -> None:
    DATASETS.register("wild")(Open)
    result = czslkit.bench(
        "clip,csp,troika,dfsp-i2t,visprod",
        "wild",
        worlds=("closed", "open"),
        data=root,
        runs=tmp_path / "runs",
        settings={
            "backbone": str(clip_file),
            "troika.heads": 2,
            "train.epochs": 2,
            "train.batch_size": 4,
            "eval.feasibility": "clip",
            "eval.threshold": "search",
        },
        progress=False,
        log=lambda line: None,
    )
    assert [each.get("error") for each in result.results] == [None] * 10
    for each in result.results:
        assert all(torch.isfinite(torch.tensor(value)) for value in each["metrics"].values())
        assert (each["metrics"]["n_seen"], each["metrics"]["n_unseen"]) == (3, 6)
    assert all(name in result.to_markdown() for name in ("csp", "troika"))
