"""The picture of an explanation has heat where the attention is, and the same picture is drawn every time."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

import czslkit
from czslkit.errors import CzslkitError
from czslkit.explain.drawing import draw
from czslkit.explain.explanation import ranked_rows
from czslkit.explain.heat import heat_map
from czslkit.report.figure_style import rendered
from czslkit.types import Explanation, Scores


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


def lines(figure):
    """Return the subfigure of each pair."""
    return figure.subfigs[:-1]


def titles(line):
    return [axes.get_title("left") for axes in line.axes if axes.images]


@pytest.mark.parametrize("patch", range(16))
def test_heat_is_where_the_attention_is(patch):
    heat = heat_map(one_hot(patch), 64).reshape(4, 16, 4, 16).sum((1, 3))  # by patch, row by row
    assert heat.argmax() == patch
    row, column = divmod(patch, 4)
    far = [heat[r, c] for r in range(4) for c in range(4) if max(abs(r - row), abs(c - column)) > 1]
    assert max(far) == 0


@pytest.mark.parametrize("patch", range(16))
def test_the_drawing_is_brightest_where_the_attention_is(space, patch):
    """Pixels of the file, since the heat lies over the picture with its own size and opacity."""
    black = Image.new("RGB", (64, 64))
    explanation = explained(space, stages=("traction",))
    explanation.attention["traction"]["pair"][0, 1] = one_hot(patch)
    figure = draw(black, explanation, space, top=1)
    axes = lines(figure)[0].axes[1]
    pixels = np.asarray(Image.open(io.BytesIO(rendered(figure, "png", dpi=100))).convert("L"), int)
    x0, y0, x1, y1 = axes.get_window_extent().extents.round().astype(int)
    inside = pixels[len(pixels) - y1 + 2 : len(pixels) - y0 - 2, x0 + 2 : x1 - 2]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    assert (4 * y // inside.shape[0], 4 * x // inside.shape[1]) == divmod(patch, 4)
    assert inside.max() > 150 and np.median(inside) < 20


def test_without_heat_a_picture_is_grey_and_nothing_covers_it(picture, space):
    explanation = explained(space)
    explanation.attention["local"]["pair"][0, 1] = 1 / 17
    grey, heat = lines(draw(picture, explanation, space, top=1))[0].axes[1].images
    assert np.array_equal(grey.get_array(), np.asarray(picture.convert("L")))
    assert (grey.get_cmap().name, grey.get_clim()) == ("gray", (0, 255))
    assert not heat.get_alpha().any()


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
def test_patches_must_form_a_square(patches):
    with pytest.raises(CzslkitError, match=f"^{patches} patches cannot be drawn: expected a square of them"):
        heat_map(torch.rand(1 + patches))


def test_a_sheet_of_patches_that_form_no_square_is_refused(picture, space):
    with pytest.raises(CzslkitError, match=r"^12 patches cannot be drawn"):
        draw(picture, explained(space, tokens=13), space)


def test_colours_grow_lighter_in_even_steps(picture, space):
    heat = lines(draw(picture, explained(space), space, top=1))[0].axes[1].images[1]
    assert heat.get_clim() == (0, 1)
    rgb = heat.get_cmap()(np.linspace(0, 1, 33))[:, :3]
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


def test_a_figure_has_a_line_for_every_pair_and_a_column_for_every_map(picture, space):
    three, one = (draw(picture, explained(space), space, top=top) for top in (3, 1))
    assert three.get_figwidth() == one.get_figwidth()
    assert [len(lines(figure)) for figure in (three, one, draw(picture, explained(space), space))] == [3, 1, 5]
    stages = draw(picture, explained(space, stages=("traction",)), space)
    assert [len(titles(lines(figure)[0])) for figure in (one, stages)] == [1 + 3 * 2, 1 + 3]


def test_a_figure_shows_the_picture_and_the_maps_of_each_branch_and_stage(picture, space):
    explanation = explained(space)
    figure = draw(picture, explanation, space, image=1, top=2)
    for number, (line, pair) in enumerate(zip(lines(figure), (4, 3), strict=True), 1):
        attr, obj = space.pairs[pair].tolist()
        words = {"pair": f"{space.attrs[attr]} {space.objs[obj]}", "attr": space.attrs[attr], "obj": space.objs[obj]}
        texts = {"pair": pair, "attr": attr, "obj": obj}
        maps = [(branch, stage) for branch in texts for stage in ("local", "global")]
        heading = f"{number}.  {words['pair']}     score {explanation.ranked[1, pair]:.3f}"
        assert line.get_suptitle() == heading
        assert titles(line) == ["image", *(f"{words[branch]}: {stage}" for branch, stage in maps)]
        whole, *others = [axes for axes in line.axes if axes.images]
        assert np.array_equal(whole.images[0].get_array(), np.asarray(picture))
        for axes, (branch, stage) in zip(others, maps, strict=True):
            attention = explanation.attention[stage][branch][1, texts[branch]]
            expected = heat_map(attention)
            assert np.array_equal(axes.images[1].get_array(), expected)
            assert np.array_equal(axes.images[1].get_alpha(), 0.8 * expected)
            assert axes.get_xlabel().endswith(f"class token {attention[0]:.1%}")


@pytest.mark.parametrize("contribution", [0.0, 0.25, 1.0])
def test_a_bar_is_divided_by_the_contributions(picture, space, contribution):
    (line,) = lines(draw(picture, explained(space, contribution=contribution), space, top=1))
    bars = [axes for axes in line.axes if axes.patches]
    assert len(bars) == 3
    for axes in bars:
        local, whole = axes.patches
        assert (local.get_x(), local.get_width()) == (0, pytest.approx(contribution))
        assert local.get_facecolor() != whole.get_facecolor()
        assert (whole.get_x(), whole.get_width()) == (pytest.approx(contribution), pytest.approx(1 - contribution))
        named = [text.get_text() for text in axes.get_legend().get_texts()]
        assert named == [f"local {contribution:.0%}", f"global {1 - contribution:.0%}"]


def test_one_stage_alone_has_no_bar(picture, space):
    figure = draw(picture, explained(space, stages=("traction",)), space, top=1)
    assert not [axes for axes in lines(figure)[0].axes if axes.patches]
    assert not [text for text in figure.subfigs[-1].texts if "Bars" in text.get_text()]


def test_the_same_explanation_is_drawn_the_same(picture, space):
    first, second = (rendered(draw(picture, explained(space), space, top=1), "png", dpi=100) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("letter", ["m", "$", "_"])
def test_long_names_are_cut_before_they_reach_the_next_column(picture, letter):
    space = czslkit.PairSpace((40 * letter,), ("long" * 40,), torch.tensor([[0, 0]]), torch.tensor([True]))
    figure = draw(picture, explained(space, pairs=1), space)
    figure.draw_without_rendering()
    (line,) = lines(figure)
    shown = [axes._left_title.get_tightbbox() for axes in line.axes if axes.images]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(shown))


def test_no_text_of_a_figure_lies_outside_of_it_or_over_another_text(picture, space):
    for stages in (("local", "global"), ("traction",)):
        figure = draw(picture, explained(space, stages=stages), space, top=2)
        figure.draw_without_rendering()
        texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
        boxes = [text.get_tightbbox() for text in texts]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
        for one, other in itertools.combinations(zip(texts, boxes, strict=True), 2):
            assert not one[1].overlaps(other[1]), (one[0].get_text(), other[0].get_text())


def test_nothing_drawn_on_changes(picture, space):
    kept, explanation = picture.copy(), explained(space)
    attention = explanation.attention["local"]["pair"].clone()
    draw(picture, explanation, space)
    assert np.array_equal(np.asarray(picture), np.asarray(kept))
    assert torch.equal(explanation.attention["local"]["pair"], attention)
