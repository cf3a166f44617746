"""The picture of an explanation has heat where the attention is, and the same picture is drawn every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import czslkit
from czslkit.errors import CzslkitError
from czslkit.explain.drawing import draw
from czslkit.explain.explanation import ranked_rows
from czslkit.explain.heat import PANEL, colours, heat_map, overlay
from czslkit.types import Explanation, Scores

BLUE, ORANGE = (0, 114, 178), (230, 159, 0)  # of the first and the second stage in a bar


@pytest.fixture
def picture():
    """A picture of 64 x 64 pixels of noise."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def explained(space, stages=("local", "global"), contribution=0.25, tokens=17, pairs=5):
    """An explanation of two images in which the first stage has ``contribution`` everywhere."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"pair": pairs, "attr": len(space.attrs), "obj": len(space.objs)}

    def attention(n):
        return torch.randn(2, n, tokens, generator=generator).softmax(-1)

    contributions = [1.0] if len(stages) == 1 else [contribution, 1 - contribution]
    ranked = torch.tensor([[0.1, 0.5, 0.3, 0.5, -0.2], [1.0, 2.0, 3.0, 4.0, 5.0]])[:, :pairs]
    return Explanation(
        attention={stage: {branch: attention(n) for branch, n in sizes.items()} for stage in stages},
        weights={stage: {branch: torch.full((2, n, 8), 0.1) for branch, n in sizes.items()} for stage in stages},
        contribution={
            stage: {branch: torch.full((2, n), value) for branch, n in sizes.items()}
            for stage, value in zip(stages, contributions, strict=True)
        },
        pairs=space.pairs[:pairs],
        scores=Scores(ranked),
        ranked=ranked,
    )


def one_hot(patch, patches=16):
    attention = torch.zeros(1 + patches)
    attention[1 + patch] = 1.0
    return attention


def panel(sheet, row, column):
    """Return a map or the image from a sheet of two stages."""
    x = 16 + (column > 0) * (PANEL + 22) + max(0, column - 1) * (PANEL + 6) + max(0, column - 1) // 2 * 16
    y = 16 + 30 + 19 + row * 345
    return np.asarray(sheet.crop((x, y, x + PANEL, y + PANEL)), int)


@pytest.mark.parametrize("patch", range(16))
def test_heat_is_where_the_attention_is(picture, patch):
    cold = np.asarray(overlay(picture, torch.zeros(17), 64), int)
    warm = np.asarray(overlay(picture, one_hot(patch), 64), int)
    change = abs(warm - cold).sum(-1).reshape(4, 16, 4, 16).sum((1, 3))  # by patch, row by row
    assert change.argmax() == patch
    row, column = divmod(patch, 4)
    far = [change[r, c] for r in range(4) for c in range(4) if max(abs(r - row), abs(c - column)) > 1]
    assert max(far) == 0


def test_without_heat_a_picture_is_grey_and_otherwise_as_it_was(picture):
    cold = np.asarray(overlay(picture, torch.full((17,), 1 / 17), 64))
    assert np.array_equal(cold, np.asarray(picture.convert("L").convert("RGB")))


def test_heat_runs_from_a_maps_least_to_its_most_whatever_they_are():
    attention = torch.rand(17, generator=torch.Generator().manual_seed(0))
    heat = heat_map(attention, 16)
    assert heat.min() >= 0 and heat.max() <= 1
    np.testing.assert_allclose(heat_map(3 * attention + 1, 16), heat, atol=1e-5)


def test_the_class_token_is_not_in_the_map():
    attention = torch.rand(17, generator=torch.Generator().manual_seed(0))
    other = attention.clone()
    other[0] = 100
    assert np.array_equal(heat_map(attention), heat_map(other))


def test_between_patches_heat_is_bilinear():
    attention = torch.rand(17, generator=torch.Generator().manual_seed(0))
    patches = (attention[1:] - attention[1:].min()) / (attention[1:].max() - attention[1:].min())
    smooth = torch.nn.functional.interpolate(patches.view(1, 1, 4, 4), size=(64, 64), mode="bilinear")[0, 0]
    np.testing.assert_allclose(heat_map(attention, 64), smooth, atol=1e-4)


def test_attention_in_half_precision_is_drawn():
    assert heat_map(one_hot(3).bfloat16(), 8).max() == 1


@pytest.mark.parametrize("patches", [0, 12, 15])
def test_patches_must_form_a_square(picture, patches):
    with pytest.raises(CzslkitError, match=f"^{patches} patches cannot be drawn: expected a square of them"):
        overlay(picture, torch.rand(1 + patches))


def test_a_sheet_of_patches_that_form_no_square_is_refused(picture, space):
    with pytest.raises(CzslkitError, match=r"^12 patches cannot be drawn"):
        draw(picture, explained(space, tokens=13), space)


def test_colours_grow_lighter_in_even_steps():
    rgb = colours(np.linspace(0, 1, 33)) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    steps = np.diff(lightness)
    assert steps.min() > 0
    assert steps.max() < 2 * steps.mean()
    assert lightness[0] < 2
    assert lightness[-1] > 95


def test_the_highest_ranked_pair_comes_first_and_equal_pairs_keep_their_order(space):
    explanation = explained(space)
    assert ranked_rows(explanation) == [1, 3, 2, 0, 4]
    assert ranked_rows(explanation, image=1, top=2) == [4, 3]


def test_a_sheet_has_a_row_for_every_pair_and_a_column_for_every_map(picture, space):
    width = 2 * 16 + PANEL + 3 * (22 + 2 * PANEL + 6)
    three, one = (draw(picture, explained(space), space, top=top) for top in (3, 1))
    assert three.width == one.width == width
    assert three.height - one.height == 2 * 345
    assert draw(picture, explained(space), space).height - one.height == 4 * 345


def test_a_sheet_shows_the_picture_and_the_maps_of_each_branch_and_stage(picture, space):
    explanation = explained(space)
    sheet = draw(picture, explanation, space, image=1, top=2)
    shown = np.asarray(picture.resize((PANEL, PANEL), Image.Resampling.BICUBIC))
    for row, pair in enumerate((4, 3)):
        assert np.array_equal(panel(sheet, row, 0), shown)
        texts = {"pair": pair, "attr": int(space.pairs[pair, 0]), "obj": int(space.pairs[pair, 1])}
        maps = [(branch, stage) for branch in texts for stage in ("local", "global")]
        for column, (branch, stage) in enumerate(maps, 1):
            expected = overlay(picture, explanation.attention[stage][branch][1, texts[branch]])
            assert np.array_equal(panel(sheet, row, column), np.asarray(expected))


@pytest.mark.parametrize("contribution", [0.0, 0.25, 1.0])
def test_a_bar_is_divided_by_the_contributions(picture, space, contribution):
    sheet = np.asarray(draw(picture, explained(space, contribution=contribution), space, top=1))
    bar = sheet[16 + 30 + 19 + PANEL + 19 + 6 + 5]  # a line of pixels through the middle of the three bars
    blue, orange = ((bar == colour).all(-1).sum() for colour in (BLUE, ORANGE))
    assert blue + orange == 3 * (2 * PANEL + 6)
    assert blue == pytest.approx(contribution * 3 * (2 * PANEL + 6), abs=3)


def test_one_stage_alone_has_no_bar(picture, space):
    sheet = draw(picture, explained(space, stages=("traction",)), space, top=1)
    assert sheet.width == 2 * 16 + PANEL + 3 * (22 + PANEL)
    assert not (np.asarray(sheet) == BLUE).all(-1).any()


def test_the_same_explanation_is_drawn_the_same(picture, space, tmp_path):
    for name in ("first", "second"):
        draw(picture, explained(space), space).save(tmp_path / name, "PNG")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_long_names_are_cut_before_they_reach_the_next_column(picture):
    pairs = torch.tensor([[0, 0]])
    space = czslkit.PairSpace(("very" * 40,), ("long" * 40,), pairs, torch.tensor([True]))
    sheet = np.asarray(draw(picture, explained(space, pairs=1), space))
    for column in (1, 3, 5):
        edge = 16 + PANEL + 22 + PANEL + (column - 1) // 2 * (22 + 2 * PANEL + 6)
        assert (sheet[46 : 46 + 18, edge + 1 : edge + 6] == 255).all()
    assert (sheet[:, -15:] == 255).all()


def test_nothing_drawn_on_changes(picture, space):
    kept, explanation = picture.copy(), explained(space)
    attention = explanation.attention["local"]["pair"].clone()
    draw(picture, explanation, space)
    assert np.array_equal(np.asarray(picture), np.asarray(kept))
    assert torch.equal(explanation.attention["local"]["pair"], attention)
