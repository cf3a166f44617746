"""Draw an explanation as one figure with a line of maps for every pair.

A line shows the picture and, for each branch (pair, attribute, object), a map of every attention stage and a bar of the
contributions of all stages.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from ..report.figure_style import COLOURS, INK, own_settings, shown
from ..types import Explanation, PairSpace
from .explanation import ranked_rows
from .heat import heat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# lengths in inches
_MAP, _LINE_OF_MAPS, _BAR, _CAPTION = (
    2.5,
    3.05,
    0.55,
    1.1,
)  # widths of a map, and heights of all maps, a bar and the end
_HEADING_FONT, _TITLE_FONT, _NOTE_FONT = 13, 9.5, 7.5  # points
_FAINT = "#6a6a6a"
_OPACITY = 0.8  # of a map where attention is largest
_HEAT = "inferno"  # lighter in even steps, so that readers who confuse hues see the same


@dataclass(frozen=True)
class _Branch:
    """The words, attention and contributions of one text in one image, for one branch of one pair."""

    name: str  # the text's words
    attention: dict[str, Tensor]  # by stage, [T]
    contribution: dict[str, float]  # by stage, from 0 to 1


@own_settings()
def draw(
    picture: Image.Image, explanation: Explanation, space: PairSpace, *, image: int = 0, top: int | None = None
) -> Figure:
    """Draw one image of an explanation, with a line for each pair, the highest-ranked pair first.

    Args:
        picture: the square picture that the method got, before normalisation.
        explanation: explanation of the picture and possibly of other images.
        space: the attributes and objects, for their names.
        image: index of the picture within the explanation.
        top: number of highest-ranked pairs to draw; all if None.

    Raises:
        CzslkitError: the patches do not form a square.
    """
    from matplotlib.figure import Figure

    rows = ranked_rows(explanation, image, top)
    stages = len(explanation.attention)
    maps = stages * len(next(iter(explanation.attention.values())))
    height = _LINE_OF_MAPS + (_BAR if stages > 1 else 0)
    figure = Figure(figsize=(_MAP * (1 + maps), len(rows) * height + _CAPTION))  # a layout engine takes seconds here
    heights = [*[height] * len(rows), _CAPTION]
    *lines, end = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).ravel()
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1):
        branches = _branches(explanation, space, image, row)
        heading = f"{number}.  {branches[0].name}     score {explanation.ranked[image, row]:.3f}"
        line.suptitle(shown(heading, 100), x=0.1 / (1 + maps), ha="left", fontsize=_HEADING_FONT, color=INK)
        _draw_line(line, picture, branches)
    _draw_caption(end, _MAP * (1 + maps), several_stages=stages > 1)
    return figure


def _branches(explanation: Explanation, space: PairSpace, image: int, row: int) -> list[_Branch]:
    """Return the branches of one pair, the branch of the pair first."""
    attr, obj = explanation.pairs[row].tolist()
    names = {"pair": f"{space.attrs[attr]} {space.objs[obj]}", "attr": space.attrs[attr], "obj": space.objs[obj]}
    text_of_branch = {"pair": row, "attr": attr, "obj": obj}
    stages = list(explanation.attention)
    return [
        _Branch(
            names[branch],
            {stage: explanation.attention[stage][branch][image, text_of_branch[branch]] for stage in stages},
            {stage: float(explanation.contribution[stage][branch][image, text_of_branch[branch]]) for stage in stages},
        )
        for branch in explanation.attention[stages[0]]
    ]


def _draw_line(line: SubFigure, picture: Image.Image, branches: list[_Branch]) -> None:
    """Draw the picture, the maps and the bars of one pair."""
    stages = len(branches[0].attention)
    ratios = [_LINE_OF_MAPS, _BAR] if stages > 1 else [_LINE_OF_MAPS]
    columns = 1 + stages * len(branches)
    edges = {"left": 0.1 / columns, "right": 1 - 0.1 / columns, "top": 0.82, "bottom": 0.13 if stages > 1 else 0.08}
    grid = line.add_gridspec(len(ratios), columns, height_ratios=ratios, wspace=0.1, hspace=0.22, **edges)
    whole = line.add_subplot(grid[0, 0], xticks=[], yticks=[])
    whole.set_title("image", color=_FAINT, fontsize=_TITLE_FONT, loc="left")
    whole.imshow(picture.convert("RGB"))
    for i, branch in enumerate(branches):
        first = 1 + i * stages
        for j, (stage, attention) in enumerate(branch.attention.items()):
            axes = line.add_subplot(grid[0, first + j], xticks=[], yticks=[])
            _draw_map(axes, picture, attention, f"{branch.name}: {stage}")
        if stages > 1:
            _draw_bar(line.add_subplot(grid[1, first : first + stages]), branch.contribution)


def _draw_map(axes: Axes, picture: Image.Image, attention: Tensor, title: str) -> None:
    """Draw a heat map over the picture in grey, with a title above it and the attention in numbers below it."""
    from matplotlib.transforms import Bbox, TransformedBbox

    heat, patches = heat_map(attention), attention[1:]
    axes.imshow(picture.convert("L"), cmap="gray", vmin=0, vmax=255, extent=(0, 1, 0, 1))
    axes.imshow(heat, cmap=_HEAT, vmin=0, vmax=1, alpha=_OPACITY * heat, extent=(0, 1, 0, 1))
    text = axes.set_title(shown(title), color=INK, fontsize=_TITLE_FONT, loc="left")
    column = TransformedBbox(Bbox(((0, 0), (1.05, 2))), axes.transAxes)
    text.set(clip_on=True, clip_box=column)  # a long name ends before the next map
    note = f"patches {100 * patches.min():.2f}-{patches.max():.2%}, class token {attention[0]:.1%}"
    axes.set_xlabel(note, fontsize=_NOTE_FONT, color=_FAINT)


def _draw_bar(axes: Axes, contribution: dict[str, float]) -> None:
    """Draw the contributions of the stages as parts of one bar, with a legend below."""
    start = 0.0
    for i, (stage, part) in enumerate(contribution.items()):
        axes.barh(0, part, left=start, color=COLOURS[i % len(COLOURS)], label=f"{shown(stage)} {part:.0%}")
        start += part
    axes.set(xlim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        ncols=len(contribution),
        frameon=False,
        borderaxespad=0,
        fontsize=_TITLE_FONT,
    )


def _draw_caption(end: SubFigure, inches: float, *, several_stages: bool) -> None:
    """Draw the colour scale of the maps and the text that explains the figure."""
    from matplotlib.cm import ScalarMappable

    place = end.add_axes((1.25 / inches, 0.8, 2 / inches, 0.12))
    end.colorbar(ScalarMappable(cmap=_HEAT), cax=place, orientation="horizontal", ticks=[])
    place.text(
        -0.03,
        0.5,
        "least attention",
        transform=place.transAxes,
        ha="right",
        va="center",
        color=_FAINT,
        fontsize=_TITLE_FONT,
    )
    place.text(1.03, 0.5, "most", transform=place.transAxes, va="center", color=_FAINT, fontsize=_TITLE_FONT)
    sentences = [
        "Maps: attention of a text to each patch, mean over heads and layers. Every map is scaled from its smallest to "
        "its largest value and interpolated between patches; the brightness of two maps cannot be compared. The class "
        "token is not drawn; the line below a map gives the attention to the patches and to the class token.",
        "Bars: contribution of each stage to the change of a text by the image (norm of the stage's addition, weighted "
        "by the fusion). Contributions have no sign.",
    ]
    lines = [line for text in sentences[: 1 + several_stages] for line in textwrap.wrap(text, int(14 * inches))]
    end.text(0.1 / inches, 0.72, "\n".join(lines), va="top", color=_FAINT, fontsize=_TITLE_FONT)
