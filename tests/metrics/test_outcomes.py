from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from czslkit.metrics.outcomes import Outcomes


def outcomes(n: int = 4, **changed: Any) -> Outcomes:
    flags = ("is_seen", "reachable", "wins_tie", "right_at_last_bias", "attr_right", "obj_right")
    columns: dict[str, Any] = {name: np.arange(n) % 2 == 0 for name in flags}
    columns |= {"target": np.arange(n, dtype=np.int32), "proposed_bias": np.full(n, np.nan, dtype=np.float32)}
    columns |= {"true_score": np.linspace(1, 2, n), "runner_up_score": np.full(n, -np.inf)}
    return Outcomes(**{**columns, **changed})


def test_what_is_written_is_read() -> None:
    made = outcomes(true_score=np.array([0.5, 0.25, 1.0, 2.0]))
    read = Outcomes.from_bytes(made.to_bytes())
    for name, values in vars(made).items():
        assert np.array_equal(getattr(read, name), values, equal_nan=name == "proposed_bias"), name


def test_the_same_numbers_make_the_same_file() -> None:
    assert outcomes().to_bytes() == outcomes().to_bytes()


@pytest.mark.parametrize(("scores", "kind"), [([0.5, 1.5], np.float32), ([0.1, 0.2], np.float64)])
def test_scores_are_kept_short_where_that_loses_nothing(scores: list[float], kind: Any) -> None:
    read = Outcomes.from_bytes(outcomes(2, true_score=np.array(scores)).to_bytes())
    assert read.true_score.dtype == kind
    assert read.true_score.tolist() == scores


KEYS = {
    "reachable": "open",
    "true_score": "true",
    "runner_up_score": "rival",
    "proposed_bias": "bias",
    "right_at_last_bias": "at_last",
    "attr_right": "attr",
    "obj_right": "obj",
}


def test_a_file_has_the_keys_of_format_1() -> None:
    made = outcomes()
    with np.load(io.BytesIO(made.to_bytes())) as file:
        assert file.files == [
            *("format", "target", "is_seen", "open", "true", "rival", "wins_tie", "bias", "at_last", "attr", "obj")
        ]
        assert int(file["format"]) == 1
        for name, values in vars(made).items():
            assert np.array_equal(file[KEYS.get(name, name)], values, equal_nan=name == "proposed_bias"), name


def test_a_file_with_the_keys_of_format_1_is_read() -> None:
    numbers = {"target": np.arange(2, dtype=np.int32), "true": np.array([0.5, 1.0]), "rival": np.array([0.25, 2.0])}
    numbers |= {"bias": np.array([np.nan, 1.0], dtype=np.float32)}
    flags = ("is_seen", "open", "wins_tie", "at_last", "attr", "obj")
    numbers |= {key: np.array([bool(i & 1 << n) for n in (0, 1)]) for i, key in enumerate(flags)}
    read = Outcomes.from_bytes(archive(format=np.int32(1), **numbers))
    for name, values in vars(read).items():
        assert np.array_equal(values, numbers[KEYS.get(name, name)], equal_nan=name == "proposed_bias"), name


def test_images_are_the_same_if_they_show_the_same_in_the_same_order() -> None:
    assert outcomes().images_digest() == outcomes(true_score=np.zeros(4)).images_digest()
    assert outcomes().images_digest() != outcomes(5).images_digest()
    assert outcomes().images_digest() != outcomes(target=np.array([0, 1, 3, 2], dtype=np.int32)).images_digest()
    assert outcomes().images_digest() != outcomes(is_seen=np.zeros(4, dtype=bool)).images_digest()


def test_a_column_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"runner_up_score is \[3\], target \[4\]: expected \[N\] each"):
        outcomes(runner_up_score=np.zeros(3))


def archive(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no numbers per image"),
        (b"PK\x03\x04 cut short", "holds no numbers per image"),
        (outcomes().to_bytes()[:-30], "holds no numbers per image"),
        (archive(format=np.array([{}], dtype=object)), r"holds format as object \[1\], expected one number"),
        (archive(format=np.float64(1)), r"holds format as float64 \[\], expected one number"),
        (archive(target=np.zeros(2)), "has numbers per image of format 0, this czslkit reads format 1"),
        (archive(format=np.int32(2)), "has numbers per image of format 2, this czslkit reads format 1"),
        (archive(format=np.int32(1), target=np.zeros(2)), "lacks is_seen, open, true, .* per image"),
    ],
)
def test_a_file_of_something_else_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Outcomes.from_bytes(content)
