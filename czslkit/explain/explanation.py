"""Compute the explanation of one picture, and arrange its pairs as rows of a printed table."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ..data.image_transforms import to_normalized_tensor
from ..method import Method
from ..types import Explanation, PairSpace, Setting
from .pairs import highest_ranked_pairs


@torch.no_grad()
def explain_picture(method: Method, picture: Image.Image, pairs: Tensor | None = None, top: int = 3) -> Explanation:
    """Explain how a method scores pairs for one picture.

    Scores are fused as in the test in the closed world.

    Args:
        method: in evaluation mode, on any device.
        picture: picture resized and cropped as the method's backbone needs it.
        pairs: ``[P, 2]`` long, pairs to explain; if None, the ``top`` pairs that the method ranks highest.
        top: number of pairs to explain if ``pairs`` is None.

    Raises:
        CzslkitError: the method's texts do not attend to an image.
    """
    backbone = method.backbone
    device = next(method.parameters()).device
    known_pairs = method.space.pairs.to(device)
    setting = Setting("test", "closed", len(known_pairs))
    image = method.encode(to_normalized_tensor(picture, backbone.mean, backbone.std)[None].to(device))
    if pairs is None:
        pairs = highest_ranked_pairs(method, image, known_pairs, top, setting)
    return method.explain(image, method.text(pairs.to(device)), setting)


def ranked_rows(explanation: Explanation, image: int = 0, top: int | None = None) -> list[int]:
    """Return the rows of ``explanation.pairs`` from the highest-ranked pair of an image to the lowest-ranked one.

    Pairs of equal rank keep their order.

    Args:
        image: index of the image within the explanation.
        top: number of rows to return; all if None.
    """
    order: list[int] = explanation.ranked[image].argsort(descending=True, stable=True).tolist()
    return order[:top]


def table_row(explanation: Explanation, space: PairSpace, row: int) -> dict[str, str | float]:
    """Return the names and values of one row of the printed table, for the first image of an explanation.

    The columns are the pair, its score and, if the interaction has several stages, the contribution of every stage to
    the pair's text, to its attribute's text and to its object's text.

    Args:
        row: row of ``explanation.pairs``.
    """
    attr, obj = explanation.pairs[row].tolist()
    values: dict[str, str | float] = {
        "pair": f"{space.attrs[attr]} {space.objs[obj]}",
        "score": float(explanation.ranked[0, row]),
    }
    stages = list(explanation.contribution)
    if len(stages) > 1:
        text_of_branch = {"pair": row, "attr": attr, "obj": obj}
        for branch in explanation.contribution[stages[0]]:
            text = text_of_branch[branch]
            parts = [f"{explanation.contribution[stage][branch][0, text]:.0%}" for stage in stages]
            values[f"{'/'.join(stages)}: {branch}"] = "/".join(parts)
    return values
