import time

import pytest
import torch

from czslkit import Batch, PairSpace
from czslkit.types import pair_targets

PAIRS, SEEN = torch.tensor([[0, 0], [1, 2]]), torch.tensor([True, False])


@pytest.mark.parametrize(
    ("attrs", "objs", "pairs", "seen", "message"),
    [
        ((), ("a",), PAIRS, SEEN, "at least one attribute, got none"),
        (("a",), (), PAIRS, SEEN, "at least one object, got none"),
        (("a", "a"), ("x", "y", "z"), PAIRS, SEEN, "attribute names must differ, got more than once: a"),
        (("a", "b"), ("x", "y", "z"), PAIRS, SEEN[:1], r"2 pairs but seen is \[1\], expected \[2\]"),
        (("a", "b"), ("x", "y"), PAIRS, SEEN, r"pair \(1, 2\) is outside 2 attributes x 2 objects"),
        (("a", "b"), ("x", "y"), PAIRS[[0, 0]], SEEN, "pairs must differ, got 2 pairs of which 1 are distinct"),
    ],
)
def test_a_label_space_checks_itself(attrs, objs, pairs, seen, message):
    with pytest.raises(ValueError, match=message):
        PairSpace(attrs, objs, pairs, seen)


def test_the_open_world_is_the_product_in_order():
    space = PairSpace(["a", "b"], ["x", "y", "z"], PAIRS, SEEN).open()
    assert space.pairs.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert space.seen.tolist() == [True, False, False, False, False, False]
    assert space.flat().tolist() == list(range(6))


def test_an_image_of_no_candidate_is_named():
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"image 1 of the batch shows pair \(1, 1\).*2 candidates"):
        pair_targets(batch, PAIRS)


def test_many_names_are_checked_at_once_and_the_repeated_ones_are_named():
    names = tuple(f"word{i}" for i in range(60_000))
    started = time.process_time()
    space = PairSpace(names, names, torch.tensor([[0, 59_999]]), torch.tensor([True]))
    assert time.process_time() - started < 2
    assert len(space.attrs) == 60_000
    with pytest.raises(ValueError, match=r"object names must differ, got more than once: word3, word7$"):
        PairSpace(names, (*names, "word7", "word3", "word7"), torch.tensor([[0, 0]]), torch.tensor([True]))
