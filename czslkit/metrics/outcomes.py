"""What decides an image at every bias, a few numbers each, and the file they are kept in; numpy alone."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT = 1

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of ``N`` images: enough for both curves, of these images or of any of them drawn anew.

    The true pair of an image and one rival, the best pair of the other kind (seen or unseen), decide at which biases
    the image is right.
    """

    target: npt.NDArray[np.int32]  # [N], the true column
    is_seen: Bools  # [N], whether the true pair is
    open: Bools  # [N], whether the true pair is among the best of its own kind; if not, it never wins
    true: Floats  # [N] float32, or float64 where that would not say it all; score of the true pair where open
    rival: Floats  # [N] likewise; score of the rival, -inf where there is none
    wins_tie: Bools  # [N], whether the true pair wins at equal scores
    bias: npt.NDArray[np.float32]  # [N], where the original puts a bias for the image; nan where it puts none
    at_last: Bools  # [N], whether the image is right at the original's last bias
    attr: Bools  # [N], whether the predicted attribute is right at bias 0
    obj: Bools  # [N], whether the predicted object is

    def __post_init__(self) -> None:
        for name, column in vars(self).items():
            if column.shape != self.target.shape or column.ndim != 1:
                raise ValueError(f"{name} is {list(column.shape)}, target {list(self.target.shape)}: expected [N] each")

    def __len__(self) -> int:
        return len(self.target)

    def same_images(self, other: Outcomes) -> bool:
        """Whether both have images of the same pairs in the same order."""
        return np.array_equal(self.target, other.target) and np.array_equal(self.is_seen, other.is_seen)

    def to_bytes(self) -> bytes:
        """An ``.npz`` file, the same for the same numbers."""
        out = io.BytesIO()
        arrays: dict[str, Any] = {"format": np.int32(FORMAT)} | {k: _short(v) for k, v in vars(self).items()}
        np.savez_compressed(out, **arrays)
        return out.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> Outcomes:
        """What ``to_bytes`` wrote.

        Raises:
            ValueError: it is no such file, or one of another format.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"holds no numbers per image: {error}") from error
        if (found := int(arrays.pop("format", np.int32(0)))) != FORMAT:
            raise ValueError(f"has numbers per image of format {found}, this czslkit reads format {FORMAT}")
        if lacking := [field.name for field in fields(Outcomes) if field.name not in arrays]:
            raise ValueError(f"lacks {', '.join(lacking)} per image")
        return Outcomes(**{field.name: arrays[field.name] for field in fields(Outcomes)})


def _short(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """float64 as float32 where that loses nothing."""
    if values.dtype != np.float64:
        return values
    short = values.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), values) else values
