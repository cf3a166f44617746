"""The feasibility scores that an evaluation uses: from a file, from a CLIP text tower, or from the method itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..components import Backbone
from ..data.splits import Splits
from ..errors import ConfigError
from ..feasibility_files import feasibility_problem, published_files, read_feasibility, text_feasibility
from ..method import Method
from ..options import user_path
from ..types import PairSpace

#: Values of the setting ``eval.feasibility`` that are not a path.
NAMED_SOURCES = ("file", "clip", "method")


@dataclass(frozen=True, eq=False)
class FeasibilityScores:
    """The feasibility of every combination of attribute and object, and its source."""

    values: Tensor  # [A * O] float32 in [-1, 1], in product(attrs, objs) order
    source: str  # "clip", "method", the name of a published file, or the path that was given

    @property
    def digest(self) -> str:
        """The SHA-256 of the values as little-endian float32, in hex; it does not depend on the file format."""
        return hashlib.sha256(self.values.numpy().astype("<f4").tobytes()).hexdigest()


def source_file(source: str, data: Splits) -> Path | None:
    """Return the file that a setting refers to; None without a file, and for ``file`` if there is no published file.

    Args:
        source: the setting: ``file``, ``clip``, ``method`` or a path.
        data: the dataset whose published file ``file`` refers to.
    """
    if source in ("clip", "method"):
        return None
    if source == "file":
        return next((file for file in published_files(data.name, data.root) if file.is_file()), None)
    return user_path(source)


def load_feasibility(source: str, data: Splits, backbone: Backbone) -> FeasibilityScores | None:
    """Return the feasibility scores that a setting refers to.

    Args:
        source: ``file``, ``clip``, or the path of feasibility scores or of word vectors; for ``method``, see
            :func:`method_feasibility`.
        data: the dataset.
        backbone: encodes texts if ``source`` is ``clip``.

    Returns:
        None if ``source`` is ``file`` and there is no published file.

    Raises:
        DataError: a file cannot be read, or does not fit the dataset.
        ConfigError: ``source`` is ``clip``, and the backbone has no text tower.
    """
    if source == "clip":
        return clip_feasibility(backbone, data.space)
    file = source_file(source, data)
    if file is None:
        return None
    return FeasibilityScores(read_feasibility(file, data.space), file.name if source == "file" else source)


def clip_feasibility(backbone: Backbone, space: PairSpace) -> FeasibilityScores:
    """Return the scores of :func:`czslkit.feasibility_files.text_feasibility`; see it for arguments and errors."""
    return FeasibilityScores(text_feasibility(backbone, space), "clip")


def method_feasibility(method: Method) -> FeasibilityScores:
    """Return the feasibility scores that a trained method has itself; the method is left in evaluation mode.

    Raises:
        ConfigError: the method has none, or does not return one number in [-1, 1] for each combination.
    """
    with torch.no_grad():
        values: Any = method.eval().feasibility()
    source = f"{type(method).__name__}.feasibility()"
    if not isinstance(values, Tensor):
        raise ConfigError([f"{source} holds a {type(values).__name__}, expected a tensor"])
    if problem := feasibility_problem(source, values, method.space):
        raise ConfigError([problem])
    return FeasibilityScores(values.detach().float().cpu(), "method")
