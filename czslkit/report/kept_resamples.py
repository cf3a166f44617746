"""The file beside a result that keeps its resampled metrics. It is made again at any time and holds nothing new.

The first line is a digest of the rest, the second line says in JSON what the numbers are and what they were made from,
and the numbers follow as little-endian float64, metric by metric.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import file_digest, write_bytes
from ..foreign_files import parse_json, read_regular

if TYPE_CHECKING:  # numpy is imported only if there are numbers to resample
    from ..metrics.bootstrap import Floats

Interval = tuple[float, float]  # low and high end, as fractions

_MOST_BYTES = 1 << 20  # largest size of a file; a longer one is not read


@dataclass(frozen=True, eq=False)
class KeptResamples:
    """What is kept of one result."""

    images: str  # digest of the true pairs of the images
    values: Mapping[str, Floats]  # metric -> [resamples]; undefined metrics are left out
    intervals: Mapping[str, Interval]  # metric -> ends of the middle 95 % of the values


def read_kept(file: Path, made_from: Mapping[str, Any]) -> KeptResamples | None:
    """Return what a file keeps; None if there is no such file, it is damaged, or it was made from something else.

    Args:
        file: the file.
        made_from: what the metrics are computed from, apart from the code.
    """
    import numpy as np

    from ..metrics.bootstrap import RESAMPLES

    try:
        digest, _, rest = read_regular(file, _MOST_BYTES).partition(b"\n")
        if digest != _digest(rest):
            return None
        head, _, numbers = rest.partition(b"\n")
        described = parse_json(head)
        if described["made_from"] != {**made_from, **_code()}:
            return None
        intervals = {metric: (float(low), float(high)) for metric, (low, high) in described["intervals"].items()}
        values = np.frombuffer(numbers, "<f8").reshape(len(intervals), RESAMPLES)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):  # damaged, or a file of others
        return None
    return KeptResamples(str(described["images"]), dict(zip(intervals, values, strict=True)), intervals)


def keep(file: Path, made_from: Mapping[str, Any], resamples: KeptResamples) -> None:
    """Write resampled metrics to a file; nothing is kept if the file cannot be written."""
    import numpy as np

    described = {
        "made_from": {**made_from, **_code()},
        "images": resamples.images,
        "intervals": resamples.intervals,
    }
    numbers = np.array(list(resamples.values.values()), "<f8").tobytes()
    rest = json.dumps(described).encode() + b"\n" + numbers
    with suppress(OSError):  # such as a read-only folder
        write_bytes(file, _digest(rest) + b"\n" + rest)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


@functools.cache
def _code() -> dict[str, Any]:
    """Return everything apart from a result that its resampled metrics depend on."""
    import numpy as np

    from ..metrics import bootstrap, names, outcomes

    code = {module.__name__: file_digest(Path(str(module.__file__))) for module in (bootstrap, names, outcomes)}
    return {
        "code": code,
        "numpy": np.__version__,
        "resamples": bootstrap.RESAMPLES,
        "seed": bootstrap.SEED,
        "level": bootstrap.LEVEL,
    }
