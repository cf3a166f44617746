"""Where the feasibility of unseen pairs comes from: a published vector, word vectors, or a CLIP text tower."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..components import Backbone
from ..data.splits import Splits
from ..errors import ConfigError, DataError, first_ten
from ..metrics.feasibility import feasibility
from ..prompts import clean
from ..types import PairSpace
from .word_vectors import WordVectors, open_safetensors, refusal, word_vectors, words_of

#: Settings that are no path.
WORDS = ("file", "clip")
#: Of files that hold the vector itself, though safetensors may hold word vectors; any other holds word vectors.
VECTORS = (".pt", ".npy", ".safetensors")
PROMPT = "a photo of"

_SLACK = 1e-5  # of cosines in float32


@dataclass(frozen=True, eq=False)
class FeasibilityScores:
    """How feasible every combination is, and who says so."""

    values: Tensor  # [A * O] float32 in [-1, 1], in product(attrs, objs) order
    source: str

    @property
    def digest(self) -> str:
        """SHA-256 of the values as little-endian float32, in hex; the same whatever file they came in."""
        return hashlib.sha256(self.values.numpy().astype("<f4").tobytes()).hexdigest()


def published_files(dataset: str, folder: Path) -> tuple[Path, ...]:
    """Where the published vector of a dataset is looked for, in that order: in its folder, then beside it."""
    return tuple(home / f"feasibility_{dataset}{suffix}" for home in (folder, folder.parent) for suffix in VECTORS)


def source_file(source: str, data: Splits) -> Path | None:
    """The file that a setting stands for; None for ``clip``, and for ``file`` where there is none."""
    if source == "clip":
        return None
    if source == "file":
        return next((file for file in published_files(data.name, data.root) if file.is_file()), None)
    return Path(source).expanduser()


def load_feasibility(source: str, data: Splits, backbone: Backbone) -> FeasibilityScores | None:
    """What a setting stands for.

    Args:
        source: ``file``, ``clip``, or the path of a vector or of word vectors.
        backbone: asked for text features if ``source`` is ``clip``.

    Returns:
        None if ``source`` is ``file`` and there is none.

    Raises:
        DataError: a file that cannot be read, or does not fit the dataset.
        ConfigError: ``clip`` for a backbone without a text tower.
    """
    if source == "clip":
        return from_backbone(backbone, data.space)
    file = source_file(source, data)
    if file is None:
        return None
    return FeasibilityScores(read_feasibility(file, data.space), file.name if source == "file" else source)


def from_backbone(backbone: Backbone, space: PairSpace) -> FeasibilityScores:
    """From the cosines of the backbone's text features of ``"a photo of WORD"``, as it is before any training.

    The prompt is that of the words in this package's methods, and the kind of text that CLIP was trained on. It makes
    every cosine larger than that of word vectors: published thresholds mean nothing here.

    Raises:
        ConfigError: the backbone has no text tower, or one that cannot read the prompt.
    """
    names = [f"{PROMPT} {clean(name)}" for name in (*space.attrs, *space.objs)]
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            vectors = backbone.encode_sentences(names).float().cpu()  # [A + O, D]
    except NotImplementedError:
        raise ConfigError(
            [
                f"feasibility is clip, but {type(backbone).__name__} has no text tower; "
                "set eval.feasibility to file, or to the path of a vector or of word vectors"
            ]
        ) from None
    except ValueError as error:
        raise ConfigError([f"feasibility is clip, but the backbone cannot read {PROMPT!r}: {error}"]) from error
    finally:
        backbone.train(training)
    return FeasibilityScores(feasibility(space, *vectors.split([len(space.attrs), len(space.objs)])), "clip")


def read_feasibility(file: Path, space: PairSpace) -> Tensor:
    """The feasibility of every combination, ``[A * O]`` float32, from a file of it or of word vectors.

    Safetensors of more than one tensor hold word vectors if any tensor is named like a word of the labels.

    Raises:
        DataError: a file that cannot be read, or does not fit the label space.
    """
    if file.suffix == ".safetensors":
        names = open_safetensors(file, lambda content: content.keys())
        words = {word for name in (*space.attrs, *space.objs) for word in words_of(name)} - {"feasibility"}
        holds_words = len(names) > 1 and not words.isdisjoint(names)
    else:
        holds_words = file.suffix not in VECTORS
    return word_feasibility(space, file) if holds_words else read_vector(file, space)


def read_vector(file: Path, space: PairSpace) -> Tensor:
    """The feasibility of every combination from a file, ``[A * O]`` float32.

    Args:
        file: a torch file or safetensors of one tensor, alone or in a dict, or under ``feasibility`` beside others;
            or an array of numpy. Nothing in it is run.

    Raises:
        DataError: another file, or numbers that are not one in [-1, 1] for each combination.
    """
    values = _only_tensor(file, _content(file))
    wanted = len(space.attrs) * len(space.objs)
    if not values.is_floating_point() or list(values.shape) != [wanted]:
        kind = str(values.dtype).removeprefix("torch.")
        raise DataError(
            f"{file} holds {kind} {list(values.shape)}, expected floats [{wanted}]: "
            f"one for each of {len(space.attrs)} attributes x {len(space.objs)} objects"
        )
    values = values.detach().float()
    wrong = ~(values.abs() <= 1 + _SLACK)
    if wrong.any():
        i = int(wrong.nonzero()[0])
        attr, obj = divmod(i, len(space.objs))
        raise DataError(
            f"{file}: number {i} ({space.attrs[attr]} {space.objs[obj]}) is {float(values[i]):g}, expected -1 to 1"
        )
    return values


def word_feasibility(space: PairSpace, vectors: WordVectors) -> Tensor:
    """The feasibility of every combination from word vectors.

    Args:
        space: whose names the vectors are looked up for, word by word in lower case: the vector of
            ``dry-erase_board`` is the mean of those of ``dry``, ``erase`` and ``board``.
        vectors: the path of a text file as of GloVe, ``word v1 v2 ...`` a line; of safetensors with a tensor ``[D]``
            for each word; or a callable that takes a word and returns ``[D]`` numbers, and None or a KeyError for a
            word it does not know.

    Returns:
        ``[A * O]`` float32 in [-1, 1], in ``product(attrs, objs)`` order; 0 for seen pairs.

    Raises:
        DataError: the file cannot be read, or words are lacking; all of them are named.

    >>> space = PairSpace(("dry", "wet"), ("cat", "dog"), torch.tensor([[0, 0], [1, 1]]), torch.tensor([True, True]))
    >>> vectors = {"dry": [1, 0], "wet": [0.6, 0.8], "cat": [1, 0], "dog": [0.8, 0.6]}
    >>> [round(value, 6) for value in word_feasibility(space, vectors.get).tolist()]
    [0.0, 0.7, 0.7, 0.0]
    """
    found = word_vectors(vectors, (*space.attrs, *space.objs))
    return feasibility(space, *found.split([len(space.attrs), len(space.objs)]))


def _content(file: Path) -> Any:
    try:
        if file.suffix == ".npy":
            return torch.from_numpy(np.load(file, allow_pickle=False))
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that someone else wrote brings about
        raise refusal(file, error) from error


def _only_tensor(file: Path, content: Any) -> Tensor:
    """The tensor that a file holds, or holds in a dict."""
    if isinstance(content, Mapping):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if "feasibility" not in tensors and len(tensors) != 1:
            held = f"tensors {first_ten(list(tensors))}" if tensors else "no tensor"
            also = ", or one for each word of the labels" if file.suffix == ".safetensors" else ""
            raise DataError(f"{file} holds {held}, expected one, or one named feasibility{also}")
        content = tensors.get("feasibility", next(iter(tensors.values())))
    if not isinstance(content, Tensor):
        raise DataError(f"{file} holds a {type(content).__name__}, expected a tensor, or a dict with one")
    return content
