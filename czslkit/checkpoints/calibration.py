"""The file next to a trained method that has what the validation split chose for its predictions."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..files import file_digest, write_text
from ..foreign_files import JSON_LIMIT, parse_json, read_regular
from ..json_digest import change_since_written, with_digest
from ..metrics.names import WORLDS
from ..prediction import Calibration
from ..training_files import CALIBRATION_FILE, WEIGHTS_FILE
from ..types import PairSpace

#: Format of the files that are written.
FORMAT = 1


def write_calibration(folder: Path, calibration: Calibration, space: PairSpace) -> None:
    """Write what the validation split chose into the folder of a trained method, next to what the file has already.

    Args:
        calibration: values that it has replace those of the file.
        space: label space of the method.
    """
    try:
        before = read_calibration(folder, space)
    except ConfigError:  # it is damaged
        before = Calibration()
    feasible = before.feasible if calibration.feasible is None else calibration.feasible
    content = {
        "format": FORMAT,
        "weights": file_digest(folder / WEIGHTS_FILE),
        "bias": {**before.bias, **calibration.bias},
        "feasible": None if feasible is None else _encoded(feasible),
    }
    write_text(folder / CALIBRATION_FILE, with_digest(content))


def read_calibration(folder: Path, space: PairSpace) -> Calibration:
    """Return what the validation split chose for the trained method in a folder.

    A folder without the file, and a file that was written for other weights, give an empty calibration.

    Raises:
        ConfigError: the file was changed after it was written, or cannot be read.
    """
    path = folder / CALIBRATION_FILE
    remedy = "Remove it to predict without a bias and without a feasibility threshold"
    try:
        file = read_regular(path, JSON_LIMIT)
        content = parse_json(file)
        if change := change_since_written(file, required=True):
            raise ConfigError([f"{path} {change}. {remedy}."])
        if content["format"] != FORMAT or content["weights"] != file_digest(folder / WEIGHTS_FILE):
            return Calibration()
        feasible = content["feasible"]
        bias = {world: float(content["bias"][world]) for world in WORLDS if world in content["bias"]}
        if not all(map(math.isfinite, bias.values())):
            raise ValueError(f"bias has {[*bias.values()]}, expected finite numbers")
        return Calibration(bias, None if feasible is None else _decoded(feasible, len(space.attrs) * len(space.objs)))
    except FileNotFoundError:
        return Calibration()
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError([f"{path} cannot be read: {type(error).__name__}: {error}. {remedy}."]) from error


def _encoded(mask: Tensor) -> str:
    """Return a mask ``[n]`` as text.

    >>> _decoded(_encoded(torch.tensor([True, False, True])), 3).tolist()
    [True, False, True]
    """
    return base64.b64encode(np.packbits(mask.numpy()).tobytes()).decode()


def _decoded(text: str, length: int) -> Tensor:
    """Return the mask ``[length]`` of a text.

    Raises:
        ValueError: the text holds another number of values.
    """
    found = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(found) != -(-length // 8):
        raise ValueError(f"feasible has {8 * len(found)} values, expected {length}")
    return torch.from_numpy(np.unpackbits(found, count=length).astype(bool))
