"""The pairs of the columns of a score file, and the labels of its images, by name and by number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from czslkit.errors import ConfigError, CzslkitError, DataError
from czslkit.evaluation.score_labels import checked_labels, label_space, pair_mask, read_labels

PAIRS = [("wet", "dog"), ("old", "cat"), ("dry", "cat"), ("dry", "dog"), ("old", "dog"), ("wet", "cat")]
SEEN = [("dry", "cat"), ("wet", "dog"), ("old", "cat")]
SPACE = label_space(PAIRS, SEEN)


def test_words_are_numbered_as_sorted() -> None:
    assert SPACE.attrs == ("dry", "old", "wet") and SPACE.objs == ("cat", "dog")
    assert SPACE.pairs.tolist() == [[2, 1], [1, 0], [0, 0], [0, 1], [1, 1], [2, 0]]
    assert SPACE.seen.tolist() == [True, True, True, False, False, False]
    assert pair_mask(PAIRS, [("old", "dog")], "candidate").tolist() == [False] * 4 + [True, False]


def test_labels_are_read_by_name(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("\ufeffwet dog\n\ndry  cat \nwet dog\n", encoding="utf-8")
    attr, obj = read_labels(file, SPACE)
    assert (attr.tolist(), obj.tolist()) == ([2, 0, 2], [1, 0, 1])


RULE = "attr and obj are positions in the sorted attributes and objects"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: label_space([], []), "there are no pairs: expected an 'attribute object' for each column"),
        (
            lambda: label_space(PAIRS, [*SEEN, ("wet", "dgo"), ("x", "y")]),
            "2 of 5 seen pairs are not among the 6 columns: wet dgo, x y$",
        ),
        (
            lambda: pair_mask(PAIRS, [(f"a{i}", "dog") for i in range(8)], "candidate"),
            "8 of 8 candidate pairs are not among the 6 columns: a0 dog, .*, a4 dog and 3 more$",
        ),
        (
            lambda: checked_labels((torch.tensor([0, 3]), torch.tensor([0, 0])), SPACE),
            f"image 1 has attr 3, expected 0 to 2: {RULE}",
        ),
        (
            lambda: checked_labels((torch.tensor([0]), torch.tensor([-1])), SPACE),
            f"image 0 has obj -1, expected 0 to 1: {RULE}",
        ),
        (
            lambda: checked_labels((torch.tensor([0, 1]), torch.tensor([0, 0])), label_space(PAIRS[2:], SEEN[:1])),
            f"image 1 has attr 1 and obj 0, which is old cat, not among the 4 columns: {RULE}",
        ),
    ],
)
def test_pairs_and_labels_that_do_not_fit_are_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("wet dog\nwet\n", DataError, r":2: 'wet' is not 'attr obj'\n.*: 1 mistakes in all"),
        ("wet dog\n\nwet dgo\n", ConfigError, ":3: images show pairs that are not among the 6 columns: wet dgo$"),
        (None, DataError, " cannot be read: "),
    ],
)
def test_labels_that_cannot_be_used_are_named(
    tmp_path: Path, text: str | None, kind: type[CzslkitError], message: str
) -> None:
    file = tmp_path / "labels.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(kind, match=f"^{file}{message}"):
        read_labels(file, SPACE)
