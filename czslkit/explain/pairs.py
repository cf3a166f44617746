"""Find the pairs that a method ranks highest for an image."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError
from ..method import Method, ranked
from ..types import ImageFeatures, Setting

_PAIRS_PER_CHUNK = 2048  # pairs scored at a time, to limit the memory of text features


def highest_ranked_pairs(method: Method, image: ImageFeatures, pairs: Tensor, top: int, setting: Setting) -> Tensor:
    """Return the ``top`` pairs of ``pairs`` ``[P, 2]`` that a method ranks highest for one image, ``[top, 2]``.

    Args:
        image: features of one image.
        setting: split, world and number of candidates, as for ``Method.rank``.

    Raises:
        CzslkitError: the method's texts do not attend to an image; raised before the slow scoring of all pairs.
        ConfigError: the method ranks pairs only in a stream of images.
    """
    if method.streams:
        name = type(method).__name__
        raise ConfigError([f"{name} adapts to a stream of images and ranks no pairs of one image: name the pairs"])
    method.explain(image, method.text(pairs[:1]))
    text = method.text(pairs)
    step = _PAIRS_PER_CHUNK if method.chunkable else len(pairs)
    chunks = [text.rows(slice(start, start + step)) for start in range(0, len(pairs), step)]
    scores = torch.cat([ranked(method, image, chunk, setting)[0] for chunk in chunks])
    return pairs[scores.argsort(descending=True, stable=True)[:top]]
