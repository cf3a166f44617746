"""Programs of trained methods for other software: pixels of images in, scores of fixed pairs out."""

from __future__ import annotations

import copy
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import __version__
from .errors import ConfigError, CzslkitError
from .files import unfinished
from .linear import plain_products
from .method import METHODS, Method
from .metrics.names import WORLDS
from .options import user_path
from .predict import bias_of, method_for
from .sizes import format_bytes
from .types import PairSpace, Setting, TextFeatures

Format = Literal["onnx", "torchscript", "pt2"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: Name under which a file holds its description, a JSON text.
DESCRIPTION = "czslkit.json"
#: Largest difference of a score from PyTorch's, as a share of the largest absolute score.
TOLERANCE = 1e-4
_TRACED = 3  # images in the batch with which a program is made
_CHECKED = (1, 2, 5)  # images in the batches with which it is checked
_ONNX_LIMIT = 2**31 - 2**20  # bytes that the tensors of an ONNX file without other files may take
_LONGEST_REASON = 300  # characters of an error of torch


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked."""

    file: Path
    description: Mapping[str, Any]  # as in the file: method, pairs, input and output
    difference: float  # largest difference of a score from PyTorch's


def export_method(
    method: Method, file: str | Path, format: Format, pairs: Any = None, *, world: str = "closed"
) -> Exported:
    """Write the scoring of images by a method as a program that does not need czslkit.

    The program takes preprocessed pixels ``images`` ``[batch, 3, H, W]`` of any number of images and returns ``scores``
    ``[batch, P]``, those of ``Method.rank`` in a test. The texts are computed now, and only their features are in the
    file. The file also holds its description as JSON under the name ``czslkit.json``: the pairs in the order of the
    scores, and size, mean and standard deviation of the pixels.

    After writing, the file is loaded again, and its scores of 1, 2 and 5 images are compared with PyTorch's: they
    differ by at most 0.0001 of the largest absolute score.

    Args:
        method: a trained method; it is not changed.
        file: file to write.
        format: ``onnx``, ``torchscript`` or ``pt2``, the format of ``torch.export``.
        pairs, world: the pairs to score, as for ``Method.predict``.

    Raises:
        ConfigError: an argument cannot be used, or a package is missing.
        CzslkitError: the method cannot be exported, or the file's scores differ; there is then no new file.
    """
    _check_arguments(method, format, world)
    file = user_path(file)
    method, space, candidates = method_for(copy.deepcopy(method).cpu(), pairs, world)
    method.eval().requires_grad_(False)
    rows = candidates.nonzero()[:, 0]
    with torch.no_grad():
        text = method.text_in(world, space.pairs[rows] if method.chunkable else space.pairs)
        scorer = Scorer(method, text, Setting("test", world, len(space.pairs)), None if method.chunkable else rows)
        expected = [(images, scorer(images)) for images in (_images(method, count) for count in _CHECKED)]
        used = _shrink(scorer, _images(method, _TRACED))
    if format == "onnx" and used > _ONNX_LIMIT:
        raise ConfigError(
            [f"{_name(method)} needs {format_bytes(used)}, but an ONNX file holds at most 2 GB: use the format pt2"]
        )
    description = _description(method, space, rows, world)
    file.parent.mkdir(parents=True, exist_ok=True)
    with unfinished(file) as made:
        with _explained(f"{_name(method)} cannot be exported as {format}"), _quiet(), plain_products(), torch.no_grad():
            _WRITERS[format](scorer, _images(method, _TRACED), made, json.dumps(description))
        with _explained(f"{_name(method)}: the exported {format} program does not run"), _quiet():
            found = [run(images) for run in [_READERS[format](made)] for images, _ in expected]
        difference = _difference(f"{_name(method)} as {format}", found, [scores for _, scores in expected])
    return Exported(file, description, difference)


class Scorer(nn.Module):
    """A method with the texts of fixed pairs: pixels ``[B, 3, H, W]`` in, scores ``[B, P]`` out.

    Args:
        method: in evaluation mode.
        text: texts of the pairs.
        setting: as for ``Method.rank``.
        columns: the scores to return of those that the method computes, ``[P]`` long; None for all.
    """

    def __init__(self, method: Method, text: TextFeatures, setting: Setting, columns: Tensor | None) -> None:
        super().__init__()
        self.method, self.setting, self._text = method, setting, text
        self.register_buffer("columns", columns)
        self.columns: Tensor | None
        tensors = {field.name: getattr(text, field.name) for field in fields(text)}
        self._names = [name for name, value in tensors.items() if isinstance(value, Tensor)]
        for name in self._names:
            self.register_buffer(f"text_{name}", tensors[name].detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return the columns of what ``Method.rank`` returns."""
        tensors: dict[str, Any] = {name: getattr(self, f"text_{name}") for name in self._names}
        scores = self.method.rank(images, replace(self._text, **tensors), self.setting)
        return scores if self.columns is None else scores[:, self.columns]


def _check_arguments(method: Method, format: str, world: str) -> None:
    """Check what can be checked before any work.

    Raises:
        ConfigError: the format or the world is unknown, or a package is missing.
        CzslkitError: the scores of an image depend on other images.
    """
    if format not in FORMATS:
        raise ConfigError([f"format is {format!r}, expected {', '.join(FORMATS)}"])
    if world not in WORLDS:
        raise ConfigError([f"world is {world!r}, expected {' or '.join(WORLDS)}"])
    if format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ConfigError([f'the format onnx needs {package} ({error}): pip install "czslkit[onnx]"']) from None
    reason = "adapts to the images that it has seen" if method.streams else "mixes the images of a batch"
    if method.streams or not method.independent:
        raise CzslkitError(
            f"{_name(method)} cannot be exported: it {reason}, so that the scores of an image depend on other images, "
            "and a program of fixed texts cannot compute them. Use czslkit predict"
        )


def _description(method: Method, space: PairSpace, rows: Tensor, world: str) -> dict[str, Any]:
    """Return what a user of the program has to know, ready for JSON.

    Args:
        rows: the rows of ``space.pairs`` that are scored, ``[P]`` long.
    """
    preprocessing = method.backbone.preprocessing
    return {
        "format": 1,
        "czslkit": __version__,
        "method": _name(method),
        "world": world,
        "input": {
            "name": "images",
            "shape": ["batch", 3, preprocessing.size, preprocessing.size],
            "type": "float32",
            "preprocessing": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(preprocessing).items()},
        },
        "output": {"name": "scores", "shape": ["batch", len(rows)], "type": "float32"},
        "pairs": [[space.attrs[attr], space.objs[obj]] for attr, obj in space.pairs[rows].tolist()],
        "seen": space.seen[rows].tolist(),
        "bias": bias_of(method, world)[0],
    }


def _name(method: Method) -> str:
    """Return the registered name of a method."""
    return next((name for name in METHODS if METHODS[name] is type(method)), type(method).__name__)


def _images(method: Method, count: int) -> Tensor:
    """Return normalised random pixels, ``[count, 3, H, W]``; the same ones for the same count."""
    size = method.backbone.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


class _Used(TorchDispatchMode):
    """Notes the memory of every tensor that an operator reads."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        self.storages.update(tensor.untyped_storage()._cdata for tensor in tensors)
        return func(*args, **(kwargs or {}))


def _shrink(scorer: Scorer, images: Tensor) -> int:
    """Replace tensors that scoring does not read, such as those of the text tower, by one number of the same shape.

    A parameter that several modules share becomes one for each, since TorchScript has no shared parameters.

    Returns:
        The bytes of the other tensors.
    """
    with _Used() as used:
        scorer(images)
    taken: set[int] = set()
    size = 0
    for module in scorer.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None:
                continue
            value = tensor.detach()
            if value.untyped_storage()._cdata in used.storages:
                size += value.nbytes
                value = value.clone() if id(tensor) in taken else value
            else:
                value = value.new_zeros(()).expand(value.shape)
            taken.add(id(tensor))
            setattr(module, name, nn.Parameter(value, False) if isinstance(tensor, nn.Parameter) else value)
    return size


@contextmanager
def _explained(start: str) -> Iterator[None]:
    """Turn an error of torch or of a runtime into one that says what a method's author can change."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise CzslkitError(
            f"{start}: {type(error).__name__}: {reason}. rank and encode of the method, and what they call, have to "
            "compute with tensors alone: no Python decisions by their values, and x.shape[0] in place of len(x)"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporters write about their own progress and about their later versions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _program(scorer: Scorer, images: Tensor) -> torch.export.ExportedProgram:
    """Return the graph of the scoring, for any number of images."""
    return torch.export.export(scorer, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}})


def _write_pt2(scorer: Scorer, images: Tensor, file: Path, description: str) -> None:
    with file.open("wb") as out:
        torch.export.save(_program(scorer, images), out, extra_files={DESCRIPTION: description})


def _write_torchscript(scorer: Scorer, images: Tensor, file: Path, description: str) -> None:
    traced = torch.jit.trace(scorer, (images,), check_trace=False)
    torch.jit.save(traced, str(file), _extra_files={DESCRIPTION: description})


def _write_onnx(scorer: Scorer, images: Tensor, file: Path, description: str) -> None:
    names: Any = {"input_names": ["images"], "output_names": ["scores"]}
    program = torch.onnx.export(_program(scorer, images), (), dynamo=True, verbose=False, **names)
    assert program is not None
    program.model.metadata_props[DESCRIPTION] = description
    program.save(file, external_data=False)


def _read_pt2(file: Path) -> Callable[[Tensor], Tensor]:
    with file.open("rb") as content:
        program: Callable[[Tensor], Tensor] = torch.export.load(content).module()
    return program


def _read_torchscript(file: Path) -> Callable[[Tensor], Tensor]:
    program: Callable[[Tensor], Tensor] = torch.jit.load(str(file), map_location="cpu")
    return program


def _read_onnx(file: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["scores"], {"images": images.numpy()})[0])


_WRITERS = {"onnx": _write_onnx, "torchscript": _write_torchscript, "pt2": _write_pt2}
_READERS = {"onnx": _read_onnx, "torchscript": _read_torchscript, "pt2": _read_pt2}


def _difference(what: str, found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference between the scores of a file and those of PyTorch.

    Raises:
        CzslkitError: it is larger than ``TOLERANCE`` of the largest absolute score, or scores have another shape.
    """
    largest = 0.0
    for scores, true in zip(found, expected, strict=True):
        if scores.shape != true.shape:
            raise CzslkitError(f"{what}: scores of shape {list(scores.shape)}, PyTorch's have {list(true.shape)}")
        finite = true.isfinite()
        difference = torch.where(scores == true, 0.0, (scores - true).abs())  # equal infinities differ by 0
        largest = max(largest, float(difference.max()))
        allowed = TOLERANCE * float(true[finite].abs().max()) if finite.any() else 0.0
        if not largest <= allowed:
            raise CzslkitError(
                f"{what}: a score differs from PyTorch's by {largest:.2g}, expected at most {allowed:.2g} "
                f"({TOLERANCE:g} of the largest score): the file is removed. Use another format"
            )
    return largest
