"""The feasibility of pairs from files and from text features, for evaluations and for the graphs that it weighs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .components import Backbone
from .errors import ConfigError, DataError, first_ten
from .foreign_files import check_regular
from .pair_feasibility import feasibility
from .prompts import clean
from .torch_files import load_plain
from .types import PairSpace
from .word_files import read_safetensors, refused_file
from .word_vectors import WordVectors, label_words, word_vectors

#: File name endings of feasibility scores; a .safetensors file may also hold word vectors, every other file does.
SCORE_SUFFIXES = (".pt", ".npy", ".safetensors")
PROMPT = "a photo of"

_TOLERANCE = 1e-5  # a cosine in float32 may exceed 1 by this much


def published_files(dataset: str, folder: Path) -> tuple[Path, ...]:
    """Return the paths where a published file is looked for: in the dataset's folder, then next to the folder."""
    return tuple(
        home / f"feasibility_{dataset}{suffix}" for home in (folder, folder.parent) for suffix in SCORE_SUFFIXES
    )


def text_feasibility(backbone: Backbone, space: PairSpace) -> Tensor:
    """Return the feasibility by the cosines of the backbone's text features of ``"a photo of WORD"``.

    Methods of this package use the same prompt for single words, and it is like the texts that CLIP was trained on. The
    cosines are larger than the cosines of word vectors, so published thresholds do not apply.

    Args:
        backbone: a pretrained backbone, before any training.
        space: the attributes and objects, and which pairs are seen.

    Returns:
        ``[A * O]`` float32 in [-1, 1], in ``product(attrs, objs)`` order; 0 for seen pairs.

    Raises:
        ConfigError: the backbone has no text tower, or the text tower cannot read the prompt.
    """
    words = [clean(name) for name in (*space.attrs, *space.objs)]
    training = backbone.training
    backbone.eval()
    try:
        backbone.check_words(words)
        with torch.no_grad():
            vectors = backbone.encode_sentences([f"{PROMPT} {word}" for word in words]).float().cpu()  # [A + O, D]
    except NotImplementedError:
        raise ConfigError(
            [
                f"feasibility is clip, but {type(backbone).__name__} has no text tower; "
                "set eval.feasibility to file, or to the path of feasibility scores or of word vectors"
            ]
        ) from None
    except ValueError as error:
        raise ConfigError([f"feasibility is clip, but the backbone cannot read {PROMPT!r}: {error}"]) from error
    finally:
        backbone.train(training)
    return feasibility(space, *vectors.split([len(space.attrs), len(space.objs)]))


def read_feasibility(file: Path, space: PairSpace) -> Tensor:
    """Return the feasibility of every combination from a file of feasibility scores or of word vectors.

    A .safetensors file with several tensors holds word vectors if one of them is named like a word of the labels.

    Args:
        file: see :func:`read_feasibility_vector` and :func:`word_feasibility`.
        space: the attributes and objects, and which pairs are seen.

    Returns:
        ``[A * O]`` float32 in [-1, 1], in ``product(attrs, objs)`` order.

    Raises:
        DataError: the file cannot be read, or does not fit the label space.
    """
    if file.suffix.lower() == ".safetensors":
        names = read_safetensors(file, lambda content: content.keys())
        words = {word for name in (*space.attrs, *space.objs) for word in label_words(name)[0]} - {"feasibility"}
        holds_words = len(names) > 1 and not words.isdisjoint(names)
    else:
        holds_words = file.suffix.lower() not in SCORE_SUFFIXES
    return word_feasibility(space, file) if holds_words else read_feasibility_vector(file, space)


def read_feasibility_vector(file: Path, space: PairSpace) -> Tensor:
    """Return the feasibility of every combination from a file that holds it as one vector.

    Args:
        file: a torch, .safetensors or .npy file that holds the vector alone, as the only tensor of a dict, or as the
            entry ``feasibility`` of a dict. Nothing in the file is run.
        space: the attributes and objects.

    Returns:
        ``[A * O]`` float32 in [-1, 1], in ``product(attrs, objs)`` order.

    Raises:
        DataError: the file does not hold exactly one number in [-1, 1] for each combination.
    """
    values = _only_tensor(file, _load_file(file))
    if problem := feasibility_problem(str(file), values, space):
        raise DataError(problem)
    return values.detach().float()


def word_feasibility(space: PairSpace, vectors: WordVectors) -> Tensor:
    """Return the feasibility of every combination of attribute and object, computed from word vectors.

    Args:
        space: the attributes and objects, and which pairs are seen. Names are looked up word by word in lower case: the
            vector of ``dry-erase_board`` is the mean of the vectors of ``dry``, ``erase`` and ``board``.
        vectors: the path of a text file like GloVe, ``word v1 v2 ...`` a line; the path of a .safetensors file with a
            tensor ``[D]`` for each word; or a callable that takes a word and returns ``[D]`` numbers, and None or a
            KeyError if it does not know the word.

    Returns:
        ``[A * O]`` float32 in [-1, 1], in ``product(attrs, objs)`` order; 0 for seen pairs.

    Raises:
        DataError: the file cannot be read, or words have no vector; the message names all of them.

    >>> space = PairSpace(("dry", "wet"), ("cat", "dog"), torch.tensor([[0, 0], [1, 1]]), torch.tensor([True, True]))
    >>> vectors = {"dry": [1, 0], "wet": [0.6, 0.8], "cat": [1, 0], "dog": [0.8, 0.6]}
    >>> [round(value, 6) for value in word_feasibility(space, vectors.get).tolist()]
    [0.0, 0.7, 0.7, 0.0]
    """
    found = word_vectors(vectors, (*space.attrs, *space.objs))
    return feasibility(space, *found.split([len(space.attrs), len(space.objs)]))


def feasibility_problem(source: str, values: Tensor, space: PairSpace) -> str:
    """Return why the tensor of a source is no feasibility of a label space, as a message; empty if it is one."""
    wanted = len(space.attrs) * len(space.objs)
    if not values.is_floating_point() or list(values.shape) != [wanted]:
        kind = str(values.dtype).removeprefix("torch.")
        combinations = f"{len(space.attrs)} attributes x {len(space.objs)} objects"
        return f"{source} holds {kind} {list(values.shape)}, expected floats [{wanted}]: one for each of {combinations}"
    wrong = ~(values.abs() <= 1 + _TOLERANCE)  # true for nan, too
    if not wrong.any():
        return ""
    i = int(wrong.nonzero()[0])
    attr, obj = divmod(i, len(space.objs))
    return f"{source}: number {i} ({space.attrs[attr]} {space.objs[obj]}) is {float(values[i]):g}, expected -1 to 1"


def _load_file(file: Path) -> Any:
    """Return the content of a torch, .safetensors or .npy file without running anything in it."""
    try:
        check_regular(file)
        if file.suffix.lower() == ".npy":
            return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))  # reads only what is used
        if file.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return load_plain(file)
    except Exception as error:  # a file that another program wrote may fail in any way
        raise refused_file(file, error) from error


def _only_tensor(file: Path, content: Any) -> Tensor:
    """Return the tensor that a file holds, alone or in a dict, or raise DataError."""
    if isinstance(content, Mapping):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if "feasibility" not in tensors and len(tensors) != 1:
            held = f"tensors {first_ten(list(tensors))}" if tensors else "no tensor"
            also = ", or one tensor for each word of the labels" if file.suffix.lower() == ".safetensors" else ""
            raise DataError(f"{file} holds {held}, expected one tensor, or one named feasibility{also}")
        content = tensors.get("feasibility", next(iter(tensors.values())))
    if not isinstance(content, Tensor):
        raise DataError(f"{file} holds a {type(content).__name__}, expected a tensor, or a dict with one")
    return content
