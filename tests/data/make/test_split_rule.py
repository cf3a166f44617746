from __future__ import annotations

import hashlib
from itertools import product

import pytest

from czslkit.data.make.split_rule import assign_splits
from czslkit.errors import DataError

Images = dict[tuple[str, str], list[str]]


def grid(attrs: int = 5, objs: int = 4, images: int = 12) -> Images:
    pairs = product([f"a{n}" for n in range(attrs)], [f"o{n}" for n in range(objs)])
    return {(a, o): [f"{a}_{o}/{n}.jpg" for n in range(images)] for a, o in pairs}


def splits_by_pair(images: Images, **options: float) -> dict[tuple[str, str], list[str]]:
    """The split of every image of each pair."""
    splits = assign_splits(images, **options)  # type: ignore[arg-type]
    assert sorted(splits) == sorted(name for names in images.values() for name in names)
    return {pair: [splits[name] for name in names] for pair, names in images.items()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.1, 0.2, 0.35])
def test_val_and_test_have_seen_and_unseen_pairs_and_training_has_every_word(seed: int, share: float) -> None:
    images = grid()
    splits = splits_by_pair(images, seed=seed, unseen=share)
    seen = {pair for pair, found in splits.items() if "train" in found}
    unseen = images.keys() - seen
    assert len(unseen) == round(share * 20)
    assert all(len(set(splits[pair])) == 1 for pair in unseen), "an unseen pair is in one split"
    in_val, in_test = (sum(splits[pair][0] == split for pair in unseen) for split in ("val", "test"))
    assert in_test - in_val in (0, 1)
    assert {word for pair in seen for word in pair} == {word for pair in images for word in pair}
    for pair in seen:
        assert sorted(splits[pair]) == ["test"] + ["train"] * 10 + ["val"]


@pytest.mark.parametrize(("images", "held"), [(1, 0), (2, 0), (3, 1), (19, 1), (20, 2), (47, 4)])
def test_of_a_seen_pair_a_tenth_goes_to_each_of_val_and_test(images: int, held: int) -> None:
    names = grid() | {("a0", "extra"): [f"x{n}" for n in range(images)], ("a1", "extra"): ["y0", "y1", "y2"]}
    found = next(p for seed in range(9) if "train" in (p := splits_by_pair(names, seed=seed)["a0", "extra"]))
    assert (found.count("val"), found.count("test")) == (held, held)


def test_the_rule_is_the_documented_one() -> None:
    """A second implementation assigns the images of each pair in the order of their digests."""

    def draw(*names: str) -> str:
        return hashlib.sha256("\0".join(("7", *names)).encode()).hexdigest()

    images = grid(4, 3, 25)
    left = sorted(images, key=lambda pair: draw(*pair))
    unseen = []
    for pair in list(left):
        rest = [other for other in left if other != pair]
        if len(unseen) < 3 and pair[0] in {a for a, _ in rest} and pair[1] in {o for _, o in rest}:
            left, unseen = rest, [*unseen, pair]
    expected = {}
    for n, pair in enumerate(unseen):
        expected |= dict.fromkeys(images[pair], "val" if n % 2 else "test")
    for pair in left:
        order = sorted(images[pair], key=draw)
        expected |= dict.fromkeys(order[:2], "test") | dict.fromkeys(order[2:4], "val")
        expected |= dict.fromkeys(order[4:], "train")
    assert assign_splits(images, seed=7, unseen=0.25) == expected


def test_without_unseen_pairs_every_pair_is_in_all_splits() -> None:
    assert {tuple(sorted(set(found))) for found in splits_by_pair(grid(), unseen=0.0).values()} == {
        ("test", "train", "val")
    }


def test_the_splits_never_change() -> None:
    told = "".join(assign_splits(grid())[name][1] for names in grid().values() for name in names)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "c597d2dca01ee0d8"


def test_neither_the_order_of_pairs_nor_of_images_matters() -> None:
    turned = {pair: names[::-1] for pair, names in reversed(grid().items())}
    assert assign_splits(turned, seed=3) == assign_splits(grid(), seed=3)


def test_another_seed_gives_other_splits() -> None:
    assert assign_splits(grid(), seed=1) != assign_splits(grid(), seed=2)


@pytest.mark.parametrize(
    ("images", "share", "said"),
    [
        (
            grid(1, 5),
            0.2,
            r"^0 of 5 pairs \(1 attributes, 5 objects\) can be unseen, but 2 are needed: .* Add pictures of more attr",
        ),
        ({}, 0.2, r"^0 of 0 pairs .* can be unseen, but 2 are needed"),
        (grid(3, 3), 0.9, r"^6 of 9 pairs .* can be unseen, but 8 are needed: .* Ask for a smaller share$"),
        (
            grid(4, 4, 2),
            0.2,
            r"^none of the 13 seen pairs has 3 images, one for each split: add images, or try another seed$",
        ),
    ],
)
def test_too_few_pairs_or_images_are_an_error_that_says_what_is_needed(images: Images, share: float, said: str) -> None:
    with pytest.raises(DataError, match=said):
        assign_splits(images, unseen=share)
