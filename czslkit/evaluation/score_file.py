"""Scores that another program wrote to a file, read in blocks."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, DataError
from ..foreign_files import check_array_size, check_members, check_regular, read_npy_header
from ..metrics.score_columns import Array
from ..metrics.sweep import Sweep
from .score_labels import Labels

SCORES_PER_BLOCK = 16_000_000  # scores in memory at a time
BYTES_PER_READ = 2**18  # bytes that are unpacked from an archive at a time

Block = tuple[slice, slice, Array]  # images, columns, and their scores


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """A matrix of scores on disk, which is never in memory as a whole."""

    path: Path
    shape: tuple[int, int]  # N images, K columns
    labels: Labels | None  # labels in the file, unchecked; None if there are none
    blocks: Callable[[], Iterator[Block]]  # yields all scores, block by block


def open_scores(path: Path) -> ScoreFile:
    """Open a file of scores and read its labels; the scores are read later.

    Args:
        path: ``.npz`` or ``.safetensors`` with an array ``scores`` ``[N, K]`` of any float dtype, and integer arrays
            ``attr`` and ``obj`` ``[N]`` or neither; or ``.npy`` with only the scores. Nothing in the file is run.

    Raises:
        ConfigError: the file name has another ending.
        DataError: the file cannot be read, or holds something else.
    """
    if path.suffix.lower() not in _READERS:
        raise ConfigError([f"{path} does not end in one of {', '.join(_READERS)}"])
    with _raise_data_error(path):
        check_regular(path)
        return _READERS[path.suffix.lower()](path)


def fill(sweep: Sweep, scores: ScoreFile, labels: Labels) -> None:
    """Pass all scores of a file through a sweep, one block at a time.

    Raises:
        ConfigError: the number of columns or of labels does not fit the scores.
        DataError: the file is damaged, or has a score that is not finite.
    """
    images, columns = scores.shape
    if columns != len(sweep.candidates):
        raise ConfigError(
            [
                f"{scores.path} has scores [{images}, {columns}], expected [N, {len(sweep.candidates)}]: "
                "a column for each of the pairs"
            ]
        )
    attr, obj = labels
    if len(attr) != images:
        raise ConfigError([f"{len(attr)} labels for the {images} images of {scores.path}"])
    if not images:
        raise ConfigError([f"{scores.path} has scores of 0 images, expected at least 1"])
    with _raise_data_error(scores.path):
        for rows, chosen, block in scores.blocks():
            sweep.update(block, attr[rows], obj[rows], columns=chosen)


def _open_npy(path: Path) -> ScoreFile:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive; rename it to .npz")
    shape = _matrix_shape(array.shape, array.dtype.name)
    by_column = array.flags.f_contiguous and not array.flags.c_contiguous

    def blocks() -> Iterator[Block]:
        for rows, columns in _block_slices(shape, by_column):
            yield rows, columns, _native_byte_order(array[rows, columns])

    return ScoreFile(path, shape, None, blocks)


def _open_npz(path: Path) -> ScoreFile:
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        _check_array_names(names)
        check_members(archive, [f"{name}.npy" for name in sorted(names & {"scores", *_LABEL_NAMES})])
        with archive.open("scores.npy") as member:
            found, _, dtype = read_npy_header(member)
            shape = _matrix_shape(found, dtype.name)
            check_array_size(archive, member, found, dtype)
        labels = {}
        for name in _LABEL_NAMES & names:
            with archive.open(f"{name}.npy") as member:
                found, _, dtype = read_npy_header(member)
                _check_labels(name, found, str(dtype), shape[0])
                check_array_size(archive, member, found, dtype)
                labels[name] = np.empty(found, dtype)
                _read_into(member, labels[name])
    return ScoreFile(path, shape, _label_tensors(labels, shape[0]), partial(_npz_blocks, path))


def _npz_blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of scores in a .npz archive, in the order of the file."""
    with zipfile.ZipFile(path) as archive, archive.open("scores.npy") as member:
        shape, by_column, dtype = read_npy_header(member)
        for rows, columns in _block_slices(_matrix_shape(shape, dtype.name), by_column):
            size = rows.stop - rows.start, columns.stop - columns.start
            block = np.empty(size[::-1] if by_column else size, dtype)
            _read_into(member, block)
            yield rows, columns, _native_byte_order(block.T if by_column else block)


def _open_safetensors(path: Path) -> ScoreFile:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as content:
        names = set(content.keys())
        _check_array_names(names)
        scores = content.get_slice("scores")
        shape = _matrix_shape(tuple(scores.get_shape()), scores.get_dtype())
        labels = {name: content.get_tensor(name) for name in _LABEL_NAMES & names}

    def blocks() -> Iterator[Block]:
        with safe_open(path, framework="pt") as content:
            scores = content.get_slice("scores")
            for rows, columns in _block_slices(shape, by_column=False):
                yield rows, columns, scores[rows.start : rows.stop]

    return ScoreFile(path, shape, _label_tensors(labels, shape[0]), blocks)


_READERS: dict[str, Callable[[Path], ScoreFile]] = {
    ".npz": _open_npz,
    ".npy": _open_npy,
    ".safetensors": _open_safetensors,
}
_LABEL_NAMES = {"attr", "obj"}
#: Names of float dtypes in numpy and in safetensors.
_FLOATS = {"float16", "float32", "float64", "F16", "BF16", "F32", "F64"}


def _check_array_names(names: set[str]) -> None:
    """Check that a file has an array of scores, and either both arrays of labels or none."""
    found = ", ".join(sorted(names)) or "nothing"
    if "scores" not in names:
        raise ValueError(f"it holds {found}; expected scores, with or without attr and obj")
    if len(_LABEL_NAMES & names) == 1:
        raise ValueError(f"it holds {found}; expected attr and obj both, or neither")


def _matrix_shape(shape: tuple[int, ...], dtype: str) -> tuple[int, int]:
    """Return the shape of the scores after checking that they are a matrix of floats."""
    if len(shape) != 2 or dtype not in _FLOATS:
        raise ValueError(f"scores are {dtype} {list(shape)}, expected floats of 16, 32 or 64 bits, [images, pairs]")
    return shape[0], shape[1]


def _label_tensors(arrays: dict[str, Array], images: int) -> Labels | None:
    """Return the arrays ``attr`` and ``obj`` of a file as labels of ``images`` images; None if there are none."""
    if not arrays:
        return None
    for name, values in sorted(arrays.items()):
        _check_labels(name, tuple(values.shape), str(values.dtype).removeprefix("torch."), images)
    attr, obj = (torch.from_numpy(np.asarray(arrays[name]).astype(np.int64)) for name in ("attr", "obj"))
    return attr, obj


def _check_labels(name: str, shape: tuple[int, ...], kind: str, images: int) -> None:
    """Check that an array of labels has an integer for each image."""
    if "int" not in kind or shape != (images,):
        raise ValueError(f"{name} is {kind} {list(shape)}, expected integers [{images}], one for each image")


def _block_slices(shape: tuple[int, int], by_column: bool) -> Iterator[tuple[slice, slice]]:
    """Yield the images and the columns of each block.

    Args:
        shape: numbers of images and columns.
        by_column: a block consists of whole columns of the matrix instead of whole rows.
    """
    images, columns = shape
    length, width = (columns, images) if by_column else (images, columns)
    step = max(SCORES_PER_BLOCK // max(width, 1), 1)
    whole = slice(0, width)
    for part in (slice(start, min(start + step, length)) for start in range(0, length, step)):
        yield (whole, part) if by_column else (part, whole)


def _read_into(member: Any, block: np.ndarray[Any, Any]) -> None:
    """Fill a block with the next values of an open file."""
    remaining = block.reshape(-1).view(np.uint8).data
    while len(remaining):
        piece = member.read(min(len(remaining), BYTES_PER_READ))  # the time of a read grows with its size squared
        if not piece:
            raise ValueError("it ends before its last score")
        remaining[: len(piece)] = piece
        remaining = remaining[len(piece) :]


def _native_byte_order(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return block.astype(block.dtype.newbyteorder("="), copy=False)


@contextmanager
def _raise_data_error(path: Path) -> Iterator[None]:
    """Turn every error into a DataError that names the file; reading a file of another program may raise any error."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {reason}") from error
