from __future__ import annotations

import pytest
import torch

import czslkit
from czslkit.errors import ConfigError
from czslkit.explain import pairs as pairs_module
from czslkit.explain.explanation import explain_picture, ranked_rows, table_row
from czslkit.explain.pairs import highest_ranked_pairs
from czslkit.named_pairs import parse_pairs
from czslkit.types import Explanation, Scores, Setting


@pytest.fixture
def method(clip_file, space):
    torch.manual_seed(0)
    return czslkit.build("troika", space, backbone=str(clip_file), adapter_dim=4, heads=4, layers=2).eval()


def test_pairs_are_parsed_once_each_in_the_order_of_the_text(space):
    attr, obj = space.attrs[1], space.objs[0]
    text = f"{attr} {obj}, {space.attrs[0]}  {obj},{attr} {obj} "
    assert parse_pairs(text, space).tolist() == [[1, 0], [0, 0]]


def test_every_mistake_in_pairs_is_named(space):
    with pytest.raises(ConfigError) as raised:
        parse_pairs(f"{space.attrs[0]},nonsense {space.objs[0]},{space.attrs[0]} nonsense", space)
    sizes = (len(space.attrs), len(space.objs))
    assert raised.value.problems == (
        f"{space.attrs[0]!r} is not an attribute and an object, such as 'wet dog', "
        "or 'wet+tin can' if a word has spaces.",
        f"no attribute named 'nonsense' among the {sizes[0]} attributes of the checkpoint.",
        f"no object named 'nonsense' among the {sizes[1]} objects of the checkpoint.",
    )


def test_names_with_spaces_are_suggested_in_the_form_that_works():
    pairs = torch.tensor([[0, 0], [1, 0]])
    space = czslkit.PairSpace(("wet", "dark red"), ("tin can",), pairs, torch.tensor([True, True]))
    with pytest.raises(ConfigError) as raised:
        parse_pairs("wet tin can,dark red tin can,wet tin_can,dark_red+tin can", space)
    problems = raised.value.problems
    forms = ("wet+tin can", "dark red+tin can", "wet+tin can", "dark red+tin can")
    for problem, part, form in zip(
        problems, ("wet tin can", "dark red tin can", "tin_can", "dark_red"), forms, strict=True
    ):
        assert repr(part) in problem
        assert problem.removesuffix("?").endswith(repr(form))
        assert len(parse_pairs(form, space)) == 1


@pytest.mark.parametrize("size", [1, 2, 100])
@torch.no_grad()
def test_the_highest_ranked_pairs_do_not_depend_on_the_chunks(method, images, monkeypatch, size):
    monkeypatch.setattr(pairs_module, "_PAIRS_PER_CHUNK", size)
    setting = Setting("test", "closed", len(method.space.pairs))
    image = method.encode(images[:1])
    ranked = method.rank(image, method.text(method.space.pairs), setting)[0]
    found = highest_ranked_pairs(method, image, method.space.pairs, 3, setting)
    assert found.tolist() == method.space.pairs[ranked.argsort(descending=True, stable=True)[:3]].tolist()


def test_a_row_holds_the_contribution_of_each_stage_to_each_text(space):
    contribution = {
        "local": {"pair": torch.tensor([[0.2, 0.6]]), "attr": torch.tensor([[0.1, 0.25]])},
        "global": {"pair": torch.tensor([[0.8, 0.4]]), "attr": torch.tensor([[0.9, 0.75]])},
    }
    pairs = torch.tensor([[0, 0], [1, 0]])
    ranked = torch.tensor([[0.5, 1.5]])
    explanation = Explanation({}, {}, contribution, pairs, Scores(ranked), ranked)
    assert table_row(explanation, space, 1) == {
        "pair": f"{space.attrs[1]} {space.objs[0]}",
        "score": 1.5,
        "local/global: pair": "60%/40%",
        "local/global: attr": "25%/75%",
    }


def test_pairs_that_are_not_named_are_the_highest_ranked_ones(method):
    from PIL import Image

    picture = Image.new("RGB", (method.backbone.image_size,) * 2, "red")
    every = explain_picture(method, picture, method.space.pairs)
    found = explain_picture(method, picture, top=2)
    assert found.pairs.tolist() == [every.pairs[row].tolist() for row in ranked_rows(every, top=2)]
    assert not found.ranked.requires_grad


def test_a_method_that_adapts_to_a_stream_ranks_no_pairs_of_one_image(method, images, monkeypatch):
    monkeypatch.setattr(type(method), "streams", True)
    message = rf"^{type(method).__name__} adapts to a stream of images and ranks no pairs of one image: name the pairs$"
    with pytest.raises(ConfigError, match=message):
        highest_ranked_pairs(method, images[:1], method.space.pairs, 3, Setting())


def test_words_with_spaces_are_parted_by_a_plus() -> None:
    pairs, seen = torch.tensor([[0, 0], [1, 1]]), torch.tensor([True, True])
    space = czslkit.PairSpace(("light blue", "wet"), ("dog", "teddy bear"), pairs, seen)
    assert parse_pairs("light blue+dog, wet+teddy bear,wet dog", space).tolist() == [[0, 0], [1, 1], [1, 0]]
    with pytest.raises(ConfigError, match="no object named 'cat' among the 2 objects"):
        parse_pairs("light blue+cat", space)
