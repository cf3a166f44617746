"""The numbers per image that determine the biases at which the image is right, and the file that holds them.

This module needs numpy only, so that reports can be made without torch.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..foreign_files import check_array_size, check_members, read_npy_header

FORMAT = 1
_MOST_IMAGES = 10_000_000  # that are read from a file

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

#: Field of ``Outcomes`` -> name of its array in a file.
FILE_KEYS = {
    "target": "target",
    "is_seen": "is_seen",
    "reachable": "open",
    "true_score": "true",
    "runner_up_score": "rival",
    "wins_tie": "wins_tie",
    "proposed_bias": "bias",
    "right_at_last_bias": "at_last",
    "attr_right": "attr",
    "obj_right": "obj",
}
#: Field of ``Outcomes`` -> numpy's letters for the numbers in it: integers, floats or flags.
_KINDS = dict.fromkeys(FILE_KEYS, "b") | {"target": "iu"}
_KINDS |= dict.fromkeys(("true_score", "runner_up_score", "proposed_bias"), "f")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The outcomes of ``N`` images, from which both curves of the images and of resamples can be computed.

    The true pair of an image and its *runner-up*, the best pair of the other kind (seen or unseen), decide at which
    biases the image is right.
    """

    target: npt.NDArray[np.int32]  # [N], column of the true pair
    is_seen: Bools  # [N], whether the true pair is seen
    reachable: Bools  # [N], whether the true pair is among the best of its own kind; if not, it never wins
    true_score: Floats  # [N] float32, or float64 if float32 loses digits; score of the true pair, 0 if not reachable
    runner_up_score: Floats  # [N] likewise; -inf if there is no runner-up
    wins_tie: Bools  # [N], whether the true pair wins if both scores are equal
    proposed_bias: npt.NDArray[np.float32]  # [N], bias that the image proposes for the original curve; nan if none
    right_at_last_bias: Bools  # [N], whether the image is right at the last bias of the original curve
    attr_right: Bools  # [N], whether the predicted attribute is right at bias 0
    obj_right: Bools  # [N], whether the predicted object is right at bias 0

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if values.shape != self.target.shape or values.ndim != 1:
                raise ValueError(f"{name} is {list(values.shape)}, target {list(self.target.shape)}: expected [N] each")

    def __len__(self) -> int:
        return len(self.target)

    def images_digest(self) -> str:
        """Return a digest of the true pairs of the images and of their kinds, in the order of the images."""
        content = self.target.astype("<i8").tobytes() + self.is_seen.astype("?").tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """Return the content of an ``.npz`` file; the same outcomes give the same bytes."""
        out = io.BytesIO()
        arrays: dict[str, Any] = {"format": np.int32(FORMAT)}
        arrays |= {key: _shortened(getattr(self, name)) for name, key in FILE_KEYS.items()}
        np.savez_compressed(out, **arrays)
        return out.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> Outcomes:
        """Return the outcomes in a file that :meth:`to_bytes` made.

        Raises:
            ValueError: the content is another file, or has another format.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                found = int(_member(archive, "format", "i", ())) if "format.npy" in archive.namelist() else 0
                if found != FORMAT:
                    raise ValueError(f"has numbers per image of format {found}, this czslkit reads format {FORMAT}")
                listed = archive.namelist()
                if missing := [key for key in FILE_KEYS.values() if f"{key}.npy" not in listed]:
                    raise ValueError(f"lacks {', '.join(missing)} per image")
                return Outcomes(**{name: _member(archive, key, _KINDS[name]) for name, key in FILE_KEYS.items()})
        except (OSError, EOFError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise ValueError(f"holds no numbers per image: {error}") from error


def _member(archive: zipfile.ZipFile, key: str, kinds: str, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
    """Return an array of an archive after a check of its header, so that it cannot take more memory than it should.

    Args:
        archive: the open file.
        key: name of the array.
        kinds: numpy's letters for the kinds of numbers that it may have.
        shape: its shape; None for any vector.

    Raises:
        ValueError: the array has another type, shape or size.
    """
    check_members(archive, [f"{key}.npy"])
    with archive.open(f"{key}.npy") as member:
        found, _, dtype = read_npy_header(member)
        if dtype.kind not in kinds or (len(found) != 1 if shape is None else found != shape):
            raise ValueError(f"holds {key} as {dtype} {list(found)}, expected one number for each image")
        if sum(found) > _MOST_IMAGES:
            raise ValueError(f"holds {key} of {found[0]:,} images, expected at most {_MOST_IMAGES:,}")
        check_array_size(archive, member, found, dtype)
        values = np.frombuffer(bytearray(member.read()), dtype)
    return values.reshape(found)


def _shortened(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return float64 values as float32 if that changes none of them."""
    if values.dtype != np.float64:
        return values
    short = values.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), values) else values
