"""Scores that another program wrote to a file: the matrix, what its columns stand for and what its images show."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from ..errors import ConfigError, DataError
from ..metrics.candidates import Array
from ..metrics.sweep import Sweep
from ..types import PairSpace

BLOCK = 16_000_000  # scores in memory at a time
_PIECE = 2**18  # bytes that are unpacked at a time
_SHOWN = 5  # mistakes of one kind that a message names; the rest is counted

Pairs = Sequence[tuple[str, str]]
Labels = tuple[Tensor, Tensor]  # [N] long, attribute and object of each image
Block = tuple[slice, slice, Array]  # which images, which columns, and their scores


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """A matrix of scores on disk, which is never in memory as a whole."""

    path: Path
    shape: tuple[int, int]  # N images, K columns
    labels: Labels | None  # as the file has them, unchecked; None if it has none
    blocks: Callable[[], Iterator[Block]]


def open_scores(path: Path) -> ScoreFile:
    """The scores in a file, of which only the labels are read now.

    Args:
        path: ``.npz`` or ``.safetensors`` with an array ``scores`` ``[N, K]`` of any float dtype, and integer arrays
            ``attr`` and ``obj`` ``[N]`` or neither; or ``.npy`` of the scores alone. Nothing in it is run.

    Raises:
        ConfigError: a file of another kind.
        DataError: it cannot be read, or holds something else.
    """
    if path.suffix not in _READERS:
        raise ConfigError([f"{path} is no {', '.join(_READERS)}"])
    with _readable(path):
        return _READERS[path.suffix](path)


def label_space(pairs: Pairs, seen: Pairs) -> PairSpace:
    """The label space of columns ``pairs``, with their attributes and objects sorted by name.

    Raises:
        ConfigError: there are no pairs, or one of ``seen`` is not among them.
    """
    if not pairs:
        raise ConfigError(["there are no pairs: expected an 'attribute object' for each column of the scores"])
    attrs, objs = (tuple(sorted(set(names))) for names in zip(*pairs, strict=True))
    number = tuple({name: i for i, name in enumerate(names)} for names in (attrs, objs))
    rows = torch.tensor([[number[0][attr], number[1][obj]] for attr, obj in pairs])
    return PairSpace(attrs, objs, rows, members(pairs, seen, "seen"))


def members(pairs: Pairs, chosen: Pairs, kind: str) -> Tensor:
    """Which of the columns ``pairs`` are ``chosen``, ``[K]`` bool.

    Raises:
        ConfigError: some of them are no columns.
    """
    known = set(pairs)
    if strays := [pair for pair in chosen if pair not in known]:
        raise ConfigError(
            [f"{len(strays)} of {len(chosen)} {kind} pairs are not among the {len(pairs)} columns: {_some(strays)}"]
        )
    wanted = set(chosen)
    return torch.tensor([pair in wanted for pair in pairs])


def read_labels(path: Path, space: PairSpace) -> Labels:
    """What each image shows, from a text file with ``attribute object`` a line; empty lines are passed over.

    Raises:
        DataError: the file cannot be read, or a line is not two words.
        ConfigError: images show pairs that are no columns.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if wrong := [f"{path}:{number}: {' '.join(row)!r} is not 'attr obj'" for number, row in rows if len(row) != 2]:
        raise DataError("\n".join([*wrong[:_SHOWN], f"{path}: {len(wrong)} mistakes in all"]))
    known = {(space.attrs[attr], space.objs[obj]): (attr, obj) for attr, obj in space.pairs.tolist()}
    if strays := {(attr, obj): number for number, (attr, obj) in rows if (attr, obj) not in known}:
        first = next(iter(strays.values()))
        raise ConfigError(
            [f"{path}:{first}: images show pairs that are not among the {len(known)} columns: {_some(list(strays))}"]
        )
    labels = torch.tensor([known[attr, obj] for _, (attr, obj) in rows], dtype=torch.long).reshape(-1, 2)
    return labels[:, 0], labels[:, 1]


def checked_labels(labels: Labels, space: PairSpace) -> Labels:
    """The labels that came with the scores, if every image shows a column of ``space``.

    Raises:
        ConfigError: one does not, which the message names.
    """
    attr, obj = labels
    rule = "attr and obj number the sorted attributes and objects of the pairs; labels in another order go by name"
    for kind, values, names in (("attr", attr, space.attrs), ("obj", obj, space.objs)):
        if (outside := (values < 0) | (values >= len(names))).any():
            i = int(outside.nonzero()[0])
            raise ConfigError([f"image {i} has {kind} {int(values[i])}, expected 0 to {len(names) - 1}: {rule}"])
    columns = space.flat()
    if not (known := torch.isin(attr * len(space.objs) + obj, columns)).all():
        i = int((~known).nonzero()[0])
        named = f"{space.attrs[int(attr[i])]} {space.objs[int(obj[i])]}"
        raise ConfigError(
            [
                f"image {i} has attr {int(attr[i])} and obj {int(obj[i])}, which is {named}, "
                f"not among the {len(columns)} columns: {rule}"
            ]
        )
    return labels


def fill(sweep: Sweep, scores: ScoreFile, labels: Labels) -> None:
    """Pass all the scores through a sweep, a block at a time.

    Raises:
        ConfigError: another number of columns or labels than the scores have.
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
        raise ConfigError([f"{scores.path} has scores of no image"])
    with _readable(scores.path):
        for rows, chosen, block in scores.blocks():
            sweep.update(block, attr[rows], obj[rows], columns=chosen)


def _npy(path: Path) -> ScoreFile:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive; rename it to .npz")
    shape = _matrix(array.shape, array.dtype.name)
    by_column = array.flags.f_contiguous and not array.flags.c_contiguous

    def blocks() -> Iterator[Block]:
        for rows, columns in _cuts(shape, by_column):
            yield rows, columns, _native(array[rows, columns])

    return ScoreFile(path, shape, None, blocks)


def _npz(path: Path) -> ScoreFile:
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        _check_names(names)
        with archive.open("scores.npy") as member:
            header = _header(member)
        shape = _matrix(header[0], header[2].name)
        labels = {}
        for name in _LABELS & names:
            with archive.open(f"{name}.npy") as member:
                labels[name] = npy.read_array(member, allow_pickle=False)
    return ScoreFile(path, shape, _labels(labels, shape[0]), partial(_unpacked, path))


def _unpacked(path: Path) -> Iterator[Block]:
    """The blocks of an archive, in the order in which they lie there."""
    with zipfile.ZipFile(path) as archive, archive.open("scores.npy") as member:
        shape, by_column, dtype = _header(member)
        for rows, columns in _cuts(_matrix(shape, dtype.name), by_column):
            size = rows.stop - rows.start, columns.stop - columns.start
            block = np.empty(size[::-1] if by_column else size, dtype)
            _read_into(member, block)
            yield rows, columns, _native(block.T if by_column else block)


def _safetensors(path: Path) -> ScoreFile:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as content:
        names = set(content.keys())
        _check_names(names)
        scores = content.get_slice("scores")
        shape = _matrix(tuple(scores.get_shape()), scores.get_dtype())
        labels = {name: content.get_tensor(name) for name in _LABELS & names}

    def blocks() -> Iterator[Block]:
        with safe_open(path, framework="pt") as content:
            scores = content.get_slice("scores")
            for rows, columns in _cuts(shape, by_column=False):
                yield rows, columns, scores[rows.start : rows.stop]

    return ScoreFile(path, shape, _labels(labels, shape[0]), blocks)


_READERS: dict[str, Callable[[Path], ScoreFile]] = {".npz": _npz, ".npy": _npy, ".safetensors": _safetensors}
_LABELS = {"attr", "obj"}
_FLOATS = {"float16", "float32", "float64", "F16", "BF16", "F32", "F64"}  # as numpy and as safetensors say


def _check_names(names: set[str]) -> None:
    found = ", ".join(sorted(names)) or "nothing"
    if "scores" not in names:
        raise ValueError(f"it holds {found}; expected scores, with or without attr and obj")
    if len(_LABELS & names) == 1:
        raise ValueError(f"it holds {found}; expected attr and obj both, or neither")


def _matrix(shape: tuple[int, ...], dtype: str) -> tuple[int, int]:
    """The shape, if it is that of a matrix of floats."""
    if len(shape) != 2 or dtype not in _FLOATS:
        raise ValueError(f"scores are {dtype} {list(shape)}, expected floats of 16, 32 or 64 bits, [images, pairs]")
    return shape[0], shape[1]


def _labels(arrays: dict[str, Array], images: int) -> Labels | None:
    if not arrays:
        return None
    for name, values in sorted(arrays.items()):
        kind = str(values.dtype).removeprefix("torch.")
        if "int" not in kind or tuple(values.shape) != (images,):
            raise ValueError(f"{name} is {kind} {list(values.shape)}, expected integers [{images}], one for each image")
    attr, obj = (torch.from_numpy(np.asarray(arrays[name]).astype(np.int64)) for name in ("attr", "obj"))
    return attr, obj


def _cuts(shape: tuple[int, int], by_column: bool) -> Iterator[tuple[slice, slice]]:
    """The images and columns of each block: some whole rows, or some whole columns where these lie together."""
    images, columns = shape
    length, width = (columns, images) if by_column else (images, columns)
    step = max(BLOCK // max(width, 1), 1)
    whole = slice(0, width)
    for part in (slice(start, min(start + step, length)) for start in range(0, length, step)):
        yield (whole, part) if by_column else (part, whole)


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns lie together, and dtype of an array that is about to be read."""
    version = npy.read_magic(member)
    return npy.read_array_header_1_0(member) if version == (1, 0) else npy.read_array_header_2_0(member)


def _read_into(member: Any, block: np.ndarray[Any, Any]) -> None:
    left = block.reshape(-1).view(np.uint8).data
    while len(left):
        piece = member.read(min(len(left), _PIECE))  # a larger one is put together in quadratic time
        if not piece:
            raise ValueError("it ends before its last score")
        left[: len(piece)] = piece
        left = left[len(piece) :]


def _native(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return block.astype(block.dtype.newbyteorder("="), copy=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a file that someone else wrote brings about into an error that names it."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {reason}") from error


def _some(pairs: Pairs) -> str:
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return ", ".join(" ".join(pair) for pair in pairs[:_SHOWN]) + more
