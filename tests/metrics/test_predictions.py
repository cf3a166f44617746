"""The file of predicted pairs, whole and damaged."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from czslkit.metrics import predictions as module
from czslkit.metrics.predictions import Predictions

FOUND = Predictions(
    "/data/pets/images", ["a/1.jpg", "b/2.jpg"], [("wet", "dog", True), ("dry", "dog", False)], [0, 1], [1, 1]
)


def test_predictions_are_read_as_they_were_written() -> None:
    assert Predictions.from_bytes(FOUND.to_bytes()) == FOUND
    assert len(FOUND) == 2


def test_the_same_predictions_give_the_same_bytes() -> None:
    assert FOUND.to_bytes() == FOUND.to_bytes()


def changed(**entries: Any) -> bytes:
    content = json.loads(gzip.decompress(FOUND.to_bytes())) | entries
    return gzip.compress(json.dumps(content).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "holds no predictions: Not a gzipped file"),
        (FOUND.to_bytes()[:-9], "holds no predictions: Compressed file ended before"),
        (gzip.compress(b"torn", mtime=0), "Expecting value"),
        (gzip.compress(b"[]", mtime=0), "does not have format 1"),
        (changed(format=2), "does not have format 1"),
        (changed(folder=3), "lacks the text folder or one of the lists images, pairs, true, predicted"),
        (changed(true=None), "lacks the text folder or one of the lists"),
        (changed(images=["a", 3]), "has images that are not texts"),
        (changed(pairs=[["wet", "dog"]]), "has pairs that are not an attribute, an object and a flag"),
        (changed(pairs=[["wet", "dog", 1]] * 2), "has pairs that are not an attribute, an object and a flag"),
        (changed(images=["a"]), "has 1 images, 2 true and 2 predicted pairs, expected as many of each"),
        (changed(true=[0, 2]), "has numbers of pairs outside 0 to 1"),
        (changed(predicted=[0, -1]), "has numbers of pairs outside 0 to 1"),
        (changed(predicted=[0, True]), "has numbers of pairs outside 0 to 1"),
    ],
)
def test_another_content_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictions.from_bytes(content)


def test_a_file_that_expands_too_far_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JSON_LIMIT", 1000)
    with pytest.raises(ValueError, match=r"holds more than 1\.0 kB, the largest size that is read"):
        Predictions.from_bytes(gzip.compress(b" " * 1001))
