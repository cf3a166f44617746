from __future__ import annotations

import pytest

from czslkit.data.splits import Splits


def test_the_candidates_of_a_split_are_its_own_pairs_and_those_of_training(splits: Splits) -> None:
    assert splits.candidates("val").tolist() == [True, True, False, True]
    assert splits.candidates("test").tolist() == [True, False, True, True]


def test_there_are_no_candidates_of_training(splits: Splits) -> None:
    with pytest.raises(ValueError, match="candidates of split 'train' were requested, expected 'val' or 'test'"):
        splits.candidates("train")
