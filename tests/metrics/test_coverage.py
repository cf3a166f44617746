"""Chunks of scores in any order, repeated chunks, missing chunks, and merged sweeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from czslkit.metrics.sweep import Sweep

PAIRS = torch.cartesian_prod(torch.arange(2), torch.arange(3))
SEEN = torch.tensor([True, False, True, False, True, False])
ONE = torch.zeros(1, 6)  # scores of one image
FEASIBLE = torch.zeros(6)

WRONG_CHUNKS = [
    ({"columns": [6]}, r"there is no column 6, only 0 to 5"),
    ({"columns": [1, 1]}, r"expected different columns, only 1 of 2 differ"),
    ({"columns": [[1]]}, r"columns are \[1, 1\], expected \[k\]"),
    ({"columns": slice(3), "images": [4]}, r"image 4 has a score for column 0 already"),
    ({"columns": slice(3, 6), "images": [4], "obj": [1]}, r"image 4 shows pair \(0, 1\), but showed \(0, 0\)"),
    (
        {"columns": slice(3, 6)},
        r"these images are without numbers, earlier images numbered: give images= always or never",
    ),
    ({"columns": slice(3, 6), "images": [-1]}, r"image numbers start at 0, got -1"),
    ({"columns": slice(3, 6), "images": [0, 1]}, r"images is \[2\], expected \[1\]"),
    (
        {"columns": slice(3, 6), "images": [2, 2], "attr": [0, 0], "obj": [0, 0]},
        r"expected different images, only 1 of 2 differ",
    ),
]


@pytest.mark.parametrize(("chunk", "message"), WRONG_CHUNKS)
def test_chunks_that_do_not_fit_are_named_and_change_nothing(chunk: dict[str, Any], message: str) -> None:
    sweep = Sweep(PAIRS, SEEN)
    sweep.update(torch.zeros(1, 3), [0], [0], columns=slice(3), images=[4])
    chunk = {"attr": [0], "obj": [0], **chunk}
    wide = 3 if isinstance(chunk["columns"], slice) else len(chunk["columns"])
    with pytest.raises(ValueError, match=message):
        sweep.update(torch.zeros(len(chunk["attr"]), wide), **chunk)
    sweep.update(torch.zeros(1, 3), [0], [0], columns=slice(3, 6), images=[4])
    assert sweep.compute().n_seen == 1


def test_numbers_after_appended_images_are_refused() -> None:
    sweep = Sweep(PAIRS, SEEN)
    sweep.update(ONE, [0], [0])
    with pytest.raises(ValueError, match="these images are numbered, earlier images without numbers"):
        sweep.update(ONE, [0], [0], images=[1])


def test_columns_that_had_different_images_need_image_numbers() -> None:
    sweep = Sweep(PAIRS, SEEN)
    sweep.update(ONE[:, :2], [0], [0], columns=slice(2))
    with pytest.raises(ValueError, match="some of these columns have scores of 0 images and some of 1: give images="):
        sweep.update(ONE, [0], [0])


def test_a_sweep_without_images_has_nothing_to_compute() -> None:
    sweep = Sweep(PAIRS, SEEN)
    sweep.update(torch.zeros(0, 6), [], [])
    with pytest.raises(ValueError, match="no images have been given"):
        sweep.compute()


def test_missing_chunks_are_named() -> None:
    sweep = Sweep(PAIRS, SEEN)
    sweep.update(torch.zeros(3, 6), [0] * 3, [0] * 3, images=[0, 1, 2])
    sweep.update(torch.zeros(2, 2), [0] * 2, [0] * 2, images=[3, 7], columns=[5, 1])
    with pytest.raises(ValueError, match=r"2 of 5 images lack scores: image 3 lacks 4 of 6 columns \(0, 2, 3, 4\)"):
        sweep.compute()


def appended(n: int = 1, **options: Any) -> Sweep:
    sweep = Sweep(PAIRS, SEEN, **options)
    sweep.update(torch.zeros(n, 6), [0] * n, [0] * n)
    return sweep


def numbered(*images: int) -> Sweep:
    sweep = Sweep(PAIRS, SEEN)
    sweep.update(torch.zeros(len(images), 6), [0] * len(images), [0] * len(images), images=list(images))
    return sweep


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (appended(), appended(keep=2), "the sweeps differ in pairs, candidates, thresholds, topk or keep"),
        (appended(), appended(topk=2), "the sweeps differ in pairs, candidates, thresholds, topk or keep"),
        (appended(), appended(candidates=SEEN), "the sweeps differ in pairs"),
        (appended(), appended(feasibility=FEASIBLE, thresholds=[0.0]), "the sweeps differ in pairs"),
        (appended(), numbered(3), "the images of the other sweep have numbers, the images of this sweep have none"),
        (numbered(3), appended(), "the images of this sweep have numbers, the images of the other sweep have none"),
        (numbered(3, 4), numbered(5, 4), "image 4 has a score for column 0 already"),
    ],
)
def test_sweeps_that_do_not_fit_are_not_merged(one: Sweep, other: Sweep, message: str) -> None:
    before = one.compute()
    with pytest.raises(ValueError, match=message):
        one.merge(other)
    assert one.compute() == before


def test_incomplete_images_cannot_be_appended() -> None:
    other = Sweep(PAIRS, SEEN)
    other.update(ONE[:, :2], [0], [0], columns=slice(2))
    with pytest.raises(ValueError, match="1 of 1 images lack scores: image 0 lacks 4 of 6 columns"):
        appended().merge(other)


def test_an_empty_sweep_merges_into_any_other() -> None:
    sweep = appended(2)
    sweep.merge(Sweep(PAIRS, SEEN))
    empty = Sweep(PAIRS, SEEN)
    empty.merge(sweep)
    empty.update(ONE, [0], [0])
    assert (sweep.compute().n_seen, empty.compute().n_seen) == (2, 3)
