"""The metrics of one result on bootstrap resamples of its test images, computed from its file of numbers per image.

They are kept beside the result, so that they are computed only once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CzslkitError
from ..metrics.names import undefined_metrics
from ..result_store import KEPT_RESAMPLES, Result
from .comparability import data_digests
from .kept_resamples import Interval, KeptResamples, keep, read_kept

if TYPE_CHECKING:  # numpy is imported only if there are numbers to resample
    from ..metrics.bootstrap import Floats

#: Function that takes a result and the end of a file name. It returns the content of this file of the result, None if
#: the result has no such file.
Attached = Callable[[Result, str], bytes | None]
#: Function that takes the ``cell`` of a result and returns the folder of the result.
Folder = Callable[[Mapping[str, Any]], Path]

IMAGES_FILE = "images.npz"


@dataclass(frozen=True, eq=False)
class Resamples:
    """The metrics of one result on each resample of the test images, or their mean over seeds."""

    measurement: tuple[Any, ...]  # digests of the data and of the images, and the curve of the AUC
    values: Mapping[str, Floats]  # metric -> [resamples]; undefined metrics are left out
    intervals: Mapping[str, Interval]  # metric -> ends of the middle 95 % of the values

    def comparable(self, other: Resamples) -> bool:
        """Return whether both were measured on the same images of the same data, with the same curve."""
        return self.measurement == other.measurement


def resampled_result(
    result: Result, attached: Attached | None, folder: Folder | None = None
) -> Resamples | CzslkitError | None:
    """Return the resampled metrics of a result, or the error if its file of numbers per image cannot be used.

    Args:
        result: a result as the store returns it.
        attached: returns the files of a result, as :meth:`Store.attached`.
        folder: returns the folder in which resampled metrics are kept, as :meth:`Store.folder`; None keeps none.

    Returns:
        None for a result that failed or has no numbers per image.
    """
    if attached is None or result["status"] != "done":
        return None
    try:
        content = attached(result, IMAGES_FILE)
    except CzslkitError as error:
        return error
    if content is None:
        return None
    cell, bins = result["cell"], result["protocol"].get("bins")
    made_from = {"images_file": hashlib.sha256(content).hexdigest(), "bins": bins}
    file = folder(cell) / f"{cell['world']}.{KEPT_RESAMPLES}" if folder else None
    found = read_kept(file, made_from) if file else None
    if found is None:
        try:
            found = _resampled(content, result)
        except ValueError as error:
            return CzslkitError(f"seed {cell['seed']}: {IMAGES_FILE}: {error}")
        if file:
            keep(file, made_from, found)
    return Resamples((data_digests(result), found.images, bins), found.values, found.intervals)


def mean_over_seeds(seeds: Sequence[Resamples]) -> Resamples:
    """Return the mean over several seeds on each resample; all seeds must be measured on the same images."""
    import numpy as np

    first = seeds[0]
    if len(seeds) == 1:
        return first
    values = {metric: np.mean([seed.values[metric] for seed in seeds], axis=0) for metric in first.values}
    return Resamples(first.measurement, values, _intervals(values))


def _resampled(content: bytes, result: Result) -> KeptResamples:
    """Compute the metrics on the resamples of the images in a file of numbers per image.

    Raises:
        ValueError: the file holds something else, or the curve of the result is unknown.
    """
    from ..metrics import bootstrap
    from ..metrics.outcomes import Outcomes

    images, bins = Outcomes.from_bytes(content), result["protocol"].get("bins")
    counts = [result["metrics"].get(name) for name in ("n_seen", "n_unseen")]
    if None not in counts and sum(counts) != len(images):
        raise ValueError(f"has numbers of {len(images):,} images, its result of {sum(counts):,}")
    values = bootstrap.resampled_metrics(images, bins, bootstrap.RESAMPLES, bootstrap.SEED)
    kinds = {"n_seen": int(images.is_seen.sum()), "n_unseen": int((~images.is_seen).sum())}
    for metric in undefined_metrics({**values, **kinds}, bins):
        del values[metric]
    return KeptResamples(images.images_digest(), values, _intervals(values))


def _intervals(values: Mapping[str, Floats]) -> dict[str, Interval]:
    from ..metrics import bootstrap

    return dict(zip(values, bootstrap.intervals(list(values.values())), strict=True))
