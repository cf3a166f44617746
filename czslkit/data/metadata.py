"""Read the metadata of a dataset: the labels and the split of every image. Only reading imports torch."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from ..errors import DataError, first_ten, shortened
from .layout import ABSENT, SPLITS, Instance

_LONGEST_REASON = 300  # characters of an error of torch


def read_metadata(file: Path) -> tuple[Instance, ...]:
    """Return every entry of a metadata file, including entries without attribute or set.

    Only plain values are read. Code in the file is refused and does not run.

    Raises:
        DataError: the file is not a list of instances.
    """
    from ..torch_files import load_plain

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unusual pickles
            entries = load_plain(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    except Exception as error:  # a damaged or hostile pickle fails in many ways
        raise DataError(
            f"{file} is refused, and nothing in it was run: {_refusal_reason(error)}; expected a torch.save of plain "
            "values. Take the metadata from its source"
        ) from error
    if not isinstance(entries, list):
        raise DataError(f"{file} contains a {type(entries).__name__}, expected a list of instances")
    if faults := [f"instance {n} {fault}" for n, entry in enumerate(entries) if (fault := _entry_fault(entry))]:
        raise DataError(f"{file}: {first_ten(faults)}")
    return tuple(Instance(e["image"], e["attr"], e["obj"], e["set"], e.get("_image", "")) for e in entries)


def _refusal_reason(error: Exception) -> str:
    """Return the reason why torch refused a file: the code that the file names, else the first line of the error."""
    unpickled = re.search(r"GLOBAL (\S+)|WeightsUnpickler error:\s*(.+)", str(error))
    if unpickled and unpickled[1]:
        return f"it names {unpickled[1]}"
    text = unpickled[2] if unpickled else str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text[:_LONGEST_REASON]}"


def _entry_fault(entry: Any) -> str:
    """Return the fault of a metadata entry that is not an instance, or an empty text for an instance."""
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, expected a dict"
    for key in ("image", "attr", "obj", "set"):
        if not isinstance(entry.get(key), str):
            return f"has {key}={shortened(entry[key])}, expected a string" if key in entry else f"has no {key!r}"
    if not isinstance(entry.get("_image", ""), str):
        return f"has _image={shortened(entry['_image'])}, expected a string"
    if entry["set"] not in (*SPLITS, ABSENT):
        return f"is of set {shortened(entry['set'])}, expected one of {', '.join(SPLITS)}, {ABSENT}"
    return ""
